-- Recording a batch by one statement: each further one would cost a round trip and its planning.

-- What is offered: studies and series as the batch would make them, instances with the event that brought each, and
-- events that are only passed on. `n` counts from 1 in each list; `study` and `series` are the `n` of those; `place`
-- is the event's place in the batch.
CREATE TYPE offered_study AS (
  n int, uid text, attributes jsonb, names jsonb, study_id text, study_date text, study_time text, patient_id text,
  patient_birth_date text, accession_number text, patient_name text, patient_name_ideographic text,
  patient_name_phonetic text, patient_name_words text[]);
CREATE TYPE offered_series AS (
  n int, study int, uid text, provider text, bucket_name text, wado_internal text, wado_external text, number int,
  modality text, sop_class_uids text[], attributes jsonb, names jsonb);
CREATE TYPE offered_instance AS (
  n int, series int, sop_instance_uid text, sop_class_uid text, transfer_syntax_uid text, number int,
  object_name text, bucket_name text, size bigint, digest text, pixel_data_offset bigint, attributes jsonb,
  place int, event_id text, source text, "time" timestamptz, extensions jsonb, repeated_id text, available_id text);
CREATE TYPE offered_event AS (
  place int, type text, event_id text, source text, "time" timestamptz, extensions jsonb);

-- Record instances, and queue what follows from them and the other events. Each instance occurs once, each series
-- with one provider. `contents` are the events' documents by place, compressed; `lock_uids` the studies and series of
-- the transaction. Returns the series that belong to another provider, and to which: then nothing has been written.
--
-- Plans are kept, and use indexes whatever size the tables had when they were made.
CREATE FUNCTION record_batch(
  given_studies jsonb, given_series jsonb, given_instances jsonb, given_others jsonb, contents bytea[],
  lock_uids text[], available_source text, queued_types text[])
RETURNS TABLE (uid text, owner text)
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
  repeats int[] := '{}';
  complete boolean;
  replaced bigint[];
BEGIN
  -- Locks by UID, in one order for all processors, so that none waits in a circle.
  PERFORM pg_advisory_xact_lock(ordered.key)
  FROM (SELECT DISTINCT hashtextextended(one, 0) AS key FROM unnest(lock_uids) AS one ORDER BY key) AS ordered;

  -- The same Series Instance UID in two studies has to have one provider.
  RETURN QUERY
    SELECT DISTINCT se.series_instance_uid::text, se.provider::text
    FROM unnest(the_series) AS one JOIN dicom_series se ON se.series_instance_uid = one.uid
    WHERE se.provider <> one.provider;
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

  -- Leave out what is recorded with the same bytes: a re-send changes nothing.
  SELECT array_agg(i.id ORDER BY one.n),
    array_agg(i.id IS NOT NULL AND coalesce(i.digest, i.objectname) = coalesce(one.digest, one.object_name)
      ORDER BY one.n)
  INTO known_ids, same
  FROM unnest(the_instances) AS one
  LEFT JOIN dicom_instance i ON i.series_id = series_ids[one.series] AND i.sop_instance_uid = one.sop_instance_uid;
  IF true = ANY(same) THEN
    the_instances := ARRAY(SELECT one FROM unnest(the_instances) AS one WHERE NOT same[one.n] ORDER BY one.n);
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
          AND coalesce(r.digest, r.objectname) = coalesce(one.digest, one.object_name)) ORDER BY n)
      INTO repeats
      FROM generate_subscripts(known_ids, 1) AS n LEFT JOIN unnest(the_instances) AS one USING (n);
      INSERT INTO replaced_object (instance_id, provider, bucketname, objectname, digest, replaced_at)
      SELECT i.id, i.provider, i.bucketname, i.objectname, i.digest, clock_timestamp()
      FROM dicom_instance i WHERE i.id = ANY(replaced);
      UPDATE dicom_instance i
      SET sop_class_uid = one.sop_class_uid, transfer_syntax_uid = one.transfer_syntax_uid, number = one.number,
        objectname = one.object_name, bucketname = one.bucket_name, size = one.size, digest = one.digest,
        pixel_data_offset = one.pixel_data_offset, last_modified = clock_timestamp(),
        modified_revision = revisions[(the_series[one.series]).study], attributes = one.attributes
      FROM unnest(the_instances) AS one WHERE i.id = known_ids[one.n];
    END IF;

    INSERT INTO dicom_instance (series_id, sop_instance_uid, sop_class_uid, transfer_syntax_uid, number, objectname,
      bucketname, provider, size, digest, pixel_data_offset, last_modified, initial_revision, attributes)
    SELECT series_ids[one.series], one.sop_instance_uid, one.sop_class_uid, one.transfer_syntax_uid, one.number,
      one.object_name, one.bucket_name, (the_series[one.series]).provider, one.size, one.digest, one.pixel_data_offset,
      clock_timestamp(), revisions[(the_series[one.series]).study], one.attributes
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

-- Count what was added to series, and fill what they lacked; what is set stays. A replaced instance may have taken the
-- last of a SOP class with it.
CREATE FUNCTION fill_series(
  instances offered_instance[], known_ids bigint[], series offered_series[], series_ids bigint[])
RETURNS void LANGUAGE sql AS $$
  UPDATE dicom_series se
  SET number_of_instances = se.number_of_instances + new.added,
    sop_class_uids = CASE WHEN new.replaced
      THEN ARRAY(SELECT DISTINCT i.sop_class_uid FROM dicom_instance i WHERE i.series_id = se.id ORDER BY 1)
      ELSE ARRAY(SELECT DISTINCT uid FROM unnest(se.sop_class_uids || new.sop_class_uids) AS uid ORDER BY uid) END,
    number = coalesce(se.number, (series[new.n]).number), modality = coalesce(se.modality, (series[new.n]).modality),
    attributes = (series[new.n]).attributes || se.attributes, names = (series[new.n]).names || se.names
  FROM (
    SELECT one.series AS n, count(*) FILTER (WHERE known_ids[one.n] IS NULL) AS added,
      bool_or(known_ids[one.n] IS NOT NULL) AS replaced, array_agg(DISTINCT one.sop_class_uid) AS sop_class_uids
    FROM unnest(instances) AS one GROUP BY one.series
  ) AS new
  WHERE se.id = series_ids[new.n]
$$;

-- Fill what studies lacked; what is set stays, and a study that lacks nothing is not written.
CREATE FUNCTION fill_studies(studies offered_study[], study_ids bigint[])
RETURNS void LANGUAGE sql AS $$
  UPDATE dicom_study st
  SET attributes = new.attributes || st.attributes, names = new.names || st.names,
    study_id = coalesce(st.study_id, new.study_id), study_date = coalesce(st.study_date, new.study_date),
    study_time = coalesce(st.study_time, new.study_time), patient_id = coalesce(st.patient_id, new.patient_id),
    patient_birth_date = coalesce(st.patient_birth_date, new.patient_birth_date),
    accession_number = coalesce(st.accession_number, new.accession_number),
    patient_name = CASE WHEN st.names ? '00100010' THEN st.patient_name ELSE new.patient_name END,
    patient_name_ideographic =
      CASE WHEN st.names ? '00100010' THEN st.patient_name_ideographic ELSE new.patient_name_ideographic END,
    patient_name_phonetic =
      CASE WHEN st.names ? '00100010' THEN st.patient_name_phonetic ELSE new.patient_name_phonetic END,
    patient_name_words =
      CASE WHEN st.names ? '00100010' THEN st.patient_name_words ELSE array_to_tsvector(new.patient_name_words) END
  FROM unnest(studies) AS new
  WHERE st.id = study_ids[new.n] AND (new.attributes || st.attributes) <> st.attributes
$$;

-- What each provider has of the studies, from their series.
CREATE FUNCTION summarize_studies(study_ids bigint[])
RETURNS void LANGUAGE sql AS $$
  INSERT INTO dicom_study_provider AS sp
  SELECT se.study_id, se.provider, count(*), sum(se.number_of_instances),
    coalesce(array_agg(DISTINCT se.modality ORDER BY se.modality) FILTER (WHERE se.modality IS NOT NULL), '{}'),
    ARRAY(SELECT DISTINCT uid FROM dicom_series other CROSS JOIN unnest(other.sop_class_uids) AS uid
          WHERE other.study_id = se.study_id AND other.provider = se.provider ORDER BY uid)
  FROM dicom_series se
  WHERE se.study_id = ANY(study_ids)
  GROUP BY se.study_id, se.provider
  ON CONFLICT (study_id, provider) DO UPDATE
  SET number_of_series = EXCLUDED.number_of_series, number_of_instances = EXCLUDED.number_of_instances,
    modalities = EXCLUDED.modalities, sop_class_uids = EXCLUDED.sop_class_uids
$$;
