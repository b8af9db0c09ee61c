-- Hosts of the network that sandboxes asked for and may not reach, those of most tasks first.
SELECT
    host,
    port,
    count(DISTINCT task_id) AS tasks,
    count(*) AS attempts,
    max(happened_at) AS last_at,
    arg_max(reason, happened_at) AS reason
FROM refusals
WHERE host <> ''
GROUP BY host, port
ORDER BY tasks DESC, last_at DESC
