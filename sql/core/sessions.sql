-- One row a session: what one person did in the shop with no half hour between one thing and the next. An order that no
-- visit is behind, as a renewal, is none.
WITH done AS (
    SELECT merchant_id, livemode, person_id, occurred_at, event_id, 'page' AS kind, path, referrer_host, campaign
    FROM core.page_views
    UNION ALL
    SELECT merchant_id, livemode, person_id, occurred_at, event_id, 'product', NULL, NULL, NULL
    FROM core.product_views
    UNION ALL
    SELECT merchant_id, livemode, person_id, occurred_at, event_id, kind, NULL, NULL, NULL
    FROM core.cart_events
),
since AS (
    SELECT
        *,
        occurred_at - lag(occurred_at) OVER (
            PARTITION BY merchant_id, livemode, person_id ORDER BY occurred_at, event_id
        ) AS pause
    FROM done
    WHERE person_id IS NOT NULL
),
numbered AS (
    SELECT
        *,
        sum(CASE WHEN pause <= INTERVAL '30 minutes' THEN 0 ELSE 1 END) OVER (
            PARTITION BY merchant_id, livemode, person_id ORDER BY occurred_at, event_id
            ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
        ) AS session
    FROM since
)
SELECT
    first_value(event_id ORDER BY occurred_at, event_id) AS session_id,
    person_id,
    min(occurred_at) AS started_at,
    max(occurred_at) AS ended_at,
    count(*) FILTER (WHERE kind = 'page') AS page_views,
    count(*) FILTER (WHERE kind = 'product') AS product_views,
    count(*) FILTER (WHERE kind = 'added') AS cart_additions,
    coalesce(bool_or(kind = 'checkout_started'), false) AS checkout_started,
    coalesce(bool_or(kind = 'ordered'), false) AS ordered,
    first_value(path ORDER BY occurred_at, event_id) FILTER (WHERE path IS NOT NULL) AS landing_path,
    first_value(referrer_host ORDER BY occurred_at, event_id) FILTER (WHERE referrer_host IS NOT NULL) AS referrer_host,
    first_value(campaign ORDER BY occurred_at, event_id) FILTER (WHERE campaign IS NOT NULL) AS campaign,
    merchant_id,
    livemode
FROM numbered
GROUP BY merchant_id, livemode, person_id, session
HAVING count(*) FILTER (WHERE kind <> 'ordered') > 0
