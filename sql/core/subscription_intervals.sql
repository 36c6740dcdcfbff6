-- One row a subscription and span of time in which nothing of it changed. The first begins when the subscription was
-- made; the last has no end. After it is over, nothing that is told of it counts.
WITH told AS (
    SELECT
        *,
        min(CASE WHEN status IN ('canceled', 'incomplete_expired') THEN at END)
            OVER (PARTITION BY merchant_id, livemode, subscription_id) AS over_at
    FROM core.subscription_states
),
compared AS (
    SELECT
        *,
        row_number() OVER subscription AS n,
        lag(status) OVER subscription AS status_before,
        lag(mrr_micros) OVER subscription AS mrr_before,
        lag(items) OVER subscription AS items_before,
        lag(discounts) OVER subscription AS discounts_before,
        lag(cancel_at_period_end) OVER subscription AS cancels_before,
        lag(cancel_reason) OVER subscription AS reason_before
    FROM told
    WHERE over_at IS NULL OR at <= over_at
    WINDOW subscription AS (PARTITION BY merchant_id, livemode, subscription_id ORDER BY at)
),
changed AS (
    SELECT *, CASE WHEN n = 1 THEN least(at, created_at) ELSE at END AS valid_from
    FROM compared
    WHERE
        n = 1
        OR status <> status_before
        OR mrr_micros <> mrr_before
        OR items <> items_before
        OR (discounts IS DISTINCT FROM discounts_before)
        OR cancel_at_period_end <> cancels_before
        OR (cancel_reason IS DISTINCT FROM reason_before)
)
SELECT
    subscription_id,
    valid_from,
    lead(valid_from) OVER (PARTITION BY merchant_id, livemode, subscription_id ORDER BY at) AS valid_to,
    status,
    customer_id,
    person_id,
    currency,
    mrr_micros,
    mrr_is_known,
    items,
    discounts,
    cancel_at_period_end,
    cancel_reason,
    order_ambiguous,
    merchant_id,
    livemode
FROM changed
