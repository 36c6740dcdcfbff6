-- One row a fee of a balance transaction.
WITH each AS (
    SELECT
        balance_transaction_id,
        created_at,
        merchant_id,
        livemode,
        unnest(json_get_array(fee_details)) AS detail
    FROM core.balance_transactions
    WHERE fee_details IS NOT NULL
)
SELECT
    balance_transaction_id,
    json_get_str(detail, 'type') AS type,
    json_get_int(detail, 'amount') AS amount,
    json_get_str(detail, 'currency') AS currency,
    json_get_str(detail, 'description') AS description,
    created_at,
    merchant_id,
    livemode
FROM each
