-- One row a customer, currency and day (of UTC) on which what the customer brings a month changed. At any day's end, what
-- all bring is new + reactivation + expansion - contraction - churn of all days until then: exactly, in integers.
-- `mrr_is_known`: false where it moved to or from what nothing says the price or the discounts of.
WITH edges AS (
    SELECT customer_id, currency, valid_from AS at, mrr_micros AS delta, mrr_is_known, merchant_id, livemode
    FROM core.subscription_intervals
    WHERE mrr_micros <> 0 OR NOT mrr_is_known
    UNION ALL
    SELECT customer_id, currency, valid_to AS at, -mrr_micros AS delta, mrr_is_known, merchant_id, livemode
    FROM core.subscription_intervals
    WHERE (mrr_micros <> 0 OR NOT mrr_is_known) AND valid_to IS NOT NULL
),
days AS (
    SELECT
        customer_id,
        currency,
        CAST(at AS DATE) AS date,
        sum(delta) AS delta,
        bool_and(mrr_is_known) AS mrr_is_known,
        merchant_id,
        livemode
    FROM edges
    GROUP BY customer_id, currency, CAST(at AS DATE), merchant_id, livemode
),
ends AS (
    SELECT
        *,
        sum(delta) OVER (PARTITION BY merchant_id, livemode, customer_id, currency ORDER BY date) AS mrr_after
    FROM days
    WHERE delta <> 0
),
moves AS (
    SELECT
        *,
        mrr_after - delta AS mrr_before,
        row_number() OVER (PARTITION BY merchant_id, livemode, customer_id, currency ORDER BY date) = 1 AS is_first
    FROM ends
)
SELECT
    customer_id,
    currency,
    date,
    CASE
        WHEN mrr_before = 0 AND is_first THEN 'new'
        WHEN mrr_before = 0 THEN 'reactivation'
        WHEN mrr_after = 0 THEN 'churn'
        WHEN delta > 0 THEN 'expansion'
        ELSE 'contraction'
    END AS kind,
    abs(delta) AS amount_micros,
    mrr_before AS mrr_before_micros,
    mrr_after AS mrr_after_micros,
    mrr_is_known,
    merchant_id,
    livemode
FROM moves
