-- One row a day (of UTC) and pair of currencies between which Stripe converted payments: the mean, by amount. Where the two have
-- other decimal places, what was captured over what came in, as what `exchange_rate` counts then is not documented.
-- rate: major units of `currency` that one major unit of `base`, which is settled in, was worth.
SELECT
    CAST(paid.created_at AS DATE) AS day,
    paid.settlement_currency AS base,
    paid.currency,
    sum(CAST(paid.amount_captured AS DOUBLE)) / sum(
        CASE
            WHEN of_paid.exponent = of_settled.exponent THEN paid.exchange_rate * paid.amount_captured
            ELSE (paid.fee + paid.net) * power(10.0, CAST(of_paid.exponent AS DOUBLE) - of_settled.exponent)
        END
    ) AS rate
FROM core.charges AS paid
JOIN ref.currencies AS of_paid ON of_paid.currency = paid.currency
JOIN ref.currencies AS of_settled ON of_settled.currency = paid.settlement_currency
WHERE
    paid.livemode
    AND paid.exchange_rate > 0
    AND paid.amount_captured > 0
    AND paid.currency <> paid.settlement_currency
GROUP BY CAST(paid.created_at AS DATE), paid.settlement_currency, paid.currency
