-- One row a day of the merchant's zone and step: the people who began a chain on that day, and how many of them got at
-- least to this step.
--
-- A chain begins with a page view on the day, and takes the steps page -> product -> cart -> checkout -> payment
-- attempted -> paid in this order, all within 24 hours of that page view (inclusive). Other events may lie between;
-- steps of one instant count as in order. A person counts once a day, with the longest chain begun on it; who begins
-- chains on two days counts on both. Live rows only, nothing after as_of().
WITH steps AS (
    SELECT person_id, 1 AS step, occurred_at AS at FROM core.page_views WHERE livemode
    UNION ALL
    SELECT person_id, 2 AS step, occurred_at AS at FROM core.product_views WHERE livemode
    UNION ALL
    SELECT person_id, 3 AS step, occurred_at AS at FROM core.cart_events WHERE livemode AND kind = 'added'
    UNION ALL
    SELECT person_id, 4 AS step, occurred_at AS at FROM core.cart_events WHERE livemode AND kind = 'checkout_started'
    UNION ALL
    SELECT person_id, 4 AS step, created_at AS at FROM core.checkouts WHERE livemode
    UNION ALL
    SELECT person_id, 5 AS step, created_at AS at FROM core.payment_attempts WHERE livemode
    UNION ALL
    SELECT person_id, 6 AS step, succeeded_at AS at FROM core.payment_intents WHERE livemode AND succeeded_at IS NOT NULL
),

seen_steps AS (
    SELECT person_id, step, at, local_date(at) AS day
    FROM steps
    WHERE person_id IS NOT NULL AND at <= as_of()
),

-- A chain of this day may end on the next one.
steps_of_chains AS (
    SELECT day, person_id, step, at FROM seen_steps
    UNION ALL
    SELECT CAST(day - INTERVAL '1 day' AS DATE) AS day, person_id, step, at FROM seen_steps WHERE step > 1
),

levels AS (
    SELECT
        day,
        person_id,
        window_funnel(86400, 'default', at, step = 1, step = 2, step = 3, step = 4, step = 5, step = 6) AS level
    FROM steps_of_chains
    GROUP BY day, person_id
    HAVING bool_or(step = 1)
),

reached AS (
    SELECT day, step, step_name, count(*) FILTER (WHERE level >= step) AS people
    FROM levels
    CROSS JOIN (
        VALUES (1, 'page'), (2, 'product'), (3, 'cart'), (4, 'checkout'), (5, 'payment attempted'), (6, 'paid')
    ) AS names (step, step_name)
    GROUP BY day, step, step_name
)

SELECT
    day,
    step,
    step_name,
    people,
    people / CAST(first_value(people) OVER steps_in_order AS DOUBLE) AS conversion_from_start,
    CASE
        WHEN step = 1 THEN 1
        ELSE people / CAST(nullif(lag(people) OVER steps_in_order, 0) AS DOUBLE)
    END AS conversion_from_previous
FROM reached
WINDOW steps_in_order AS (PARTITION BY day ORDER BY step)
ORDER BY day, step
