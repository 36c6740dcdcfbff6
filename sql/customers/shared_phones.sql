-- Phones that several people have. One row a phone.
SELECT phone_e164_hash, type, region, people, told_at, merchant_id, livemode
FROM core.phones
WHERE people > 1
