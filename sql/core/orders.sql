-- One row an order: what was paid here, and what was imported from before. An imported order whose external
-- reference a payment carries is that payment, and counts once.
WITH payments AS (
    SELECT
        payment_intent_id AS order_id,
        external_ref,
        customer_id AS customer_ref,
        person_id,
        coalesce(succeeded_at, created_at) AS ordered_at,
        coalesce(nullif(amount_received, 0), amount) AS amount,
        currency,
        country,
        'stripe' AS source,
        merchant_id,
        livemode
    FROM core.payment_intents
    WHERE status = 'succeeded'
    UNION ALL
    -- Charges of before there were payment intents.
    SELECT
        charge_id AS order_id,
        external_ref,
        customer_id AS customer_ref,
        person_id,
        coalesce(captured_at, created_at) AS ordered_at,
        coalesce(nullif(amount_captured, 0), amount) AS amount,
        currency,
        billing_country AS country,
        'stripe' AS source,
        merchant_id,
        livemode
    FROM core.charges
    WHERE status = 'succeeded' AND captured AND payment_intent_id IS NULL
)
SELECT order_id, external_ref, customer_ref, person_id, ordered_at, amount, currency, country, source, merchant_id,
    livemode
FROM payments
UNION ALL
SELECT order_id, external_ref, customer_ref, person_id, ordered_at, amount, currency, country, source, merchant_id,
    livemode
FROM core.imported_orders AS imported
WHERE NOT EXISTS (
    SELECT 1
    FROM payments
    WHERE payments.external_ref = imported.external_ref AND payments.livemode = imported.livemode
)
