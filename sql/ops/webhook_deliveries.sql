-- One row a webhook that brought something new: how far it came, and when. Not stored: it follows from the events, from what
-- was set aside, and from the loader's commits. A time that nobody noted is null: of what was loaded before commits were
-- noted, and of a commit that was cut off and made good. `durable_by`: the log had it on disk no later than then.
WITH retried AS (
  SELECT object_id, min(load_offset) AS load_offset
  FROM raw.events
  WHERE source = 'tillstream' AND type = 'quarantine.retried'
  GROUP BY object_id
),
set_aside AS (
  SELECT
    q.source, q.event_id, q.livemode, q.merchant_id, q.received_at, q.log_offset, q.load_offset, q.reason,
    r.object_id IS NOT NULL AS is_mended,
    r.load_offset AS mended_load
  FROM raw.quarantine AS q
  LEFT JOIN retried AS r ON r.object_id = CAST(q.log_offset AS VARCHAR)
  WHERE q.via = 'webhook'
),
deliveries AS (
  SELECT
    e.source, e.event_id, e.type, e.livemode, e.merchant_id, e.received_at, e.log_offset, e.load_offset, s.reason,
    s.is_mended, s.mended_load
  FROM raw.events AS e
  LEFT JOIN set_aside AS s ON s.log_offset = e.log_offset
  WHERE e.via = 'webhook'
  UNION ALL
  SELECT
    s.source, s.event_id, CAST(NULL AS VARCHAR) AS type, s.livemode, s.merchant_id, s.received_at, s.log_offset,
    s.load_offset, s.reason, s.is_mended, s.mended_load
  FROM set_aside AS s
  LEFT ANTI JOIN raw.events AS e ON e.log_offset = s.log_offset
),
loads AS (
  SELECT first_offset, read_at, committed_at FROM ops.loads
),
reached AS (
  SELECT coalesce(max(last_offset), -1) AS last_offset FROM ops.loads
)
SELECT
  d.source,
  d.event_id,
  d.type,
  CASE
    WHEN d.reason IS NOT NULL AND NOT d.is_mended THEN 'failed'
    WHEN d.load_offset IS NULL OR d.log_offset <= reached.last_offset THEN 'loaded'
    ELSE 'durable'
  END AS status,
  d.received_at,
  l.read_at AS durable_by,
  CASE WHEN d.reason IS NULL THEN l.committed_at ELSE mended.committed_at END AS loaded_at,
  CASE WHEN d.reason IS NOT NULL THEN l.committed_at END AS failed_at,
  d.reason,
  d.merchant_id,
  d.livemode,
  d.log_offset
FROM deliveries AS d
CROSS JOIN reached
LEFT JOIN loads AS l ON l.first_offset = d.load_offset
LEFT JOIN loads AS mended ON mended.first_offset = d.mended_load
