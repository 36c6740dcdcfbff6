-- One row a person who has bought: recency, frequency and monetary value, each scored 1 (worst) to 5, and a segment.
--
-- Recency is whole days from the last order to as_of(); frequency is the number of orders; monetary is their sum before
-- refunds, minor units. R and M by quintiles with linearly interpolated edges, intervals open below and closed above;
-- F by quintiles of the rank, ties in order of the customer's own number (then text, then the least order's id). R and F compare all
-- people. Amounts of different currencies are never added or compared: `currency` is the one in which the person
-- bought most often (then last), `monetary` is the sum in it, and M compares the people of one currency. The segment is
-- by R and F. Live orders only (imported ones are), none after as_of().
--
-- Edges are compared in integers: with the n values sorted in x[0..n-1] and (n - 1) * k = 5 * h + t, five times the k-th
-- edge is x[h] * (5 - t) + x[h + 1] * t.
WITH seen_orders AS (
    SELECT order_id, person_id, customer_ref, ordered_at, amount, currency
    FROM core.orders
    WHERE livemode AND person_id IS NOT NULL AND ordered_at <= as_of()
),

people AS (
    SELECT
        person_id,
        -- min() would compare numbers as text.
        first_value(customer_ref ORDER BY try_cast(customer_ref AS BIGINT) NULLS LAST, customer_ref) AS customer_ref,
        min(order_id) AS least_order,
        (CAST(as_of() AS BIGINT) - CAST(max(ordered_at) AS BIGINT)) / 86400000000 AS recency_days,
        count(*) AS frequency
    FROM seen_orders
    GROUP BY person_id
),

spending AS (
    SELECT
        person_id,
        currency,
        -- Summed as a decimal: a sum that no longer fits is an error, where one of integers would wrap.
        CAST(sum(CAST(amount AS DECIMAL(19, 0))) AS BIGINT) AS monetary,
        row_number() OVER (PARTITION BY person_id ORDER BY count(*) DESC, max(ordered_at) DESC, currency) AS preference
    FROM seen_orders
    GROUP BY person_id, currency
),

ranked_people AS (
    SELECT
        people.person_id,
        people.recency_days,
        people.frequency,
        spending.currency,
        spending.monetary,
        row_number() OVER (
            ORDER BY frequency, try_cast(customer_ref AS BIGINT) NULLS LAST, customer_ref, least_order
        ) AS frequency_rank
    FROM people
    JOIN spending ON spending.person_id = people.person_id AND spending.preference = 1
),

quintiles AS (
    SELECT k FROM (VALUES (1), (2), (3), (4)) AS inner_edges (k)
),

sorted_recency AS (
    SELECT array_agg(recency_days ORDER BY recency_days) AS x, count(*) - 1 AS last FROM ranked_people
),

recency_edges AS (
    SELECT
        k,
        last,
        x[last * k / 5 + 1] * (5 - last * k % 5) + coalesce(x[last * k / 5 + 2], 0) * (last * k % 5) AS edge
    FROM sorted_recency
    CROSS JOIN quintiles
),

sorted_monetary AS (
    SELECT
        currency,
        array_agg(CAST(monetary AS DECIMAL(19, 0)) ORDER BY monetary) AS x,
        count(*) - 1 AS last
    FROM ranked_people
    GROUP BY currency
),

monetary_edges AS (
    SELECT
        currency,
        x[last * k / 5 + 1] * (5 - last * k % 5) + coalesce(x[last * k / 5 + 2], 0) * (last * k % 5) AS edge
    FROM sorted_monetary
    CROSS JOIN quintiles
),

-- Of the ranks 1..n the k-th edge is 1 + (n - 1) * k / 5.
recency_and_frequency AS (
    SELECT
        person_id,
        5 - count(*) FILTER (WHERE recency_days * 5 > edge) AS r,
        1 + count(*) FILTER (WHERE (frequency_rank - 1) * 5 > last * k) AS f
    FROM ranked_people
    CROSS JOIN recency_edges
    GROUP BY person_id
),

spending_level AS (
    SELECT person_id, 1 + count(*) FILTER (WHERE CAST(monetary AS DECIMAL(19, 0)) * 5 > edge) AS m
    FROM ranked_people
    JOIN monetary_edges ON monetary_edges.currency = ranked_people.currency
    GROUP BY person_id
),

scores AS (
    SELECT ranked_people.*, r, f, m
    FROM ranked_people
    JOIN recency_and_frequency ON recency_and_frequency.person_id = ranked_people.person_id
    JOIN spending_level ON spending_level.person_id = ranked_people.person_id
)

SELECT
    person_id,
    as_of() AS as_of,
    recency_days,
    frequency,
    monetary,
    currency,
    r,
    f,
    m,
    CASE
        WHEN r <= 2 AND f <= 2 THEN 'hibernating'
        WHEN r <= 2 AND f <= 4 THEN 'at_risk'
        WHEN r <= 2 THEN 'cant_loose'
        WHEN r = 3 AND f <= 2 THEN 'about_to_sleep'
        WHEN r = 3 AND f = 3 THEN 'need_attention'
        WHEN r <= 4 AND f >= 4 THEN 'loyal'
        WHEN r = 4 AND f = 1 THEN 'promising'
        WHEN r = 5 AND f = 1 THEN 'new'
        WHEN f <= 3 THEN 'potential_loyalists'
        ELSE 'champions'
    END AS segment
FROM scores
ORDER BY person_id
