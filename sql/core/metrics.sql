-- One row a Klaviyo metric, by its name: how often it came, of how many people, and when. One that every event named by its id
-- alone has no name.
WITH named AS (
    SELECT merchant_id, livemode, metric_id, max(metric) AS metric
    FROM core.metric_events
    WHERE metric IS NOT NULL
    GROUP BY merchant_id, livemode, metric_id
)
SELECT
    coalesce(e.metric, named.metric) AS metric,
    max(e.metric_id) AS metric_id,
    count(*) AS events,
    count(DISTINCT e.person_id) AS people,
    min(e.occurred_at) AS first_at,
    max(e.occurred_at) AS last_at,
    e.merchant_id,
    e.livemode
FROM core.metric_events AS e
LEFT JOIN named
    ON named.merchant_id = e.merchant_id AND named.livemode = e.livemode AND named.metric_id = e.metric_id
GROUP BY
    e.merchant_id,
    e.livemode,
    coalesce(e.metric, named.metric),
    CASE WHEN coalesce(e.metric, named.metric) IS NULL THEN e.metric_id END
