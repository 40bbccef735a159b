-- The manifest: studies, series, instances and where their objects lie.
-- Tables and columns of the reference system keep their names; ids come from one sequence, as it had them.

CREATE SEQUENCE hibernate_sequence;

-- Canonical forms for matching (PS3.5 section 6.2), as in domain/manifest/values.py; NULL for what is no such value.
CREATE FUNCTION dicom_date(value text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT CASE WHEN value ~ '^[0-9]{8}$' THEN value
              WHEN value ~ '^[0-9]{4}\.[0-9]{2}\.[0-9]{2}$' THEN replace(value, '.', '') END
$$;
CREATE FUNCTION dicom_time(value text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT CASE WHEN digits !~ '^[0-9]{2}([0-9]{2}([0-9]{2}(\.[0-9]{1,6})?)?)?$' THEN NULL
              WHEN length(digits) <= 6 THEN rpad(digits, 6, '0') || '.000000'
              ELSE rpad(digits, 13, '0') END
  FROM (SELECT replace(value, ':', '')) AS plain (digits)
$$;
CREATE FUNCTION dicom_date_time(value text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT CASE WHEN value !~ '^[0-9]{4}([0-9]{2}){0,5}(\.[0-9]{1,6})?([+-](0[0-9]|1[0-4])[0-5][0-9])?$' THEN NULL
              WHEN moment LIKE '%.%' THEN CASE WHEN strpos(moment, '.') = 15 THEN rpad(moment, 21, '0') END
              ELSE moment || substr('00000101000000', length(moment) + 1) || '.000000' END
  FROM (SELECT regexp_replace(value, '[+-][0-9]{4}$', '')) AS plain (moment)
$$;

-- A study. `revision` is the number of the next revision; `revision_time` when the last one was made.
-- `attributes` holds the recorded attributes of patient and study, {"<tag>": ["<value>", ...]}; `names` the person
-- names among them as they are compared, {"<tag>": {"k": ["<group>", ...], "w": ["<word>", ...]}}. The columns beside
-- them are the searched ones; dates are NULL when the header holds no valid one.
CREATE TABLE dicom_study (
  id bigint PRIMARY KEY DEFAULT nextval('hibernate_sequence'),
  study_instance_uid varchar(255) COLLATE "C" NOT NULL UNIQUE,
  study_id varchar(255) COLLATE "C",
  study_date varchar(255) COLLATE "C",
  study_time varchar(255) COLLATE "C",
  revision int NOT NULL DEFAULT 0,
  revision_time timestamptz,
  patient_id varchar(255) COLLATE "C",
  patient_name varchar(255) COLLATE "C",
  patient_name_ideographic varchar(255) COLLATE "C",
  patient_name_phonetic varchar(255) COLLATE "C",
  patient_name_words tsvector,
  patient_birth_date varchar(255) COLLATE "C",
  accession_number varchar(255) COLLATE "C",
  attributes jsonb NOT NULL DEFAULT '{}',
  names jsonb NOT NULL DEFAULT '{}'
);
CREATE INDEX dicom_study_study_id ON dicom_study (study_id);
CREATE INDEX dicom_study_study_date ON dicom_study (study_date);
CREATE INDEX dicom_study_patient_id ON dicom_study (patient_id, id);
CREATE INDEX dicom_study_patient_name ON dicom_study (patient_name);
CREATE INDEX dicom_study_patient_name_ideographic ON dicom_study (patient_name_ideographic)
  WHERE patient_name_ideographic IS NOT NULL;
CREATE INDEX dicom_study_patient_name_phonetic ON dicom_study (patient_name_phonetic)
  WHERE patient_name_phonetic IS NOT NULL;
CREATE INDEX dicom_study_patient_name_words ON dicom_study USING gin (patient_name_words);
CREATE INDEX dicom_study_patient_birth_date ON dicom_study (patient_birth_date);
CREATE INDEX dicom_study_accession_number ON dicom_study (accession_number);
CREATE INDEX dicom_study_attributes_values ON dicom_study USING gin (attributes jsonb_path_ops);

-- A series belongs to one study and one provider. The same Series Instance UID in two studies is two series (of the
-- same provider); `number_of_instances` and `sop_class_uids` are kept up to date with the instances.
CREATE TABLE dicom_series (
  id bigint PRIMARY KEY DEFAULT nextval('hibernate_sequence'),
  study_id bigint NOT NULL REFERENCES dicom_study (id),
  series_instance_uid varchar(255) COLLATE "C" NOT NULL,
  number int,
  modality varchar(255) COLLATE "C",
  provider varchar(1024) COLLATE "C" NOT NULL,
  number_of_instances int NOT NULL DEFAULT 0,
  sop_class_uids text[] COLLATE "C" NOT NULL DEFAULT '{}',
  attributes jsonb NOT NULL DEFAULT '{}',
  names jsonb NOT NULL DEFAULT '{}',
  UNIQUE (study_id, series_instance_uid)
) WITH (fillfactor = 75);  -- room for the next count beside the last: it then needs no index entry
CREATE INDEX dicom_series_series_instance_uid ON dicom_series (series_instance_uid);
CREATE INDEX dicom_series_modality ON dicom_series (modality, study_id);
CREATE INDEX dicom_series_attributes_values ON dicom_series USING gin (attributes jsonb_path_ops);

-- The provider of each series, with the endpoints it was first seen with.
CREATE TABLE provider (
  id bigint PRIMARY KEY DEFAULT nextval('hibernate_sequence'),
  series_id bigint NOT NULL UNIQUE REFERENCES dicom_series (id) ON DELETE CASCADE,
  name varchar(1024) NOT NULL,
  bucketname varchar(1024),
  bucketendpoint varchar(1024),
  bucketregion varchar(1024),
  wadointernalendpoint varchar(1024),
  wadoexternalendpoint varchar(1024)
);

-- An instance and its object. `digest` is the hex SHA-256 of the file, `size` its length and `pixel_data_offset` the
-- offset of the Pixel Data element in it, both in bytes. Revision numbers: of the study's revision that announces it
-- as an addition, as a modification (the last one), as a deletion.
CREATE TABLE dicom_instance (
  id bigint PRIMARY KEY DEFAULT nextval('hibernate_sequence'),
  series_id bigint NOT NULL REFERENCES dicom_series (id),
  sop_instance_uid varchar(255) COLLATE "C" NOT NULL,
  sop_class_uid varchar(255) COLLATE "C" NOT NULL,
  transfer_syntax_uid varchar(255) COLLATE "C" NOT NULL,
  number int,
  objectname varchar(1024) COLLATE "C" NOT NULL,
  bucketname varchar(1024),
  provider varchar(1024) COLLATE "C" NOT NULL,
  size bigint,
  digest varchar(1024) COLLATE "C",
  pixel_data_offset bigint,
  last_modified timestamptz NOT NULL,
  initial_revision int NOT NULL,
  modified_revision int,
  deleted_revision int,
  attributes jsonb NOT NULL DEFAULT '{}',
  UNIQUE (series_id, sop_instance_uid)
);
CREATE INDEX dicom_instance_sop_instance_uid ON dicom_instance (sop_instance_uid);

-- What each provider has of a study: the counts and lists that every study query returns.
CREATE TABLE dicom_study_provider (
  study_id bigint NOT NULL REFERENCES dicom_study (id) ON DELETE CASCADE,
  provider varchar(1024) COLLATE "C" NOT NULL,
  number_of_series int NOT NULL,
  number_of_instances int NOT NULL,
  modalities text[] COLLATE "C" NOT NULL,
  sop_class_uids text[] COLLATE "C" NOT NULL,
  PRIMARY KEY (study_id, provider)
) WITH (fillfactor = 75);
CREATE INDEX dicom_study_provider_provider ON dicom_study_provider (provider, study_id);
CREATE INDEX dicom_study_provider_modalities ON dicom_study_provider USING gin (modalities);

-- Objects that a changed re-send left behind, for whoever collects them.
CREATE TABLE replaced_object (
  id bigint PRIMARY KEY DEFAULT nextval('hibernate_sequence'),
  instance_id bigint NOT NULL REFERENCES dicom_instance (id) ON DELETE CASCADE,
  provider varchar(1024) NOT NULL,
  bucketname varchar(1024),
  objectname varchar(1024) NOT NULL,
  digest varchar(1024),
  replaced_at timestamptz NOT NULL
);
CREATE INDEX replaced_object_instance ON replaced_object (instance_id);

-- The reference system's attribute tables, for whoever reads the database.
CREATE VIEW dicom_study_attributes AS
  SELECT st.id AS study_id, ('x' || one.key)::bit(32)::int AS tag, kept.vr, one.value ->> 0 AS value
  FROM dicom_study st
  CROSS JOIN LATERAL jsonb_each(st.attributes) AS one
  JOIN (VALUES ('00080050', 'SH'), ('00080090', 'PN'), ('00081030', 'LO'), ('00100010', 'PN'), ('00100020', 'LO'),
               ('00100030', 'DA'), ('00100040', 'CS')) AS kept (tag, vr) ON kept.tag = one.key
  UNION ALL
  SELECT sp.study_id, ('x' || '00080061')::bit(32)::int, 'CS', sp.modalities[1]
  FROM dicom_study_provider sp
  WHERE cardinality(sp.modalities) > 0;
CREATE VIEW dicom_series_attributes AS
  SELECT se.id AS series_id, ('x' || one.key)::bit(32)::int AS tag, kept.vr, one.value ->> 0 AS value
  FROM dicom_series se
  CROSS JOIN LATERAL jsonb_each(se.attributes) AS one
  JOIN (VALUES ('0008103E', 'LO'), ('00400244', 'DA'), ('00400245', 'TM'), ('00400009', 'SH'), ('00401001', 'SH'))
    AS kept (tag, vr) ON kept.tag = one.key;
