-- Instances whose objects are missing, and objects of versions that were refused, for `imaging audit`.

-- The object was not in the storage space when it was last looked for; NULL: nothing is known to be wrong. Storing the
-- instance again takes the mark away.
ALTER TABLE dicom_instance ADD COLUMN missing_since timestamptz;

-- No version was replaced: a later one was there already, or the same bytes lie under another name as well.
ALTER TABLE replaced_object ADD COLUMN refused boolean NOT NULL DEFAULT false;

-- Providers whose manifest is being made anew. What was recorded before counts as what services recorded.
CREATE TABLE unfinished_rebuild (
  provider varchar(1024) COLLATE "C" PRIMARY KEY,
  begun_at timestamptz NOT NULL
);

-- Whether the instance lies in the object, or has left it behind: another provider's may, whose object has the same
-- bytes, and so the same name. NULL is the bucket of a folder.
CREATE FUNCTION object_in_use(the_study bigint, the_series text, the_instance text, the_bucket text, the_name text)
RETURNS boolean
LANGUAGE sql STABLE
AS $$
SELECT EXISTS (
  SELECT FROM dicom_series se JOIN dicom_instance i ON i.series_id = se.id
  WHERE se.study_id = the_study AND se.series_instance_uid = the_series AND i.sop_instance_uid = the_instance
    AND (i.objectname = the_name AND i.bucketname IS NOT DISTINCT FROM the_bucket
      OR EXISTS (SELECT FROM replaced_object r WHERE r.instance_id = i.id AND r.objectname = the_name
          AND r.bucketname IS NOT DISTINCT FROM the_bucket)))
$$;

DROP FUNCTION record_batch(jsonb, jsonb, jsonb, jsonb, bytea[], text[], text, text[]);

-- Record instances, and queue what follows from them and the other events. Each instance occurs once, each series
-- with one provider. `contents` are the events' documents by place, compressed; `lock_uids` the studies and series of
-- the transaction. Returns the series that belong to another provider, and to which: then nothing has been written.
-- The same goes for the places of instances in objects of a deleted name: `late` ones were accepted before the deleted
-- version was, so that they are what has been deleted, delivered once more. Otherwise returns the places of instances
-- that were left out, since a version accepted later is recorded, and when that was accepted.
--
-- Plans are kept, and use indexes whatever size the tables had when they were made.
CREATE FUNCTION record_batch(
  given_studies jsonb, given_series jsonb, given_instances jsonb, given_others jsonb, contents bytea[],
  lock_uids text[], available_source text, queued_types text[])
RETURNS TABLE (uid text, owner text, place int, newer timestamptz, late boolean)
LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
AS $$
#variable_conflict use_column
DECLARE
  the_studies offered_study[] :=
    ARRAY(SELECT one FROM jsonb_populate_recordset(NULL::offered_study, given_studies) one);
  the_series offered_series[] :=
    ARRAY(SELECT one FROM jsonb_populate_recordset(NULL::offered_series, given_series) one);
  the_instances offered_instance[] :=
    ARRAY(SELECT one FROM jsonb_populate_recordset(NULL::offered_instance, given_instances) one);
  the_others offered_event[] := ARRAY(SELECT one FROM jsonb_populate_recordset(NULL::offered_event, given_others) one);
  -- These are by `n`.
  study_ids bigint[];
  revisions int[];
  series_ids bigint[];
  new_series int[];
  endpoints text[];
  known_ids bigint[];
  same boolean[];
  older boolean[];
  repeats int[] := '{}';
  complete boolean;
  replaced bigint[];
BEGIN
  -- Locks by UID, in one order for all processors, so that none waits in a circle.
  PERFORM pg_advisory_xact_lock(ordered.key)
  FROM (SELECT DISTINCT hashtextextended(one, 0) AS key FROM unnest(lock_uids) AS one ORDER BY key) AS ordered;

  -- The same Series Instance UID in two studies has to have one provider.
  RETURN QUERY
    SELECT DISTINCT se.series_instance_uid::text, se.provider::text, NULL::int, NULL::timestamptz, NULL::boolean
    FROM unnest(the_series) AS one JOIN dicom_series se ON se.series_instance_uid = one.uid
    WHERE se.provider <> one.provider;
  IF FOUND THEN
    RETURN;
  END IF;

  -- A name of a deleted object is never used again. Its producer has just written it, so it waits to be removed again.
  RETURN QUERY
    UPDATE deleted_object d SET waiting_since = clock_timestamp()
    FROM unnest(the_instances) AS one
    WHERE d.objectname = one.object_name AND d.provider = (the_series[one.series]).provider
    RETURNING NULL::text, NULL::text, one.place, NULL::timestamptz, coalesce(one.accepted_at <= d.accepted_at, false);
  IF FOUND THEN
    RETURN;
  END IF;

  -- Known series; `complete` says that all are known and that they and their studies lack nothing of what is offered.
  SELECT array_agg(se.id ORDER BY one.n), array_agg(p.wadointernalendpoint::text ORDER BY one.n),
    coalesce(bool_and(se.id IS NOT NULL AND se.sop_class_uids::text[] @> one.sop_class_uids
      AND one.attributes || se.attributes = se.attributes
      AND (the_studies[one.study]).attributes || st.attributes = st.attributes), true)
  INTO series_ids, endpoints, complete
  FROM unnest(the_series) AS one
  LEFT JOIN (dicom_study st JOIN dicom_series se ON se.study_id = st.id JOIN provider p ON p.series_id = se.id)
    ON st.study_instance_uid = (the_studies[one.study]).uid AND se.series_instance_uid = one.uid;

  -- Leave out what is recorded with the same bytes (a re-send changes nothing), and what was accepted before the
  -- version that is recorded.
  SELECT array_agg(i.id ORDER BY one.n),
    array_agg(i.id IS NOT NULL AND coalesce(i.digest, i.objectname) = coalesce(one.digest, one.object_name)
      ORDER BY one.n),
    array_agg(i.id IS NOT NULL AND coalesce(i.digest, i.objectname) <> coalesce(one.digest, one.object_name)
      AND coalesce(one.accepted_at < i.accepted_at, false) ORDER BY one.n)
  INTO known_ids, same, older
  FROM unnest(the_instances) AS one
  LEFT JOIN dicom_instance i ON i.series_id = series_ids[one.series] AND i.sop_instance_uid = one.sop_instance_uid;
  IF true = ANY(same) THEN
    -- The versions in between that are still on their way are older than this re-send.
    -- Its producer has just written its object: what was missing is there again, by the name that it has now. The
    -- name that it had is kept, for when its object turns up.
    INSERT INTO replaced_object (instance_id, provider, bucketname, objectname, digest, replaced_at, accepted_at, refused)
    SELECT i.id, i.provider, i.bucketname, i.objectname, i.digest, clock_timestamp(), i.accepted_at, true
    FROM unnest(the_instances) AS one JOIN dicom_instance i ON i.id = known_ids[one.n]
    WHERE same[one.n] AND i.missing_since IS NOT NULL
      AND (i.objectname, i.bucketname) IS DISTINCT FROM (one.object_name, one.bucket_name)
      AND NOT EXISTS (SELECT FROM replaced_object r WHERE r.instance_id = i.id AND r.objectname = i.objectname
        AND r.bucketname IS NOT DISTINCT FROM i.bucketname);
    UPDATE dicom_instance i
    SET accepted_at = CASE WHEN one.accepted_at > i.accepted_at THEN one.accepted_at ELSE i.accepted_at END,
      objectname = CASE WHEN i.missing_since IS NULL THEN i.objectname ELSE one.object_name END,
      bucketname = CASE WHEN i.missing_since IS NULL THEN i.bucketname ELSE one.bucket_name END, missing_since = NULL
    FROM unnest(the_instances) AS one
    WHERE same[one.n] AND i.id = known_ids[one.n]
      AND (one.accepted_at > i.accepted_at OR i.missing_since IS NOT NULL);
    -- Stored again after a deletion that is still on its way: it lies in the later object, which that spares. As in
    -- domain/manifest/deletion.py.
    UPDATE dicom_instance i SET objectname = one.object_name
    FROM unnest(the_instances) AS one
    WHERE same[one.n] AND i.id = known_ids[one.n] AND one.object_name <> i.objectname
      AND one.object_name ~ '^[0-9a-f]{64}-[1-9][0-9]{0,3}\.dcm$'
      AND i.objectname ~ '^[0-9a-f]{64}(-[1-9][0-9]{0,3})?\.dcm$'
      AND left(one.object_name, 64) = left(i.objectname, 64)
      AND (length(one.object_name), one.object_name) > (length(i.objectname), i.objectname::text);
  END IF;
  IF true = ANY(older) THEN
    -- An older version that was recorded in its time, and comes again, is no news.
    RETURN QUERY
      SELECT NULL::text, NULL::text, one.place, i.accepted_at, NULL::boolean
      FROM unnest(the_instances) AS one JOIN dicom_instance i ON i.id = known_ids[one.n]
      WHERE older[one.n] AND NOT EXISTS (
        SELECT FROM replaced_object r
        WHERE r.instance_id = i.id AND coalesce(r.digest, r.objectname) = coalesce(one.digest, one.object_name)
          AND r.accepted_at >= one.accepted_at AND NOT r.refused);
  END IF;
  IF true = ANY(older) THEN
    -- Its object is there all the same, and is known as one that this instance has left behind.
    INSERT INTO replaced_object (instance_id, provider, bucketname, objectname, digest, replaced_at, accepted_at, refused)
    SELECT i.id, i.provider, one.bucket_name, one.object_name, one.digest, clock_timestamp(), one.accepted_at, true
    FROM unnest(the_instances) AS one JOIN dicom_instance i ON i.id = known_ids[one.n]
    WHERE older[one.n] AND one.object_name <> i.objectname AND NOT EXISTS (
      SELECT FROM replaced_object r WHERE r.instance_id = i.id AND r.objectname = one.object_name);
  END IF;
  IF true = ANY(same || older) THEN
    the_instances :=
      ARRAY(SELECT one FROM unnest(the_instances) AS one WHERE NOT (same[one.n] OR older[one.n]) ORDER BY one.n);
  END IF;

  IF the_instances <> '{}' THEN
    IF array_position(series_ids, NULL) IS NOT NULL THEN
      INSERT INTO dicom_study (study_instance_uid)
      SELECT one.uid FROM unnest(the_studies) AS one
      WHERE NOT EXISTS (SELECT FROM dicom_study st WHERE st.study_instance_uid = one.uid);
    END IF;

    -- Whoever makes a revision has this lock: an instance belongs to the revision that comes after it.
    SELECT array_agg(locked.id ORDER BY locked.n), array_agg(locked.revision ORDER BY locked.n)
    INTO study_ids, revisions
    FROM (SELECT st.id, st.revision, one.n
          FROM unnest(the_studies) AS one JOIN dicom_study st ON st.study_instance_uid = one.uid
          FOR NO KEY UPDATE OF st) AS locked;

    IF array_position(series_ids, NULL) IS NOT NULL THEN
      -- What was known of a study whose instances were all deleted is no more.
      UPDATE dicom_study st
      SET attributes = '{}', names = '{}', study_id = NULL, study_date = NULL, study_time = NULL, patient_id = NULL,
        patient_birth_date = NULL, accession_number = NULL, patient_name = NULL, patient_name_ideographic = NULL,
        patient_name_phonetic = NULL, patient_name_words = NULL
      WHERE st.id = ANY(study_ids) AND st.attributes <> '{}'
        AND NOT EXISTS (SELECT FROM dicom_series se WHERE se.study_id = st.id);
      SELECT array_agg(coalesce(series_ids[one.n], nextval('hibernate_sequence')) ORDER BY one.n),
        array_agg(one.n) FILTER (WHERE series_ids[one.n] IS NULL),
        array_agg(CASE WHEN series_ids[one.n] IS NULL THEN one.wado_internal ELSE endpoints[one.n] END ORDER BY one.n)
      INTO series_ids, new_series, endpoints
      FROM (SELECT * FROM unnest(the_series) ORDER BY n) AS one;
      INSERT INTO dicom_series (id, study_id, series_instance_uid, provider)
      SELECT series_ids[n], study_ids[(the_series[n]).study], (the_series[n]).uid, (the_series[n]).provider
      FROM unnest(new_series) AS n;
      INSERT INTO provider (series_id, name, bucketname, wadointernalendpoint, wadoexternalendpoint)
      SELECT series_ids[n], (the_series[n]).provider, (the_series[n]).bucket_name, (the_series[n]).wado_internal,
        (the_series[n]).wado_external
      FROM unnest(new_series) AS n;
    END IF;

    -- Other bytes of a known instance: remember the object that it leaves behind, and how often the offered bytes
    -- were left behind before; it is a modification of the study's next revision.
    replaced := ARRAY(SELECT known_ids[one.n] FROM unnest(the_instances) AS one WHERE known_ids[one.n] IS NOT NULL);
    IF replaced <> '{}' THEN
      complete := false;
      SELECT array_agg((SELECT count(*)::int FROM replaced_object r WHERE r.instance_id = known_ids[n]
          AND coalesce(r.digest, r.objectname) = coalesce(one.digest, one.object_name) AND NOT r.refused) ORDER BY n)
      INTO repeats
      FROM generate_subscripts(known_ids, 1) AS n LEFT JOIN unnest(the_instances) AS one USING (n);
      INSERT INTO replaced_object (instance_id, provider, bucketname, objectname, digest, replaced_at, accepted_at)
      SELECT i.id, i.provider, i.bucketname, i.objectname, i.digest, clock_timestamp(), i.accepted_at
      FROM dicom_instance i WHERE i.id = ANY(replaced);
      UPDATE dicom_instance i
      SET sop_class_uid = one.sop_class_uid, transfer_syntax_uid = one.transfer_syntax_uid, number = one.number,
        objectname = one.object_name, bucketname = one.bucket_name, size = one.size, digest = one.digest,
        pixel_data_offset = one.pixel_data_offset, last_modified = clock_timestamp(),
        accepted_at = coalesce(one.accepted_at, clock_timestamp()),
        modified_revision = revisions[(the_series[one.series]).study], attributes = one.attributes,
        missing_since = NULL
      FROM unnest(the_instances) AS one WHERE i.id = known_ids[one.n];
    END IF;

    INSERT INTO dicom_instance (series_id, sop_instance_uid, sop_class_uid, transfer_syntax_uid, number, objectname,
      bucketname, provider, size, digest, pixel_data_offset, last_modified, accepted_at, initial_revision, attributes)
    SELECT series_ids[one.series], one.sop_instance_uid, one.sop_class_uid, one.transfer_syntax_uid, one.number,
      one.object_name, one.bucket_name, (the_series[one.series]).provider, one.size, one.digest, one.pixel_data_offset,
      clock_timestamp(), coalesce(one.accepted_at, clock_timestamp()), revisions[(the_series[one.series]).study],
      one.attributes
    FROM unnest(the_instances) AS one WHERE known_ids[one.n] IS NULL;

    IF complete THEN
      UPDATE dicom_series se SET number_of_instances = se.number_of_instances + added.instances
      FROM (SELECT one.series, count(*) AS instances FROM unnest(the_instances) AS one GROUP BY one.series) AS added
      WHERE se.id = series_ids[added.series];
      UPDATE dicom_study_provider sp SET number_of_instances = sp.number_of_instances + added.instances
      FROM (SELECT (the_series[one.series]).study, (the_series[one.series]).provider, count(*) AS instances
            FROM unnest(the_instances) AS one GROUP BY 1, 2) AS added
      WHERE sp.study_id = study_ids[added.study] AND sp.provider = added.provider;
    ELSE
      PERFORM fill_series(the_instances, known_ids, the_series, series_ids);
      PERFORM fill_studies(the_studies, study_ids);
      PERFORM summarize_studies(study_ids);
    END IF;

    -- The quiet time starts again.
    INSERT INTO study_change (study_id, last_recorded)
    SELECT changed.id, clock_timestamp()
    FROM (SELECT DISTINCT study_ids[(the_series[one.series]).study] AS id FROM unnest(the_instances) AS one) AS changed
    ON CONFLICT (study_id) DO UPDATE SET last_recorded = EXCLUDED.last_recorded;
  END IF;

  INSERT INTO outbox (event_id, type, source, time, extensions, compressed, data)
  SELECT queued.event_id, queued.type, queued.source, queued.time, queued.extensions, queued.compressed, queued.data
  FROM (
    SELECT one.place, 1 AS turn,
      coalesce(one.repeated_id || '-' || nullif(repeats[one.n], 0), one.event_id) AS event_id,
      'ImageStoredEvent' AS type, one.source, one.time, one.extensions, true AS compressed, contents[one.place] AS data
    FROM unnest(the_instances) AS one
    UNION ALL
    SELECT one.place, 2, one.available_id || coalesce('-' || nullif(repeats[one.n], 0), ''), 'DicomAvailableEvent',
      available_source, clock_timestamp(), one.extensions, false,
      convert_to(format('{"provider":%s,"endpoint":%s}', to_json((the_series[one.series]).provider), to_json(concat(
        rtrim(endpoints[one.series], '/'), '/studies/', (the_studies[(the_series[one.series]).study]).uid, '/series/',
        (the_series[one.series]).uid, '/instances/', one.sop_instance_uid))), 'UTF8')
    FROM unnest(the_instances) AS one
    UNION ALL
    SELECT one.place, 1, one.event_id, one.type, one.source, one.time, one.extensions, true, contents[one.place]
    FROM unnest(the_others) AS one
  ) AS queued
  WHERE queued.type = ANY(queued_types)
  ORDER BY queued.place, queued.turn;
END
$$;
