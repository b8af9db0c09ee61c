-- What each user's model calls cost a day (UTC), lost calls included as what must be taken as paid.
SELECT
    date_trunc('day', steps.started_at)::DATE AS day,
    coalesce(any_value(users.name), steps.user_id) AS user_name,
    steps.user_id,
    count(DISTINCT steps.task_id) AS tasks,
    count(*) AS model_calls,
    sum(coalesce(steps.input_tokens, 0) + coalesce(steps.cache_read_tokens, 0) + coalesce(steps.cache_write_tokens, 0))
        AS input_tokens,
    sum(coalesce(steps.output_tokens, 0)) AS output_tokens,
    sum(coalesce(steps.cost_usd, 0)) AS cost_usd
FROM steps LEFT JOIN users ON users.user_id = steps.user_id
WHERE steps.kind = 'model'
GROUP BY day, steps.user_id
ORDER BY day DESC, cost_usd DESC
