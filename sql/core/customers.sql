-- One row a customer of the payment provider, with the profile at Klaviyo that was changed last of those of their person, and when
-- their person asked to be forgotten.
WITH profiles AS (
    SELECT
        person_id,
        last_value(profile_id ORDER BY updated_at, profile_id) AS profile_id,
        merchant_id,
        livemode
    FROM core.profiles
    WHERE person_id IS NOT NULL
    GROUP BY merchant_id, livemode, person_id
),
forgotten AS (
    SELECT person_id, max(erased_at) AS erased_at, merchant_id, livemode
    FROM core.identities
    WHERE erased_at IS NOT NULL
    GROUP BY merchant_id, livemode, person_id
)
SELECT
    customers.*,
    CASE WHEN forgotten.erased_at IS NULL THEN profiles.profile_id END AS klaviyo_profile_id,
    forgotten.erased_at
FROM stored.customers AS customers
LEFT JOIN profiles
    ON profiles.person_id = customers.person_id
    AND profiles.merchant_id = customers.merchant_id
    AND profiles.livemode = customers.livemode
LEFT JOIN forgotten
    ON forgotten.person_id = customers.person_id
    AND forgotten.merchant_id = customers.merchant_id
    AND forgotten.livemode = customers.livemode
