-- Hosts of the network that sandboxes asked for and may not reach, those of most tasks first.
SELECT
    payload.host::VARCHAR AS host,
    payload.port::INTEGER AS port,
    count(DISTINCT task_id) AS tasks,
    count(*) AS attempts,
    max(happened_at) AS last_at,
    arg_max(payload.reason::VARCHAR, happened_at) AS reason
FROM events
WHERE kind = 'host_refused' AND payload.port::INTEGER > 0
GROUP BY ALL
ORDER BY tasks DESC, last_at DESC
