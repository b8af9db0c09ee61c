-- The 100 steps that took longest.
SELECT
    duration_seconds,
    task_id,
    step,
    attempt,
    user_id,
    kind,
    tool,
    outcome,
    exit_code,
    started_at,
    input
FROM steps
WHERE duration_seconds IS NOT NULL
ORDER BY duration_seconds DESC
LIMIT 100
