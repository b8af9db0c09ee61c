-- How long each turn took, and how much of it was waiting for a slot.
SELECT
    turns.task_id,
    turns.turn,
    turns.user_id,
    turns.outcome,
    turns.opened_at,
    turns.ended_at,
    epoch_ms(turns.ended_at - turns.opened_at) / 1000 AS duration_seconds,
    epoch_ms(tries.first_claimed_at - turns.opened_at) / 1000 AS first_wait_seconds,
    tries.waited_ms / 1000 AS queue_wait_seconds,
    coalesce(tries.attempts, 0) AS attempts,
    turns.cost_usd
FROM turns
LEFT JOIN (
    SELECT
        task_id,
        turn,
        count(*) AS attempts,
        min(claimed_at) AS first_claimed_at,
        sum(epoch_ms(claimed_at) - epoch_ms(queued_at)) AS waited_ms
    FROM attempts
    GROUP BY task_id, turn
) AS tries ON tries.task_id = turns.task_id AND tries.turn = turns.turn
ORDER BY turns.opened_at DESC
