-- Each repository: how many tasks, how they stand, what they cost, changed and offered to be merged.
SELECT
    repository,
    count(*) AS tasks,
    count(*) FILTER (state = 'succeeded') AS succeeded,
    count(*) FILTER (state = 'failed') AS failed,
    count(*) FILTER (state = 'cancelled') AS cancelled,
    count(*) FILTER (state NOT IN ('succeeded', 'failed', 'cancelled')) AS open,
    count(pull_request) AS pull_requests,
    sum(insertions) AS insertions,
    sum(deletions) AS deletions,
    sum(cost_usd) AS cost_usd,
    max(updated_at) AS last_active_at
FROM tasks
GROUP BY repository
ORDER BY tasks DESC
