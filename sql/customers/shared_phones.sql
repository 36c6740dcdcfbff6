-- Phones that several people have: a family's, a shop's own, or a thief's. One row a phone.
-- A phone counts for whoever it was told of last; nobody is taken for another because of it.
SELECT
    phone_e164_hash,
    count(DISTINCT person_id) AS people,
    min(first_seen_at) AS first_seen_at,
    max(last_seen_at) AS last_seen_at,
    merchant_id,
    livemode
FROM core.identities
WHERE phone_e164_hash IS NOT NULL
GROUP BY merchant_id, livemode, phone_e164_hash
HAVING count(DISTINCT person_id) > 1
