-- One row a row of {table}, with what is known of discounts by now, and what they bring a month by that: its own event may have
-- named some without saying what they take off. `mrr_is_known`: false where nothing says it, and then it lowers nothing; and where
-- nothing says what an item costs, as of a price in tiers, and then it brings nothing. What brings nothing anyhow keeps its
-- discounts as they were told.
WITH named AS (
    SELECT {key}, currency, merchant_id, livemode, unnest(terms_named(items, discounts)) AS term_id
    FROM stored.{table}
    WHERE mrr_micros IS NULL
),
-- A price is among them so that it stays unknown.
terms AS (
    SELECT
        named.{key},
        named.merchant_id,
        named.livemode,
        count(coalesce(coupons.percent_off, coupons.amount_off)) = count(*) AS are_known,
        array_agg(
            named_struct(
                'id', named.term_id,
                'coupon_id', discounts.coupon_id,
                'percent_off', coupons.percent_off,
                'amount_off', coupons.amount_off,
                'duration', coupons.duration,
                'ends_at', discounts.ends_at
            )
        ) AS terms
    FROM named
    LEFT JOIN core.discounts AS discounts
        ON discounts.discount_id = named.term_id AND discounts.livemode = named.livemode
    -- An amount of another currency says nothing of this one's.
    LEFT JOIN core.coupons AS coupons
        ON coupons.coupon_id = discounts.coupon_id AND coupons.livemode = named.livemode
        AND (coupons.amount_off IS NULL OR coupons.currency = named.currency)
    GROUP BY named.{key}, named.merchant_id, named.livemode
),
told AS (
    SELECT
        told.* REPLACE (
            items_with(told.items, terms.terms) AS items,
            discounts_with(told.discounts, terms.terms) AS discounts
        ),
        told.mrr_micros IS NOT NULL OR coalesce(terms.are_known, false) AS mrr_is_known
    -- The few on the side that is held in memory.
    FROM terms
    RIGHT JOIN stored.{table} AS told
        ON terms.{key} = told.{key} AND terms.merchant_id = told.merchant_id AND terms.livemode = told.livemode
)
SELECT told.* REPLACE (
    coalesce(told.mrr_micros, mrr_micros(told.currency, told.items, told.discounts, told.{at})) AS mrr_micros
)
FROM told
