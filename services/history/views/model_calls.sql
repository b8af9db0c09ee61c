-- Calls to each model: how long they take, what they cost, how much came from the cache.
SELECT
    attempts.model,
    attempts.scripted,
    count(*) AS calls,
    count(*) FILTER (steps.outcome = 'lost') AS lost,
    approx_quantile(steps.duration_seconds, 0.5) AS p50_seconds,
    approx_quantile(steps.duration_seconds, 0.95) AS p95_seconds,
    sum(steps.output_tokens) AS output_tokens,
    round(
        sum(steps.cache_read_tokens)
        / nullif(sum(steps.input_tokens + steps.cache_read_tokens + steps.cache_write_tokens), 0),
        4
    ) AS cache_read_share,
    sum(steps.cost_usd) AS cost_usd
FROM steps LEFT JOIN attempts ON attempts.task_id = steps.task_id AND attempts.attempt = steps.attempt
WHERE steps.kind = 'model'
GROUP BY attempts.model, attempts.scripted
ORDER BY calls DESC
