-- One row a Klaviyo metric: its name, the last that an event told, how often it came, of how many people, and when. One that
-- every event named by its id alone has no name; one that events named without its id has no id.
SELECT
    last_value(metric ORDER BY occurred_at, metric) FILTER (WHERE metric IS NOT NULL) AS metric,
    metric_id,
    count(*) AS events,
    count(DISTINCT person_id) AS people,
    min(occurred_at) AS first_at,
    max(occurred_at) AS last_at,
    merchant_id,
    livemode
FROM core.metric_events
GROUP BY merchant_id, livemode, metric_id, CASE WHEN metric_id IS NULL THEN metric END
