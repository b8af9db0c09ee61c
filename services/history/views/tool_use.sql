-- How often each tool is called, how often it fails, and how long it takes.
SELECT
    tool,
    count(*) AS calls,
    count(*) FILTER (outcome = 'error') AS errors,
    count(*) FILTER (outcome = 'lost') AS lost,
    count(*) FILTER (outcome IS NULL) AS running,
    round(count(*) FILTER (outcome = 'error') / count(*), 4) AS error_rate,
    approx_quantile(duration_seconds, 0.5) AS p50_seconds,
    approx_quantile(duration_seconds, 0.95) AS p95_seconds,
    max(duration_seconds) AS max_seconds
FROM steps
WHERE kind = 'tool'
GROUP BY tool
ORDER BY calls DESC
