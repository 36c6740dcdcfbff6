-- One row a person: what the identifiers that are linked to one another say of them.
-- The e-mail is the first that was seen; country, locale, zone and phone are the last that were. The currency is what they paid
-- in last, or else their country's.
WITH told AS (
    SELECT
        person_id,
        first_value(email_hash ORDER BY first_seen_at, kind, value_hash)
            FILTER (WHERE email_hash IS NOT NULL) AS email_hash,
        last_value(phone_e164_hash ORDER BY last_seen_at, kind, value_hash)
            FILTER (WHERE phone_e164_hash IS NOT NULL) AS phone_e164_hash,
        last_value(country ORDER BY last_seen_at, kind, value_hash)
            FILTER (WHERE country IS NOT NULL) AS country,
        last_value(locale ORDER BY last_seen_at, kind, value_hash)
            FILTER (WHERE locale IS NOT NULL) AS locale,
        last_value(timezone ORDER BY last_seen_at, kind, value_hash)
            FILTER (WHERE timezone IS NOT NULL) AS timezone,
        last_value(currency ORDER BY last_seen_at, kind, value_hash)
            FILTER (WHERE currency IS NOT NULL) AS currency,
        min(first_seen_at) AS first_seen_at,
        max(last_seen_at) AS last_seen_at,
        merchant_id,
        livemode
    FROM core.identities
    GROUP BY merchant_id, livemode, person_id
)
SELECT
    told.person_id,
    told.email_hash,
    told.phone_e164_hash,
    told.country,
    told.locale,
    told.timezone,
    coalesce(told.currency, countries.currency) AS currency,
    told.first_seen_at,
    told.last_seen_at,
    told.merchant_id,
    told.livemode
FROM told
LEFT JOIN ref.countries AS countries ON countries.country = told.country
