-- Every fixed statement of the manifest, each with a name and a sentence. Searches are put together in search.py.

-- name: record_batch
-- Record instances and queue events; returns the series that are another provider's, or the places of instances in
-- objects of a deleted name, when nothing was recorded, else the places of superseded versions.
SELECT uid, owner, place, newer, late FROM record_batch(%(studies)s::jsonb, %(series)s::jsonb, %(instances)s::jsonb, %(others)s::jsonb,
  %(contents)b::bytea[], %(locks)s::text[], %(source)s::text, %(queued)s::text[])

-- name: delete_instances
-- Delete instances of a study that lie in these objects; returns how many there were.
SELECT delete_instances(%(study)s::text, %(provider)s::text, %(instances)s::jsonb)

-- name: waiting_objects
-- Objects of deleted instances that have not been removed yet, and that no other provider's instance lies in.
SELECT objectname, waiting_since FROM deleted_object
WHERE provider = %(provider)s AND waiting_since IS NOT NULL
  AND NOT object_in_use(study_id, series_instance_uid, sop_instance_uid, bucketname, objectname)
ORDER BY id LIMIT %(limit)s

-- name: objects_removed
-- They are removed, unless somebody has written one of them anew.
UPDATE deleted_object d SET waiting_since = NULL
FROM unnest(%(names)s::text[], %(moments)s::timestamptz[]) AS gone (name, moment)
WHERE d.provider = %(provider)s AND d.objectname = gone.name AND d.waiting_since = gone.moment

-- name: queue_event
-- One event to publish.
INSERT INTO outbox (event_id, type, source, time, extensions, compressed, data)
VALUES (%(event_id)s, %(type)s, %(source)s, %(time)s, %(extensions)s::jsonb, true, %(data)b)

-- name: claim_quiet_studies
-- Lock studies that are quiet, that no open association holds, and that no other processor is at. A study that
-- changed since the statement began is looked at again by PostgreSQL, and left out.
SELECT st.id, st.study_instance_uid, st.revision, st.attributes, c.urgent
FROM study_change c
JOIN dicom_study st ON st.id = c.study_id
WHERE c.last_recorded < clock_timestamp() - %(quiet)s::interval
  AND NOT EXISTS (
    SELECT FROM association_study held JOIN association a USING (association_id)
    WHERE held.study_instance_uid = st.study_instance_uid
      AND a.released_at IS NULL AND a.expires_at > clock_timestamp())
ORDER BY c.last_recorded
LIMIT %(limit)s
FOR UPDATE OF st, c SKIP LOCKED

-- name: change_is_urgent
-- The next revision of the studies in which this transaction has recorded one of these instances overtakes others. What
-- was known already does not count: no urgent event of it goes ahead of the revision.
UPDATE study_change c SET urgent = true
WHERE NOT c.urgent AND c.study_id IN (
  SELECT st.id
  FROM unnest(%(studies)s::text[], %(series)s::text[], %(instances)s::text[], %(names)s::text[])
    AS given (study, series, instance, name)
  JOIN dicom_study st ON st.study_instance_uid = given.study
  JOIN dicom_series se ON se.study_id = st.id AND se.series_instance_uid = given.series
  JOIN dicom_instance i ON i.series_id = se.id AND i.sop_instance_uid = given.instance AND i.objectname = given.name
  WHERE i.xmin = pg_current_xact_id()::xid AND i.last_modified >= transaction_timestamp())

-- name: series_of_study
-- The series of a locked study.
SELECT se.id, se.series_instance_uid, se.modality, se.number, se.provider, p.wadoexternalendpoint, se.attributes
FROM dicom_series se JOIN provider p ON p.series_id = se.id
WHERE se.study_id = %(study)s

-- name: instances_of_study
-- The instances of a locked study, with their revision numbers.
SELECT i.series_id, i.sop_instance_uid, i.sop_class_uid, i.number, i.initial_revision, i.modified_revision,
  i.deleted_revision
FROM dicom_series se JOIN dicom_instance i ON i.series_id = se.id
WHERE se.study_id = %(study)s

-- name: deletions_of_study
-- The instances that this revision of a locked study has lost.
SELECT series_instance_uid, provider, sop_instance_uid, initial_revision, deleted_revision
FROM deleted_object
WHERE study_id = %(study)s AND deleted_revision = %(revision)s
ORDER BY id

-- name: close_revision
-- The revision is made: later instances belong to the next one, and the timer is gone.
WITH made AS (
  UPDATE dicom_study SET revision = revision + 1, revision_time = clock_timestamp() WHERE id = %(study)s RETURNING id
)
DELETE FROM study_change c USING made WHERE c.study_id = made.id

-- name: publishers_turn
-- One publisher at a time, so that events leave in order; ends with the transaction, also when its process dies, and
-- some time after its connection fell silent: from PostgreSQL 17 on wherever it did so. The transaction's plans are kept,
-- and use the index whatever size the queue had when they were made.
SELECT set_config('lock_timeout', %(patience)s, true), set_config('plan_cache_mode', 'force_generic_plan', true),
  set_config('enable_seqscan', 'off', true), set_config('idle_in_transaction_session_timeout', %(idle)s, true),
  CASE WHEN current_setting('server_version_num')::int >= 170000
    THEN set_config('transaction_timeout', %(whole)s, true) END,
  pg_advisory_xact_lock(%(lock)s)

-- name: pending_events
-- The oldest events that wait, at most so many events and bytes.
SELECT id, type, source, event_id, compressed, data, time, extensions
FROM (SELECT o.*, sum(length(o.data)) OVER (ORDER BY o.id) - length(o.data) AS before
      FROM (SELECT * FROM outbox ORDER BY id LIMIT %(limit)s) AS o) AS queued
WHERE before < %(bytes)s
ORDER BY id

-- name: forget_published
-- Published events leave the queue and are counted.
WITH gone AS (DELETE FROM outbox WHERE id = ANY(%(ids)b::bigint[]) RETURNING id)
UPDATE outbox_published SET events = events + (SELECT count(*) FROM gone)

-- name: set_aside
-- An event that the log refuses for good is kept with the reason, out of the way of the others.
WITH refused AS (DELETE FROM outbox WHERE id = %(id)s RETURNING *)
INSERT INTO outbox_refused SELECT refused.*, %(reason)s::text FROM refused

-- name: hold
-- An association sends a study; a released association's tombstone leaves this without effect.
WITH alive AS (
  INSERT INTO association AS a (association_id, expires_at)
  VALUES (%(association)s, clock_timestamp() + %(lease)s::interval)
  ON CONFLICT (association_id) DO UPDATE SET expires_at = greatest(a.expires_at, EXCLUDED.expires_at)
  WHERE a.released_at IS NULL
  RETURNING association_id
)
INSERT INTO association_study (association_id, study_instance_uid)
SELECT association_id, %(study)s FROM alive
ON CONFLICT DO NOTHING

-- name: renew
-- The association is still open.
UPDATE association SET expires_at = greatest(expires_at, clock_timestamp() + %(lease)s::interval)
WHERE association_id = %(association)s AND released_at IS NULL

-- name: release
-- The association has ended: leave a tombstone and let its studies go.
WITH ended AS (
  INSERT INTO association (association_id, expires_at, released_at)
  VALUES (%(association)s, clock_timestamp(), clock_timestamp())
  ON CONFLICT (association_id) DO UPDATE SET released_at = EXCLUDED.released_at, expires_at = EXCLUDED.expires_at
  RETURNING association_id
)
DELETE FROM association_study s USING ended WHERE s.association_id = ended.association_id

-- name: forget_associations
-- Tombstones and lapsed leases of yesterday.
DELETE FROM association WHERE expires_at < clock_timestamp() - interval '1 day'

-- name: counts
-- Totals, from the counts that are kept for each study.
SELECT count(DISTINCT study_id), coalesce(sum(number_of_series), 0), coalesce(sum(number_of_instances), 0),
  (SELECT events FROM outbox_published)
FROM dicom_study_provider

-- name: locate
-- Where the instances of a study, series or instance lie, within one provider or all.
SELECT st.study_instance_uid, se.series_instance_uid, i.sop_instance_uid, i.sop_class_uid, i.transfer_syntax_uid,
  i.provider, i.objectname, i.bucketname, i.size, i.digest, i.pixel_data_offset, i.last_modified, i.missing_since
FROM dicom_study st
JOIN dicom_series se ON se.study_id = st.id
JOIN dicom_instance i ON i.series_id = se.id
WHERE st.study_instance_uid = %(study)s
  AND (%(series)s::text IS NULL OR se.series_instance_uid = %(series)s)
  AND (%(instance)s::text IS NULL OR i.sop_instance_uid = %(instance)s)
  AND (%(provider)s::text IS NULL OR se.provider = %(provider)s)
ORDER BY se.number, se.id, i.number, i.id

-- name: load_headers
-- The kept headers of a study's instances as they are now; those of replaced objects are left out.
SELECT i.objectname, h.header
FROM dicom_study st
JOIN dicom_series se ON se.study_id = st.id
JOIN dicom_instance i ON i.series_id = se.id
JOIN instance_header h ON h.instance_id = i.id AND h.objectname = i.objectname
WHERE st.study_instance_uid = %(study)s AND se.provider = %(provider)s

-- name: save_headers
-- Keep headers of a study's instances; what has been replaced or deleted meanwhile is not kept.
WITH there AS (
  SELECT i.id, i.objectname, given.header
  FROM unnest(%(names)s::text[], %(headers)b::bytea[]) AS given (objectname, header)
  JOIN dicom_study st ON st.study_instance_uid = %(study)s
  JOIN dicom_series se ON se.study_id = st.id AND se.provider = %(provider)s
  JOIN dicom_instance i ON i.series_id = se.id AND i.objectname = given.objectname
  ORDER BY i.id
  FOR KEY SHARE OF i
)
INSERT INTO instance_header (instance_id, objectname, header)
SELECT DISTINCT ON (id) id, objectname, header FROM there ORDER BY id
ON CONFLICT (instance_id) DO UPDATE SET objectname = EXCLUDED.objectname, header = EXCLUDED.header

-- name: audit_total
-- How many instances a provider has.
SELECT coalesce(sum(number_of_instances), 0)::bigint FROM dicom_study_provider WHERE provider = %(provider)s

-- name: audit_entries
-- Everything that is known of object names: of the provider, and of others in its bucket. What others have deleted
-- comes without an id.
SELECT name, role, instance_id, size, digest FROM (
  SELECT objectname AS name, CASE WHEN provider <> %(provider)s THEN 'other'
      WHEN missing_since IS NOT NULL THEN 'marked' ELSE 'instance' END AS role, id AS instance_id, size, digest
  FROM dicom_instance WHERE provider = %(provider)s OR bucketname IS NOT DISTINCT FROM %(bucket)s
  UNION ALL
  SELECT objectname, CASE WHEN provider <> %(provider)s THEN 'other' ELSE 'replaced' END, instance_id, NULL, NULL
  FROM replaced_object WHERE provider = %(provider)s OR bucketname IS NOT DISTINCT FROM %(bucket)s
  UNION ALL
  SELECT objectname, CASE WHEN provider <> %(provider)s THEN 'other' WHEN waiting_since IS NULL THEN 'deleted'
      ELSE 'waiting' END, NULL, NULL, NULL
  FROM deleted_object WHERE provider = %(provider)s OR bucketname IS NOT DISTINCT FROM %(bucket)s
) AS known
WHERE (%(after)s::text IS NULL OR name COLLATE "C" > %(after)s)
  AND (%(names)s::text[] IS NULL OR name = ANY(%(names)s::text[]))
ORDER BY name COLLATE "C"

-- name: audit_instances
-- Instances that still lie in these objects, and are still marked as missing if they were.
SELECT i.id, st.study_instance_uid, se.series_instance_uid, i.sop_instance_uid
FROM unnest(%(ids)s::bigint[], %(names)s::text[], %(marked)s::boolean[]) AS given (id, name, marked)
JOIN dicom_instance i ON i.id = given.id AND i.objectname = given.name
  AND (i.missing_since IS NOT NULL OR NOT given.marked)
JOIN dicom_series se ON se.id = i.series_id
JOIN dicom_study st ON st.id = se.study_id

-- name: audit_versions
-- What is recorded of these instances.
SELECT given.study, given.series, given.sop, i.id, i.objectname, i.digest, i.accepted_at
FROM unnest(%(studies)s::text[], %(series)s::text[], %(instances)s::text[]) AS given (study, series, sop)
JOIN dicom_study st ON st.study_instance_uid = given.study
JOIN dicom_series se ON se.study_id = st.id AND se.series_instance_uid = given.series AND se.provider = %(provider)s
JOIN dicom_instance i ON i.series_id = se.id AND i.sop_instance_uid = given.sop

-- name: mark_missing
-- These instances' objects are not there; what has another object by now is left.
UPDATE dicom_instance i SET missing_since = clock_timestamp()
FROM unnest(%(ids)s::bigint[], %(names)s::text[]) AS given (id, name)
WHERE i.id = given.id AND i.objectname = given.name AND i.missing_since IS NULL

-- name: unmark_missing
-- Their objects are there.
UPDATE dicom_instance SET missing_since = NULL WHERE id = ANY(%(ids)s) AND missing_since IS NOT NULL

-- name: leave_behind
-- An object that holds a version of the instance which is not to be recorded.
INSERT INTO replaced_object (instance_id, provider, bucketname, objectname, digest, replaced_at, refused)
SELECT i.id, i.provider, i.bucketname, %(name)s::text, %(digest)s::text, clock_timestamp(), true
FROM dicom_instance i
WHERE i.id = %(id)s
  AND NOT EXISTS (SELECT FROM replaced_object r WHERE r.instance_id = i.id AND r.objectname = %(name)s::text)

-- name: audit_deletions
-- When these instances were deleted last.
SELECT given.study, given.series, given.sop, max(d.deleted_at)
FROM unnest(%(studies)s::text[], %(series)s::text[], %(instances)s::text[]) AS given (study, series, sop)
JOIN dicom_study st ON st.study_instance_uid = given.study
JOIN deleted_object d ON d.study_id = st.id AND d.series_instance_uid = given.series
  AND d.sop_instance_uid = given.sop AND d.provider = %(provider)s
GROUP BY 1, 2, 3

-- name: audit_successor
-- The object in which the deleted instance of this one lies by now, and its digest.
SELECT i.objectname, i.digest
FROM deleted_object d
JOIN dicom_series se ON se.study_id = d.study_id AND se.series_instance_uid = d.series_instance_uid
  AND se.provider = d.provider
JOIN dicom_instance i ON i.series_id = se.id AND i.sop_instance_uid = d.sop_instance_uid
WHERE d.provider = %(provider)s AND d.objectname = %(name)s

-- name: await_removal
-- Objects of deleted instances that are there again.
UPDATE deleted_object SET waiting_since = clock_timestamp()
WHERE provider = %(provider)s AND objectname = ANY(%(names)s) AND waiting_since IS NULL
  AND NOT object_in_use(study_id, series_instance_uid, sop_instance_uid, bucketname, objectname)

-- name: begin_rebuild
-- A provider's rebuild, unless it has instances already that no unfinished rebuild has recorded.
INSERT INTO unfinished_rebuild (provider, begun_at)
SELECT %(provider)s::text, clock_timestamp()
WHERE %(go_on)s OR NOT EXISTS (
  SELECT FROM dicom_study_provider WHERE provider = %(provider)s AND number_of_instances > 0)
ON CONFLICT (provider) DO NOTHING

-- name: rebuild_begun
-- When the provider's rebuild began.
SELECT begun_at FROM unfinished_rebuild WHERE provider = %(provider)s

-- name: end_rebuild
-- It is done.
DELETE FROM unfinished_rebuild WHERE provider = %(provider)s

-- name: rebuild_conflicts
-- Objects that a rebuild passes over, by their place: of instances that were deleted later, and other versions of what
-- was recorded before the rebuild began, or recorded and replaced.
SELECT given.place, deleted.found, i.id
FROM unnest(%(places)s::int[], %(studies)s::text[], %(series)s::text[], %(instances)s::text[], %(providers)s::text[],
  %(names)s::text[], %(identities)s::text[], %(moments)s::timestamptz[])
  AS given (place, study, series, sop, provider, name, identity, moment)
CROSS JOIN LATERAL (
  SELECT EXISTS (SELECT FROM deleted_object d WHERE d.objectname = given.name AND d.provider = given.provider)
    OR EXISTS (
      SELECT FROM dicom_study st JOIN deleted_object d ON d.study_id = st.id
      WHERE st.study_instance_uid = given.study AND d.series_instance_uid = given.series
        AND d.sop_instance_uid = given.sop AND d.provider = given.provider AND d.deleted_at > given.moment)
) AS deleted (found)
LEFT JOIN (
  dicom_study st JOIN dicom_series se ON se.study_id = st.id JOIN dicom_instance i ON i.series_id = se.id
) ON st.study_instance_uid = given.study AND se.series_instance_uid = given.series AND se.provider = given.provider
  AND i.sop_instance_uid = given.sop
WHERE deleted.found
  OR coalesce(i.digest, i.objectname) <> given.identity AND (i.last_modified < %(begun)s
    OR EXISTS (SELECT FROM replaced_object r WHERE r.instance_id = i.id AND r.objectname = given.name))

-- name: lock_uids
-- The locks of record_batch, in its order.
SELECT pg_advisory_xact_lock(ordered.key)
FROM (SELECT DISTINCT hashtextextended(one, 0) AS key FROM unnest(%(uids)s::text[]) AS one ORDER BY key) AS ordered

-- name: begin_studies
-- Studies that are not there yet begin with this revision.
INSERT INTO dicom_study (study_instance_uid, revision)
SELECT one, %(revision)s FROM unnest(%(uids)s::text[]) AS one
ON CONFLICT (study_instance_uid) DO NOTHING

-- name: changed_studies
-- Which of these studies wait for their next revision already.
SELECT c.study_id FROM study_change c JOIN dicom_study st ON st.id = c.study_id
WHERE st.study_instance_uid = ANY(%(uids)s)

-- name: forget_changes
-- No revision follows from what was recorded just now.
DELETE FROM study_change c USING dicom_study st
WHERE st.id = c.study_id AND st.study_instance_uid = ANY(%(uids)s) AND c.study_id <> ALL(%(others)s::bigint[])

-- name: delete_earlier
-- Names of objects that had been deleted before the moments. What is there under them stays, until an audit is told to
-- have it removed: nobody has read yet what took its place.
INSERT INTO deleted_object (study_id, series_instance_uid, sop_instance_uid, provider, bucketname, objectname,
  initial_revision, deleted_at, waiting_since)
SELECT st.id, given.series, given.sop, given.provider, given.bucket, given.name, st.revision, given.moment, NULL
FROM unnest(%(studies)s::text[], %(series)s::text[], %(instances)s::text[], %(providers)s::text[], %(buckets)s::text[],
  %(names)s::text[], %(moments)s::timestamptz[]) AS given (study, series, sop, provider, bucket, name, moment)
JOIN dicom_study st ON st.study_instance_uid = given.study
WHERE NOT object_in_use(st.id, given.series, given.sop, given.bucket, given.name)
ON CONFLICT DO NOTHING

-- name: first_revision_studies
-- Some studies whose first revision has not ended.
SELECT st.study_instance_uid FROM dicom_study st
WHERE st.revision = %(revision)s AND st.study_instance_uid > %(after)s
  AND NOT EXISTS (SELECT FROM study_change c WHERE c.study_id = st.id)
ORDER BY st.study_instance_uid LIMIT %(limit)s

-- name: lock_studies
-- Nobody records or revises these studies meanwhile; a statement after this one sees what was recorded before.
SELECT id FROM dicom_study WHERE study_instance_uid = ANY(%(uids)s) ORDER BY id FOR UPDATE

-- name: end_first_revision
-- What studies hold counts as announced by this revision.
UPDATE dicom_study st SET revision = revision + 1, revision_time = clock_timestamp()
WHERE st.study_instance_uid = ANY(%(uids)s) AND st.revision = %(revision)s
  AND NOT EXISTS (SELECT FROM study_change c WHERE c.study_id = st.id)
