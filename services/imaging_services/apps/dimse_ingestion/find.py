"""C-FIND from the manifest: Patient Root and Study Root, all levels, hierarchical (PS3.4 section C.4.1)."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from imaging_services.apps.dimse_ingestion.identifiers import (
    SPECIFIC_CHARACTER_SET,
    Key,
    decode_identifier,
    encode_identifier,
    json_values,
)
from imaging_services.domain.dicom.command_set import CommandSet
from imaging_services.domain.dicom.dimse import DimseResponse, Status
from imaging_services.domain.dicom.transfer_syntaxes import Encoding, encoding_of
from imaging_services.domain.errors import DataSetMismatch, InvalidInput
from imaging_services.domain.manifest.attributes import PATIENT_ID, RETURNABLE_TAGS, SEARCHABLE_TAGS, UNIQUE_KEYS
from imaging_services.domain.manifest.query import DicomJson, Level, Query
from imaging_services.domain.ports import ManifestQuery
from imaging_services.domain.relay.services import PATIENT_ROOT_FIND, STUDY_ROOT_FIND

QUERY_RETRIEVE_LEVEL = 0x00080052
RETRIEVE_AE_TITLE = 0x00080054
_NOT_KEYS = frozenset({SPECIFIC_CHARACTER_SET, QUERY_RETRIEVE_LEVEL, RETRIEVE_AE_TITLE})

_LEVELS = {
    PATIENT_ROOT_FIND: (Level.PATIENT, Level.STUDY, Level.SERIES, Level.IMAGE),
    STUDY_ROOT_FIND: (Level.STUDY, Level.SERIES, Level.IMAGE),
}
FIND_CLASSES = frozenset(_LEVELS)
_PAGE = 500


@dataclass(frozen=True, slots=True)
class Find:
    """A C-FIND request in terms of the manifest. ``partial``: some keys are matched as universal instead, since the
    manifest cannot search by them."""

    query: Query
    keys: tuple[Key, ...]
    partial: bool


def read_find(sop_class_uid: str, keys: Sequence[Key], provider: str | None) -> Find:
    """Translate an identifier. Raises ``InvalidInput`` for one that has no level, ``DataSetMismatch`` (A900H, PS3.4
    table C.4-1) for a level that the SOP class does not have and for a unique key that is missing."""
    level = _level(sop_class_uid, keys)
    asked = tuple(key for key in keys if key.tag not in _NOT_KEYS)
    values = {_hex(key.tag): key.values for key in asked}
    for tag in _above(sop_class_uid, level):
        _check_unique(tag, values.get(tag, ()), level)
    searchable, returnable = SEARCHABLE_TAGS[level], RETURNABLE_TAGS[level]
    filters = {tag: value for tag, value in values.items() if tag in searchable and value}
    query = Query(
        level=level,
        provider=provider,
        filters=filters,
        include=frozenset(tag for tag in values if tag in returnable),
    )
    partial = any(value and tag not in searchable for tag, value in values.items())
    return Find(query, asked, partial)


class Finder:
    """Answers C-FIND of one storage space. ``ae_title`` is where its instances can be retrieved."""

    def __init__(self, manifest: ManifestQuery, *, provider: str | None, ae_title: str) -> None:
        self._manifest, self._provider, self._ae_title = manifest, provider, ae_title

    async def find(
        self, sop_class_uid: str, transfer_syntax: str, command: CommandSet, identifier: bytes
    ) -> AsyncIterator[DimseResponse]:
        """Pending responses with one match each, then success. Raises as ``read_find`` and the manifest do."""
        encoding = encoding_of(transfer_syntax)
        find = read_find(sop_class_uid, decode_identifier(identifier, encoding), self._provider)
        status = Status.PENDING_WARNING if find.partial else Status.PENDING
        async for match in self._matches(find.query):
            yield DimseResponse(command.response(status, has_data_set=True), self._identifier(find, match, encoding))
        yield DimseResponse(command.response(Status.SUCCESS))

    async def _matches(self, query: Query) -> AsyncIterator[DicomJson]:
        """Page by page, so that a broad query is not held whole; what moved to a later page meanwhile comes once."""
        seen: set[tuple[str, ...]] = set()
        offset = 0
        while True:
            page = await self._manifest.search(_page(query, offset))
            for match in page:
                identity = tuple(str(match.get(tag)) for tag in UNIQUE_KEYS[query.level])
                if query.level is Level.PATIENT or identity not in seen:
                    seen.add(identity)
                    yield match
            if len(page) < _PAGE:
                return
            offset += _PAGE

    def _identifier(self, find: Find, match: DicomJson, encoding: Encoding) -> bytes:
        answer = [_answer(key, match) for key in find.keys]
        level = Key(QUERY_RETRIEVE_LEVEL, "CS", (find.query.level.value,))
        retrieve = Key(RETRIEVE_AE_TITLE, "AE", (self._ae_title,))
        return encode_identifier([*answer, level, retrieve], encoding)


def _page(query: Query, offset: int) -> Query:
    return Query(
        level=query.level,
        provider=query.provider,
        filters=query.filters,
        include=query.include,
        limit=_PAGE,
        offset=offset,
    )


def _answer(key: Key, match: DicomJson) -> Key:
    found = match.get(_hex(key.tag))
    return Key(key.tag, found["vr"], json_values(found)) if found else Key(key.tag, key.vr)


def _level(sop_class_uid: str, keys: Sequence[Key]) -> Level:
    text = next((key.values[0] for key in keys if key.tag == QUERY_RETRIEVE_LEVEL and key.values), None)
    if text is None:
        raise InvalidInput("the identifier has no Query/Retrieve Level (0008,0052)")
    levels = _LEVELS.get(sop_class_uid, ())
    if text not in levels:
        raise DataSetMismatch(f"Query/Retrieve Level {text!r} is none of {', '.join(levels)}")
    return Level(text)


def _above(sop_class_uid: str, level: Level) -> list[str]:
    """The unique keys of the levels above, each of which has to be given (section C.4.1.3.1.1)."""
    keys = [] if level is Level.PATIENT else list(UNIQUE_KEYS[level][:-1])
    return [PATIENT_ID, *keys] if sop_class_uid == PATIENT_ROOT_FIND and level is not Level.PATIENT else keys


def _check_unique(tag: str, values: tuple[str, ...], level: Level) -> None:
    if len(values) != 1 or not values[0] or "*" in values[0] or "?" in values[0]:
        raise DataSetMismatch(f"a query at level {level.value} needs a single value of ({tag[:4]},{tag[4:]})")


def _hex(tag: int) -> str:
    return f"{tag:08X}"
