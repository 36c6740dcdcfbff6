-- One row a cart that was filled and not paid: the person, what lies in it, and from when on it counts as abandoned.
--
-- A person is a member from `due_at` on, 30 minutes after the cart's last event; a row with a later `due_at` says when
-- to look again. A cart is left out when its last event is over 48 hours old, when nothing is left in it, and when the
-- person has paid or ordered since something was last put into it, or somebody has paid for this cart. `occurrence` is
-- the cart: one message a cart. `amount` is text in major units. Live rows only, nothing after as_of().
WITH seen_events AS (
    SELECT
        *,
        max(CASE WHEN kind = 'ordered' THEN occurred_at END) OVER (PARTITION BY person_id, cart_id) AS last_ordered_at,
        CASE kind WHEN 'added' THEN 1 WHEN 'removed' THEN -1 ELSE 0 END * coalesce(quantity, 1) AS pieces
    FROM core.cart_events
    WHERE livemode AND person_id IS NOT NULL AND cart_id IS NOT NULL AND occurred_at <= as_of()
),

-- What an order took out of a cart is no longer in it.
carts AS (
    SELECT
        person_id,
        cart_id,
        max(occurred_at) AS last_event_at,
        max(occurred_at) FILTER (WHERE kind = 'added') AS last_added_at,
        sum(pieces) AS items,
        CAST(sum(CAST(pieces AS DECIMAL(19, 0)) * CAST(price AS DECIMAL(19, 0))) AS BIGINT) AS minor_units,
        min(currency) AS currency,
        count(DISTINCT currency) = 1 AND bool_and(price IS NOT NULL OR kind <> 'added') AS has_amount
    FROM seen_events
    WHERE last_ordered_at IS NULL OR occurred_at > last_ordered_at
    GROUP BY person_id, cart_id
),

open_carts AS (
    SELECT
        person_id,
        cart_id,
        items,
        last_event_at,
        last_added_at,
        CASE WHEN has_amount THEN currency END AS currency,
        CASE WHEN has_amount THEN money_major(minor_units, currency) END AS amount
    FROM carts
    WHERE last_event_at >= as_of() - INTERVAL '48 hours' AND last_added_at IS NOT NULL AND items > 0
),

unpaid_carts AS (
    SELECT *
    FROM open_carts
    WHERE
        NOT EXISTS (
            SELECT 1
            FROM core.orders
            WHERE
                orders.livemode
                AND orders.person_id = open_carts.person_id
                AND orders.ordered_at >= open_carts.last_added_at
                AND orders.ordered_at <= as_of()
        )
        AND NOT EXISTS (
            SELECT 1
            FROM core.payment_intents
            WHERE
                payment_intents.livemode
                AND payment_intents.cart_id = open_carts.cart_id
                AND payment_intents.succeeded_at >= open_carts.last_added_at
                AND payment_intents.succeeded_at <= as_of()
        )
)

SELECT
    person_id,
    cart_id AS occurrence,
    last_event_at + INTERVAL '30 minutes' AS due_at,
    cart_id,
    items,
    unpaid_carts.currency,
    -- As many decimals as the currency has.
    CASE exponent
        WHEN 0 THEN CAST(CAST(amount AS DECIMAL(22, 0)) AS VARCHAR)
        WHEN 3 THEN CAST(amount AS VARCHAR)
        ELSE CAST(CAST(amount AS DECIMAL(22, 2)) AS VARCHAR)
    END AS amount,
    last_event_at
FROM unpaid_carts
LEFT JOIN ref.currencies ON currencies.currency = unpaid_carts.currency
