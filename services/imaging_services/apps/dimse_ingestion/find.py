"""C-FIND from the manifest: Patient Root, Study Root and Patient/Study Only, all levels (PS3.4 section C.4.1).

Hierarchical, unless relational queries have been negotiated. Keys of levels below the one asked for are matched in
either case, since no match of them would be wrong.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import structlog

from imaging_services.apps.dimse_ingestion.identifiers import (
    SPECIFIC_CHARACTER_SET,
    Key,
    Keys,
    decode_identifier,
    encode_identifier,
    json_values,
    off_loop,
)
from imaging_services.domain.dicom.command_set import CommandSet
from imaging_services.domain.dicom.dimse import DimseResponse, Status
from imaging_services.domain.dicom.transfer_syntaxes import Encoding, encoding_of
from imaging_services.domain.errors import DataSetMismatch, InvalidInput
from imaging_services.domain.manifest.attributes import MATCHED_TAGS, PATIENT_ID, RETURNABLE_TAGS, UNIQUE_KEYS
from imaging_services.domain.manifest.query import DicomJson, Level, Query
from imaging_services.domain.ports import ManifestQuery
from imaging_services.domain.relay.services import PATIENT_ROOT_FIND, STUDY_ROOT_FIND

log = structlog.get_logger(__name__)

PATIENT_STUDY_ONLY_FIND = "1.2.840.10008.5.1.4.1.2.3.1"
QUERY_RETRIEVE_LEVEL = 0x00080052
RETRIEVE_AE_TITLE = 0x00080054
_NOT_KEYS = frozenset({SPECIFIC_CHARACTER_SET, QUERY_RETRIEVE_LEVEL, RETRIEVE_AE_TITLE})

_LEVELS = {
    PATIENT_ROOT_FIND: (Level.PATIENT, Level.STUDY, Level.SERIES, Level.IMAGE),
    PATIENT_STUDY_ONLY_FIND: (Level.PATIENT, Level.STUDY),
    STUDY_ROOT_FIND: (Level.STUDY, Level.SERIES, Level.IMAGE),
}
FIND_CLASSES = frozenset(_LEVELS)
_PAGE = 500
_SUPPORTED = bytes((1, 1, 1, 0, 1, 1))  # all of PS3.4 table C.5-2 but time zones in answers


def accept_extended(proposed: Mapping[str, bytes]) -> dict[str, bytes]:
    """The answer to extended negotiation of C-FIND (PS3.4 section C.5.1.1.2), by SOP class."""
    return {
        sop_class: bytes(ours & theirs for ours, theirs in zip(_SUPPORTED, information, strict=False))
        for sop_class, information in proposed.items()
        if sop_class in FIND_CLASSES
    }


@dataclass(frozen=True, slots=True)
class Find:
    """A C-FIND request in terms of the manifest. ``partial``: some keys are not returned, or matched as universal,
    since the manifest does not have them. ``charset`` is the Specific Character Set of the request."""

    query: Query
    keys: Keys
    partial: bool
    charset: tuple[str, ...]


def read_find(sop_class_uid: str, keys: Sequence[Key], provider: str | None, extended: bytes = b"") -> Find:
    """Translate an identifier; ``extended`` is what has been negotiated. Raises ``InvalidInput`` for one that has no
    level, ``DataSetMismatch`` (A900H, PS3.4 table C.4-1) for a level that the SOP class does not have and for a unique
    key that is missing."""
    relational, combined, fuzzy, _, empty_values, every_value = (*map(bool, extended[:6]), *[False] * 6)[:6]
    level = _level(sop_class_uid, keys)
    asked = tuple(key for key in keys if key.tag not in _NOT_KEYS)
    if not relational:
        values = {_hex(key.tag): key.values for key in asked}
        for tag in _above(sop_class_uid, level):
            _check_unique(tag, values.get(tag, ()), level)
    filters = _filters(asked)
    returnable = RETURNABLE_TAGS[level]
    query = Query(
        level=level,
        provider=provider,
        filters={tag: values for tag, values in filters.items() if tag in MATCHED_TAGS},
        fuzzy=fuzzy,
        combined=combined,
        empty_values=empty_values,
        every_value=every_value,
        include=frozenset(_hex(key.tag) for key in asked) & returnable,
    )
    partial = not MATCHED_TAGS.issuperset(filters) or not all(_hex(key.tag) in returnable for key in asked)
    charset = next((key.values for key in keys if key.tag == SPECIFIC_CHARACTER_SET), ())
    return Find(query, asked, partial, charset)


def _filters(keys: Sequence[Key], sequence: str = "") -> dict[str, tuple[str, ...]]:
    """What is to be matched, by the way to it. Of a sequence the first item has the keys (section C.2.2.2.6)."""
    filters: dict[str, tuple[str, ...]] = {}
    for key in keys:
        if key.items:
            filters |= _filters(key.items[0], f"{sequence}{_hex(key.tag)}.")
        elif key.values:
            filters[f"{sequence}{_hex(key.tag)}"] = key.values
    return filters


class Finder:
    """Answers C-FIND of one storage space. ``ae_title`` is where its instances can be retrieved."""

    def __init__(self, manifest: ManifestQuery, *, provider: str | None, ae_title: str) -> None:
        self._manifest, self._provider, self._ae_title = manifest, provider, ae_title

    async def find(
        self, sop_class_uid: str, transfer_syntax: str, command: CommandSet, identifier: bytes, extended: bytes = b""
    ) -> AsyncIterator[DimseResponse]:
        """Pending responses with one match each, then success; ``extended`` is what has been negotiated for the SOP
        class. Raises as ``read_find`` and the manifest do."""
        encoding = encoding_of(transfer_syntax)

        def read() -> Find:
            return read_find(sop_class_uid, decode_identifier(identifier, encoding), self._provider, extended)

        find = await off_loop(identifier, read)
        status = Status.PENDING_WARNING if find.partial else Status.PENDING
        async for match in self._matches(find.query):
            answer = await off_loop(identifier, partial(self._identifier, find, match, encoding))
            yield DimseResponse(command.response(status, has_data_set=True), answer)
        yield DimseResponse(command.response(Status.SUCCESS))

    async def _matches(self, query: Query) -> AsyncIterator[DicomJson]:
        """Page by page, so that a broad query is not held whole, each behind the last result of the one before."""
        page_query = replace(query, limit=_PAGE)
        count = 0
        while True:
            page = await self._page(page_query, count)
            for match in page:
                yield match
            if len(page) < _PAGE:
                return
            count += len(page)
            last = tuple(page[-1][tag]["Value"][0] for tag in UNIQUE_KEYS[query.level] if tag in page[-1])
            page_query = replace(page_query, after=None if query.level is Level.PATIENT else last)

    async def _page(self, query: Query, count: int) -> list[DicomJson]:
        if query.after is not None:
            try:
                return await self._manifest.search(query)
            except InvalidInput:
                log.info("the last result of a page has been deleted", level=query.level)
        return await self._manifest.search(replace(query, after=None, offset=count))

    def _identifier(self, find: Find, match: DicomJson, encoding: Encoding) -> bytes:
        answer = [_answer(key, match) for key in find.keys]
        level = Key(QUERY_RETRIEVE_LEVEL, "CS", (find.query.level.value,))
        retrieve = Key(RETRIEVE_AE_TITLE, "AE", (self._ae_title,))
        return encode_identifier([*answer, level, retrieve], encoding, find.charset)


def _answer(key: Key, match: DicomJson) -> Key:
    found = match.get(_hex(key.tag))
    if found is None:
        return Key(key.tag, key.vr)
    if found["vr"] == "SQ":
        return Key(key.tag, "SQ", items=tuple(_answered_item(key, item) for item in found["Value"]))
    return Key(key.tag, found["vr"], json_values(found))


def _answered_item(key: Key, item: dict[str, Any]) -> Keys:
    """The attributes of an item that were asked for; all when the sequence was asked for as such."""
    if key.items:
        return tuple(_answer(one, item) for one in key.items[0])
    return tuple(Key(int(tag, 16), element["vr"], json_values(element)) for tag, element in item.items())


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
    return [PATIENT_ID, *keys] if sop_class_uid != STUDY_ROOT_FIND and level is not Level.PATIENT else keys


def _check_unique(tag: str, values: tuple[str, ...], level: Level) -> None:
    if len(values) != 1 or not values[0] or "*" in values[0] or "?" in values[0]:
        raise DataSetMismatch(f"a query at level {level.value} needs a single value of ({tag[:4]},{tag[4:]})")


def _hex(tag: int) -> str:
    return f"{tag:08X}"
