-- Phones that several people have. One row a phone.
SELECT phone_e164_hash, type, region, people, first_seen_at, last_seen_at, merchant_id, livemode
FROM core.phones
WHERE people > 1
