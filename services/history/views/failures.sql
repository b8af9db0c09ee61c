-- Turns that did not succeed, the latest first, with the reason given to the user.
SELECT
    turns.ended_at,
    turns.task_id,
    turns.turn,
    turns.user_id,
    tasks.repository,
    turns.outcome,
    turns.reason,
    turns.cost_usd
FROM turns JOIN tasks ON tasks.task_id = turns.task_id
WHERE turns.outcome IN ('failed', 'cancelled')
ORDER BY turns.ended_at DESC
