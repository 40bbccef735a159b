"""Orthanc with its PostgreSQL index holding the studies of ``synthetic``: one instance is uploaded, the rest written as
rows of its tables, as Orthanc itself would have written them.

What the rows have to be is read from the uploaded instance, and checked against it: the same instance is among those
that are written, and has to look as Orthanc left it. A search reads one file of each study that it finds: so there is
one small file a study, of its first instance, which all of its instances share.
"""

import hashlib
import io
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from synthetic import INSTANCES

from support.orthanc import PLUGIN, Orthanc
from support.peers import installed
from support.servers import Database, fresh_database, running_postgres

INDEX = "/usr/share/orthanc/plugins/libOrthancPostgreSQLIndex.so"
_SERIES_OF_A_STUDY = 2
_OF_A_SERIES = INSTANCES // _SERIES_OF_A_STUDY
_OF_A_STUDY = 1 + _SERIES_OF_A_STUDY + INSTANCES
"""Resources of a study: itself, its series, their instances."""
_TABLES = ("resources", "maindicomtags", "dicomidentifiers", "metadata", "attachedfiles")
_SEEN = """
SELECT r.publicid, 'tag', t.taggroup, t.tagelement, t.value FROM resources r JOIN maindicomtags t ON t.id = r.internalid
UNION ALL SELECT r.publicid, 'identifier', t.taggroup, t.tagelement, t.value
  FROM resources r JOIN dicomidentifiers t ON t.id = r.internalid
UNION ALL SELECT r.publicid, 'metadata', r.resourcetype, m.type, m.value
  FROM resources r JOIN metadata m ON m.id = r.internalid
UNION ALL SELECT r.publicid, 'file', f.filetype, f.uncompressedsize, f.compressedhash
  FROM resources r JOIN attachedfiles f ON f.id = r.internalid
UNION ALL SELECT r.publicid, 'resource', r.resourcetype, 0, above.publicid
  FROM resources r LEFT JOIN resources above ON above.internalid = r.parentid
"""
_TEMPLATE = """
CREATE TEMP TABLE template AS
SELECT r.resourcetype, m.type, m.value, m.revision FROM resources r JOIN metadata m ON m.id = r.internalid
"""
_STUDY_ROWS = """
CREATE TEMP TABLE studies AS
SELECT n, %(patients)s::bigint + 1 + n * %(of_a_study)s AS id, 1 + n / 2 AS patient_id, 'P' || n / 2 AS patient,
  'Family' || n %% 5000 || '^Given' || n %% 300 AS name,
  to_char(date '2015-01-01' + (n %% 3650)::int, 'YYYYMMDD') AS day
FROM generate_series(0, %(studies)s::bigint - 1) AS n
"""
_SERIES_ROWS = """
CREATE TEMP TABLE series AS
SELECT n, number, id + 1 + (number - 1) * (1 + %(of_a_series)s) AS id, '1.2.826.' || n || '.' || number AS uid
FROM studies CROSS JOIN generate_series(1, %(series)s) AS number
"""
_INSTANCE_ROWS = """
CREATE TEMP TABLE instances AS
SELECT n, number, id + number AS id, uid || '.' || number AS uid
FROM (SELECT n, id, uid FROM series) AS se CROSS JOIN generate_series(1, %(of_a_series)s) AS number
"""
_TAGS_OF_PATIENT = "(16, 16, name), (16, 32, patient), (16, 48, '19600101'), (16, 64, 'O')"
_TAGS_OF_STUDY = (
    "(8, 32, day), (8, 48, '101500'), (8, 80, 'A' || n), (8, 4144, 'CT thorax ' || n % 40),"
    " (32, 13, '1.2.826.' || n), (32, 16, 'S' || n)"
)
_KEYS_OF_PATIENT = "(16, 16, upper(name)), (16, 32, patient), (16, 48, '19600101')"
_KEYS_OF_STUDY = "(8, 32, day), (8, 80, 'A' || n), (8, 4144, upper('CT thorax ' || n % 40)), (32, 13, '1.2.826.' || n)"
_PATIENTS = "(SELECT DISTINCT ON (patient_id) patient_id AS id, name, patient, n FROM studies ORDER BY patient_id, n)"
_TAGGED = {
    "maindicomtags": (
        (_PATIENTS, _TAGS_OF_PATIENT),
        ("studies", f"{_TAGS_OF_PATIENT}, {_TAGS_OF_STUDY}"),
        ("series", "(8, 96, 'CT'), (32, 14, uid), (32, 17, number::text)"),
        ("instances", "(8, 24, uid), (32, 19, number::text)"),
    ),
    "dicomidentifiers": (
        (_PATIENTS, _KEYS_OF_PATIENT),
        ("studies", f"{_KEYS_OF_PATIENT}, {_KEYS_OF_STUDY}"),
        ("series", "(32, 14, uid)"),
        ("instances", "(8, 24, uid)"),
    ),
}
_METADATA = """
INSERT INTO metadata (id, type, value, revision)
SELECT r.internalid, t.type, CASE WHEN t.type = 1 THEN i.number::text ELSE t.value END, t.revision
FROM resources r JOIN template t ON t.resourcetype = r.resourcetype LEFT JOIN instances i ON i.id = r.internalid
"""
"""Of type 1 is the place in the series; the others are the same for all that come in the same way."""
_FILES = """
INSERT INTO attachedfiles
SELECT i.id, 1, f.uuid, f.size, f.size, 1, f.md5, f.md5, 0 FROM instances i JOIN files f ON f.n = i.n
"""
_TOTALS = """
UPDATE globalintegers SET value = CASE key
  WHEN 0 THEN (SELECT sum(compressedsize) FROM attachedfiles)
  WHEN 1 THEN (SELECT sum(uncompressedsize) FROM attachedfiles)
  ELSE (SELECT count(*) FROM resources WHERE resourcetype = key - 2) END
WHERE key < 6
"""
_RECYCLED = """
INSERT INTO patientrecyclingorder (patientid)
SELECT internalid FROM resources WHERE resourcetype = 0 ORDER BY internalid
"""
_LAST = "SELECT setval('resources_internalid_seq', (SELECT max(internalid) FROM resources))"


@dataclass(frozen=True)
class Indexed:
    """A running Orthanc and the processes that its searches cost."""

    dicomweb: str
    pids: list[int]


@contextmanager
def indexed_orthanc(folder: Path, studies: int) -> Iterator[Indexed]:
    """Orthanc and a PostgreSQL server of its own, with so many studies. Raises ``RuntimeError`` when it does not hold
    what it should."""
    installed(INDEX, "orthanc-postgresql")
    with ExitStack() as running:
        server = running.enter_context(running_postgres(folder / "postgres"))
        database = running.enter_context(fresh_database(server))
        settings = _settings(database)
        with Orthanc(folder / "orthanc", settings=settings) as orthanc:
            orthanc.post("/instances", part10(0))
        with psycopg.connect(database.conninfo, autocommit=True) as connection:
            _fill(connection, folder / "orthanc" / "storage", studies)
        orthanc = running.enter_context(Orthanc(folder / "orthanc", settings=settings))
        counted = orthanc.get("/statistics")
        if (counted["CountStudies"], counted["CountInstances"]) != (studies, studies * INSTANCES):
            raise RuntimeError(f"Orthanc counts {counted}")
        yield Indexed(orthanc.dicomweb, [orthanc.pid, server.pid])


def _settings(database: Database) -> dict[str, Any]:
    return {
        "Plugins": [str(PLUGIN), INDEX],
        "PostgreSQL": {
            "EnableIndex": True,
            "EnableStorage": False,
            "Host": database.host,
            "Port": database.port,
            "Database": database.name,
            "Username": database.user,
            "Password": database.password,
        },
    }


def _fill(connection: psycopg.Connection[Any], storage: Path, studies: int) -> None:
    """Instead of the one instance all of them. Constraints and triggers rest meanwhile, indexes are made at the end."""
    values = {
        "studies": studies,
        "patients": (studies + 1) // 2,
        "series": _SERIES_OF_A_STUDY,
        "of_a_series": _OF_A_SERIES,
        "of_a_study": _OF_A_STUDY,
    }
    connection.execute("SET synchronous_commit = off")
    seen = set(connection.execute(_SEEN.encode()).fetchall())
    connection.execute(_TEMPLATE.encode())
    indexes = connection.execute(
        "SELECT indexname, indexdef FROM pg_indexes WHERE tablename = ANY(%s) AND indexname NOT LIKE '%%pkey'",
        [list(_TABLES)],
    ).fetchall()
    for name, _ in indexes:
        connection.execute(f'DROP INDEX "{name}"'.encode())
    connection.execute(f"TRUNCATE {', '.join(_TABLES)}, changes, patientrecyclingorder".encode())
    connection.execute("SET session_replication_role = replica")
    _resources(connection, studies)
    _files(connection, storage, studies)
    for rows in (_STUDY_ROWS, _SERIES_ROWS, _INSTANCE_ROWS):
        connection.execute(psycopg.ClientCursor(connection).mogrify(rows, values).encode())
    for table, levels in _TAGGED.items():
        for source, tags in levels:
            rows = f"SELECT made.id, tag.* FROM {source} AS made, LATERAL (VALUES {tags}) AS tag"
            connection.execute(f"INSERT INTO {table} {rows}".encode())
    for statement in (_METADATA, _FILES, _TOTALS, _RECYCLED, _LAST):
        connection.execute(statement.encode())
    connection.execute("SET session_replication_role = origin")
    for _, definition in indexes:
        connection.execute(definition.encode())
    connection.execute("VACUUM ANALYZE")
    _check(connection, seen)


def _check(connection: psycopg.Connection[Any], seen: set[tuple[Any, ...]]) -> None:
    """The instance that was uploaded looks as Orthanc left it."""
    ids = sorted({row[0] for row in seen})
    query = f"SELECT * FROM ({_SEEN}) AS seen WHERE publicid = ANY(%s)"
    now = set(connection.execute(query.encode(), [ids]).fetchall())
    if now != seen:
        raise RuntimeError(f"Orthanc wrote {sorted(map(str, seen - now))}, the bench {sorted(map(str, now - seen))}")


def _resources(connection: psycopg.Connection[Any], studies: int) -> None:
    """Every patient, study, series and instance, numbered as the statements above take it."""
    patients = (studies + 1) // 2
    columns = "(internalid, resourcetype, publicid, parentid)"
    with connection.cursor() as cursor, cursor.copy(f"COPY resources {columns} FROM STDIN".encode()) as copy:
        for patient in range(patients):
            copy.write_row((patient + 1, 0, _public(f"P{patient}"), None))
        for n in range(studies):
            study, name = patients + 1 + n * _OF_A_STUDY, f"P{n // 2}|1.2.826.{n}"
            copy.write_row((study, 1, _public(name), n // 2 + 1))
            for number in range(1, _SERIES_OF_A_STUDY + 1):
                series, below = study + 1 + (number - 1) * (1 + _OF_A_SERIES), f"{name}|1.2.826.{n}.{number}"
                copy.write_row((series, 2, _public(below), study))
                for i in range(1, _OF_A_SERIES + 1):
                    copy.write_row((series + i, 3, _public(f"{below}|1.2.826.{n}.{number}.{i}"), series))


def _public(name: str) -> str:
    """Orthanc's identifier: the SHA-1 of the identifiers of the levels, in five groups."""
    digest = hashlib.sha1(name.encode(), usedforsecurity=False).hexdigest()
    return "-".join(digest[at : at + 8] for at in range(0, 40, 8))


def _files(connection: psycopg.Connection[Any], storage: Path, studies: int) -> None:
    connection.execute("CREATE TEMP TABLE files (n bigint, uuid text, size bigint, md5 text)")
    with connection.cursor() as cursor, cursor.copy("COPY files FROM STDIN") as copy:
        for n in range(studies):
            name, content = str(uuid.uuid4()), part10(n)
            path = storage / name[:2] / name[2:4] / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            copy.write_row((n, name, len(content), hashlib.md5(content, usedforsecurity=False).hexdigest()))


def study_date(number: int) -> str:
    """The Study Date that ``synthetic`` gives a study."""
    return time.strftime("%Y%m%d", time.gmtime(1420070400 + number % 3650 * 86400))


def part10(number: int) -> bytes:
    """The first instance of a study of ``synthetic``, without pixels."""
    made = Dataset()
    made.SOPClassUID, made.Modality = CTImageStorage, "CT"
    made.StudyInstanceUID, made.StudyID = f"1.2.826.{number}", f"S{number}"
    made.StudyDate, made.StudyTime = study_date(number), "101500"
    made.PatientID, made.PatientName = f"P{number // 2}", f"Family{number % 5000}^Given{number % 300}"
    made.PatientBirthDate, made.PatientSex, made.AccessionNumber = "19600101", "O", f"A{number}"
    made.StudyDescription = f"CT thorax {number % 40}"
    made.SeriesInstanceUID, made.SeriesNumber = f"{made.StudyInstanceUID}.1", 1
    made.SOPInstanceUID, made.InstanceNumber = f"{made.SeriesInstanceUID}.1", 1
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    written = io.BytesIO()
    made.save_as(written, enforce_file_format=True)
    return written.getvalue()
