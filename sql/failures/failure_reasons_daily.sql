-- One row a day of the merchant's zone, category, code and currency: the payment attempts that failed so.
--
-- Failed is every attempt with an outcome but authorised and pending. `share` is of the failed attempts of the day and
-- currency; `amount` is what they were to pay, minor units. An attempt without a decline code shows its failure code,
-- and without that its outcome (blocked, auth_failed, ...). Live rows only, nothing after as_of().
WITH failed_attempts AS (
    SELECT
        local_date(created_at) AS day,
        coalesce(category, 'unknown') AS category,
        coalesce(decline_code, failure_code, outcome) AS decline_code,
        currency,
        amount
    FROM core.payment_attempts
    WHERE livemode AND outcome NOT IN ('authorised', 'pending') AND created_at <= as_of()
)

SELECT
    day,
    category,
    decline_code,
    currency,
    count(*) AS attempts,
    -- Summed as a decimal: a sum that no longer fits is an error, where one of integers would wrap.
    CAST(sum(CAST(amount AS DECIMAL(19, 0))) AS BIGINT) AS amount,
    count(*) / CAST(sum(count(*)) OVER (PARTITION BY day, currency) AS DOUBLE) AS share
FROM failed_attempts
GROUP BY day, category, decline_code, currency
ORDER BY day, currency, attempts DESC, category, decline_code
