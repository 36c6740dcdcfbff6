-- One row a phone that somebody was told to have last, and how many people are: a family shares one, and a shop's own or a
-- thief's goes with many. Nobody is taken for another because of it. `told_at`: when it was last.
SELECT
    phone_e164_hash,
    max(phone_type) AS type,
    max(phone_region) AS region,
    max(phone_carrier) AS carrier,
    max(phone_time_zones) AS time_zones,
    count(DISTINCT person_id) AS people,
    max(phone_told_at) AS told_at,
    merchant_id,
    livemode
FROM core.identities
WHERE phone_e164_hash IS NOT NULL
GROUP BY merchant_id, livemode, phone_e164_hash
