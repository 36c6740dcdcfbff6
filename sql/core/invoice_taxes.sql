-- One row a tax of an invoice's line; of the whole invoice, with no line, where its lines are not all known or have none.
WITH each AS (
    SELECT
        invoice_id,
        created_at,
        currency,
        merchant_id,
        livemode,
        unnest(json_get_array(taxes)) AS tax
    FROM core.invoices
    WHERE taxes IS NOT NULL
)
SELECT
    invoice_id,
    json_get_str(tax, 'line') AS line,
    json_get_str(tax, 'tax_rate_id') AS tax_rate_id,
    json_get_str(tax, 'jurisdiction') AS jurisdiction,
    json_get_str(tax, 'rate') AS rate,
    json_get_int(tax, 'taxable_amount') AS taxable_amount,
    json_get_int(tax, 'tax') AS tax,
    json_get_str(tax, 'behavior') AS behavior,
    json_get_str(tax, 'taxability_reason') AS taxability_reason,
    currency,
    created_at,
    merchant_id,
    livemode
FROM each
