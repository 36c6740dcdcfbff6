-- One row a person who bought often and much, and has not bought for long: R 1-2, F 4-5 and M 4-5 of marts.rfm_scores.
--
-- `occurrence` is the order after which they stopped: who comes back and lapses again may be written to again. `amount` is
-- what they spent, text in major units. As of the last run of the scores.
WITH lapsed AS (
    SELECT
        person_id,
        as_of,
        recency_days,
        frequency,
        currency,
        money_major(monetary, currency) AS amount,
        segment
    FROM marts.rfm_scores
    WHERE r <= 2 AND f >= 4 AND m >= 4
),

last_orders AS (
    SELECT
        orders.person_id,
        last_value(orders.order_id ORDER BY orders.ordered_at, orders.order_id) AS order_id,
        max(orders.ordered_at) AS ordered_at
    FROM core.orders
    JOIN lapsed ON lapsed.person_id = orders.person_id
    WHERE orders.livemode AND orders.ordered_at <= lapsed.as_of
    GROUP BY orders.person_id
)

SELECT
    lapsed.person_id,
    last_orders.order_id AS occurrence,
    lapsed.recency_days,
    lapsed.frequency,
    lapsed.currency,
    -- As many decimals as the currency has.
    CASE exponent
        WHEN 0 THEN CAST(CAST(amount AS DECIMAL(22, 0)) AS VARCHAR)
        WHEN 3 THEN CAST(amount AS VARCHAR)
        ELSE CAST(CAST(amount AS DECIMAL(22, 2)) AS VARCHAR)
    END AS amount,
    lapsed.segment,
    last_orders.ordered_at AS last_order_at
FROM lapsed
JOIN last_orders ON last_orders.person_id = lapsed.person_id
LEFT JOIN ref.currencies ON currencies.currency = lapsed.currency
