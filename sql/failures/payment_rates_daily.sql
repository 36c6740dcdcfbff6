-- One row a day of the merchant's zone and currency: five ways to say how many payments succeed, each from 0 to 1, NULL
-- where nothing is to be counted. `attempts` (A below) are all but those with outcome `invalid`.
--
-- raw_success            authorised / A
-- network_authorisation  authorised / (A - failed 3DS - blocked): of those that went to the network
-- deduplicated_success   of payments: attempts of one invoice; else of one customer and amount, each within 24 hours of
--                        the one before; else of one card and amount, likewise; else alone. A payment succeeds if its
--                        last attempt does, and counts on the day of its first
-- by_intent_success      of intents with an attempt, those that succeeded or await capture; on the day of the first
-- technical_success      1 - technical / A: failures of processors and networks, not of cards, people or rules
--
-- Live rows only, nothing after as_of().
WITH valid_attempts AS (
    SELECT
        attempt_id,
        created_at,
        currency,
        outcome,
        is_technical,
        CASE
            WHEN invoice_id IS NOT NULL THEN 'invoice:' || invoice_id
            WHEN customer_id IS NOT NULL THEN 'customer:' || customer_id || ':' || CAST(amount AS VARCHAR)
            WHEN card_fingerprint IS NOT NULL THEN 'card:' || card_fingerprint || ':' || CAST(amount AS VARCHAR)
            ELSE 'attempt:' || attempt_id
        END AS payer,
        invoice_id IS NOT NULL AS is_invoice
    FROM core.payment_attempts
    WHERE livemode AND outcome <> 'invalid' AND created_at <= as_of()
),

-- Stripe's times have whole seconds: in one second what was authorised came last.
marked_attempts AS (
    SELECT
        *,
        CASE
            WHEN is_invoice THEN 0
            WHEN created_at <= lag(created_at) OVER attempts_in_order + INTERVAL '24 hours' THEN 0
            ELSE 1
        END AS starts_payment
    FROM valid_attempts
    WINDOW attempts_in_order AS (
        PARTITION BY payer, currency ORDER BY created_at, outcome = 'authorised', attempt_id
    )
),

numbered_attempts AS (
    SELECT
        *,
        sum(starts_payment) OVER (
            PARTITION BY payer, currency ORDER BY created_at, outcome = 'authorised', attempt_id
            ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
        ) AS payment
    FROM marked_attempts
),

payments AS (
    SELECT
        currency,
        min(created_at) AS first_attempt_at,
        last_value(outcome ORDER BY created_at, outcome = 'authorised', attempt_id) AS final_outcome
    FROM numbered_attempts
    GROUP BY payer, currency, payment
),

tried_intents AS (
    SELECT
        currency,
        first_attempt_at,
        status = 'requires_capture' OR (status = 'succeeded' AND succeeded_at <= as_of()) AS has_succeeded
    FROM core.payment_intents
    WHERE livemode AND attempts > 0 AND first_attempt_at <= as_of()
),

attempts_daily AS (
    SELECT
        local_date(created_at) AS day,
        currency,
        count(*) AS attempts,
        count(*) FILTER (WHERE outcome = 'authorised') AS authorised,
        count(*) FILTER (WHERE outcome NOT IN ('auth_failed', 'blocked')) AS sent_to_network,
        count(*) FILTER (WHERE is_technical) AS technical
    FROM valid_attempts
    GROUP BY local_date(created_at), currency
),

payments_daily AS (
    SELECT
        local_date(first_attempt_at) AS day,
        currency,
        count(*) FILTER (WHERE final_outcome = 'authorised') / CAST(count(*) AS DOUBLE) AS success
    FROM payments
    GROUP BY local_date(first_attempt_at), currency
),

intents_daily AS (
    SELECT
        local_date(first_attempt_at) AS day,
        currency,
        count(*) FILTER (WHERE has_succeeded) / CAST(count(*) AS DOUBLE) AS success
    FROM tried_intents
    GROUP BY local_date(first_attempt_at), currency
),

days AS (
    SELECT day, currency FROM attempts_daily
    UNION
    SELECT day, currency FROM intents_daily
)

SELECT
    days.day,
    days.currency,
    coalesce(attempts, 0) AS attempts,
    authorised / CAST(attempts AS DOUBLE) AS raw_success,
    authorised / CAST(nullif(sent_to_network, 0) AS DOUBLE) AS network_authorisation,
    payments_daily.success AS deduplicated_success,
    intents_daily.success AS by_intent_success,
    1 - technical / CAST(attempts AS DOUBLE) AS technical_success
FROM days
LEFT JOIN attempts_daily ON attempts_daily.day = days.day AND attempts_daily.currency = days.currency
LEFT JOIN payments_daily ON payments_daily.day = days.day AND payments_daily.currency = days.currency
LEFT JOIN intents_daily ON intents_daily.day = days.day AND intents_daily.currency = days.currency
ORDER BY days.day, days.currency
