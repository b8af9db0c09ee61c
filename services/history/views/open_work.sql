-- What is not at an outcome now, the longest untouched first: where it stands, why, and what it has cost in this turn.
SELECT
    tasks.task_id,
    tasks.user_id,
    tasks.title,
    tasks.state,
    tasks.reason,
    tasks.updated_at,
    attempts.runner,
    attempts.attempt,
    (SELECT sum(steps.cost_usd) FROM steps WHERE steps.task_id = tasks.task_id AND steps.attempt = tasks.attempts)
        AS attempt_cost_usd
FROM tasks
LEFT JOIN attempts
    ON attempts.task_id = tasks.task_id AND attempts.attempt = tasks.attempts AND attempts.ended_at IS NULL
WHERE tasks.state NOT IN ('succeeded', 'failed', 'cancelled')
ORDER BY tasks.updated_at
