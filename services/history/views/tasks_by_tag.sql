-- Each tag: how many tasks have it, how they stand and what they cost. A task with two tags counts for both.
SELECT
    tag,
    count(*) AS tasks,
    count(*) FILTER (state = 'succeeded') AS succeeded,
    count(*) FILTER (state = 'failed') AS failed,
    count(*) FILTER (state = 'cancelled') AS cancelled,
    count(*) FILTER (state NOT IN ('succeeded', 'failed', 'cancelled')) AS open,
    sum(cost_usd) AS cost_usd,
    max(updated_at) AS last_active_at
FROM (SELECT unnest(tags) AS tag, state, cost_usd, updated_at FROM tasks)
GROUP BY tag
ORDER BY tasks DESC, tag
