-- One row a person whose last payment failed for a reason that they can mend, and who has paid nothing since.
--
-- Mendable: 3D Secure was not completed, or the card's issuer declined with a code on which the customer is the one to
-- act, that is not for ever, and that may be told (never fraud, a lost or a stolen card). Looked at is the last attempt of
-- each payment intent of the last 7 days that is neither paid, under way nor canceled; of several such intents of a
-- person, the last. `occurrence` is the intent: one message a payment. `amount` is text
-- in major units. Live rows only, nothing after as_of().
WITH mendable_codes AS (
    SELECT DISTINCT code, category
    FROM ref.decline_codes
    WHERE who_acts = 'customer' AND retry_advice <> 'never' AND NOT mask_from_customer
),

-- Older ones tell nothing of a last attempt within the 7 days. Stripe's times have whole seconds: in one second what was
-- authorised came last.
attempts AS (
    SELECT
        payment_intent_id,
        person_id,
        created_at,
        amount,
        currency,
        outcome,
        category,
        coalesce(decline_code, failure_code) AS code,
        row_number() OVER (
            PARTITION BY payment_intent_id ORDER BY created_at DESC, outcome = 'authorised' DESC, attempt_id DESC
        ) AS from_last
    FROM core.payment_attempts
    WHERE
        livemode
        AND payment_intent_id IS NOT NULL
        AND created_at BETWEEN as_of() - INTERVAL '7 days' AND as_of()
),

last_attempts AS (
    SELECT attempts.*
    FROM attempts
    JOIN core.payment_intents ON payment_intents.payment_intent_id = attempts.payment_intent_id
    WHERE
        from_last = 1
        AND attempts.person_id IS NOT NULL
        AND payment_intents.livemode
        AND payment_intents.status NOT IN ('succeeded', 'canceled', 'processing', 'requires_capture')
),

mendable_attempts AS (
    SELECT
        last_attempts.*,
        row_number() OVER (
            PARTITION BY person_id ORDER BY created_at DESC, payment_intent_id DESC
        ) AS from_last_of_person
    FROM last_attempts
    LEFT JOIN mendable_codes
        ON mendable_codes.code = last_attempts.code AND mendable_codes.category = last_attempts.category
    WHERE outcome = 'auth_failed' OR (outcome = 'issuer_declined' AND mendable_codes.code IS NOT NULL)
),

unpaid_attempts AS (
    SELECT
        person_id,
        payment_intent_id,
        currency,
        money_major(amount, currency) AS amount,
        category,
        code,
        created_at
    FROM mendable_attempts
    WHERE
        from_last_of_person = 1
        AND NOT EXISTS (
            SELECT 1
            FROM core.orders
            WHERE
                orders.livemode
                AND orders.person_id = mendable_attempts.person_id
                AND orders.ordered_at >= mendable_attempts.created_at
                AND orders.ordered_at <= as_of()
        )
)

SELECT
    person_id,
    payment_intent_id AS occurrence,
    payment_intent_id,
    unpaid_attempts.currency,
    -- As many decimals as the currency has.
    CASE exponent
        WHEN 0 THEN CAST(CAST(amount AS DECIMAL(22, 0)) AS VARCHAR)
        WHEN 3 THEN CAST(amount AS VARCHAR)
        ELSE CAST(CAST(amount AS DECIMAL(22, 2)) AS VARCHAR)
    END AS amount,
    category,
    code AS decline_code,
    created_at AS failed_at
FROM unpaid_attempts
LEFT JOIN ref.currencies ON currencies.currency = unpaid_attempts.currency
