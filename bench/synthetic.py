"""Manifest rows of studies that never were: written by the database itself, in bulk.

Columns and attributes are those that recording a CT instance fills, so that searches read rows of the usual width.
"""

from typing import Any

from psycopg import AsyncConnection

INSTANCES = 100
"""Instances of a study, in two series."""
_STUDIES_AT_ONCE = 1000

_STUDIES = """
INSERT INTO dicom_study (id, study_instance_uid, study_id, study_date, study_time, patient_id, patient_name,
  patient_name_words, patient_birth_date, accession_number, attributes, names)
SELECT nextval('hibernate_sequence'), '1.2.826.' || n, 'S' || n, day, '101500', patient, name,
  array_to_tsvector(ARRAY['family' || n %% 5000, 'given' || n %% 300]), '19600101', 'A' || n,
  jsonb_build_object('00080020', ARRAY[day], '00080030', ARRAY['101500'], '00080050', ARRAY['A' || n],
    '00080090', ARRAY['Referrer^R'], '00081030', ARRAY['CT thorax ' || n %% 40], '00100010', ARRAY[spelled],
    '00100020', ARRAY[patient], '00100030', ARRAY['19600101'], '00100040', ARRAY['O'], '00200010', ARRAY['S' || n]),
  jsonb_build_object('00100010',
    jsonb_build_object('k', ARRAY[name], 'w', ARRAY['family' || n %% 5000, 'given' || n %% 300]))
FROM (SELECT n, to_char(date '2015-01-01' + (n %% 3650)::int, 'YYYYMMDD') AS day, 'P' || n / 2 AS patient,
        'family' || n %% 5000 || '^given' || n %% 300 AS name, 'Family' || n %% 5000 || '^Given' || n %% 300 AS spelled
      FROM generate_series(%(first)s::bigint, %(last)s::bigint) AS n) AS made
"""
_SERIES = """
INSERT INTO dicom_series (id, study_id, series_instance_uid, number, modality, provider, number_of_instances,
  sop_class_uids, attributes)
SELECT nextval('hibernate_sequence'), st.id, st.study_instance_uid || '.' || number, number,
  CASE WHEN number = 2 AND st.id %% 10 = 0 THEN 'MR' ELSE 'CT' END, %(provider)s, %(instances)s / 2,
  ARRAY['1.2.840.10008.5.1.4.1.1.2'],
  jsonb_build_object('00080060', ARRAY['CT'], '0008103E', ARRAY['axial ' || number], '00200011', ARRAY[number::text])
FROM dicom_study st CROSS JOIN generate_series(1, 2) AS number
WHERE st.study_instance_uid = ANY(%(uids)s)
"""
_PROVIDERS = """
INSERT INTO provider (series_id, name, wadointernalendpoint)
SELECT se.id, se.provider, 'http://synthetic/wado-rs'
FROM dicom_study st JOIN dicom_series se ON se.study_id = st.id WHERE st.study_instance_uid = ANY(%(uids)s)
"""
_INSTANCES = """
INSERT INTO dicom_instance (series_id, sop_instance_uid, sop_class_uid, transfer_syntax_uid, number, objectname,
  provider, size, digest, pixel_data_offset, last_modified, accepted_at, initial_revision, attributes)
SELECT se.id, se.series_instance_uid || '.' || n, '1.2.840.10008.5.1.4.1.1.2', '1.2.840.10008.1.2.1', n,
  digest || '.dcm', se.provider, 525000, digest, 1500, now(), now(), 0,
  jsonb_build_object('00200013', ARRAY[n::text], '00280010', ARRAY['512'], '00280011', ARRAY['512'],
    '00280100', ARRAY['16'], '00080008', ARRAY['ORIGINAL', 'PRIMARY', 'AXIAL'])
FROM dicom_study st JOIN dicom_series se ON se.study_id = st.id CROSS JOIN generate_series(1, %(instances)s / 2) AS n,
  LATERAL (SELECT encode(sha256((se.series_instance_uid || '.' || n)::bytea), 'hex') AS digest) AS hashed
WHERE st.study_instance_uid = ANY(%(uids)s)
"""
_TOTALS = """
SELECT summarize_studies(ARRAY(SELECT id FROM dicom_study WHERE study_instance_uid = ANY(%(uids)s)))
"""


async def fill(connection: AsyncConnection[Any], provider: str, present: int, studies: int) -> None:
    """Make the manifest of a provider ``studies`` studies large, of which ``present`` are there; then as a database is
    that has been running for a while: vacuumed, with statistics. The limit on a statement's time is lifted for it."""
    await connection.execute("SET statement_timeout = 0")
    await connection.execute("SET synchronous_commit = off")
    for first in range(present, studies, _STUDIES_AT_ONCE):
        last = min(first + _STUDIES_AT_ONCE, studies) - 1
        values = {
            "first": first,
            "last": last,
            "provider": provider,
            "instances": INSTANCES,
            "uids": [f"1.2.826.{number}" for number in range(first, last + 1)],
        }
        for statement in (_STUDIES, _SERIES, _PROVIDERS, _INSTANCES, _TOTALS):
            await connection.execute(statement.encode(), values)
    await connection.execute("VACUUM ANALYZE")
    await connection.execute("RESET synchronous_commit")
    await connection.execute("RESET statement_timeout")
