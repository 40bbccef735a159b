"""Making a study's header document: headers that are kept, those of new instances read, all of them put together."""

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from weakref import WeakValueDictionary

import structlog

from imaging_services.apps.dicomweb_ingestion.read_ahead import in_order
from imaging_services.domain.dicom.range_file import RangeFile
from imaging_services.domain.dicom.transfer_syntaxes import encoding_of
from imaging_services.domain.errors import ImagingError, NotFound, PermanentError
from imaging_services.domain.manifest.query import InstanceLocation, Scope
from imaging_services.domain.ports import KeptHeaders, ManifestQuery, ObjectStore
from imaging_services.domain.retrieve.stored_file import open_stored
from imaging_services.domain.streaming.instance_header import InstanceHeader, is_packed, read_instance_header
from imaging_services.domain.streaming.study_document import gzipped_document
from imaging_services.domain.streaming.text import value_xml

log = structlog.get_logger(__name__)

_SAVED_AT_ONCE = 128
_SOP_INSTANCE_UID = "00080018"
_IDENTIFIERS = (("00080016", "sop_class_uid"), (_SOP_INSTANCE_UID, "sop_instance_uid"))
_PARENTS = (("0020000D", "study_instance_uid"), ("0020000E", "series_instance_uid"))


@dataclass(frozen=True, slots=True)
class HeaderDocument:
    """``content`` is gzip of the XML, of exactly the instances in ``locations``; ``unread`` are the names of objects
    that could not be read, and whose instances have no more than their UIDs."""

    locations: Sequence[InstanceLocation]
    content: bytes
    unread: Sequence[str] = ()


class StudyHeaders:
    """Header documents of one provider's studies.

    A document holds what the manifest holds when it is asked for. Kept are the headers of each instance (``kept``) and
    the last documents, up to ``cache_bytes``; ``concurrency`` bounds how many files are read at once.
    """

    def __init__(
        self,
        manifest: ManifestQuery,
        store: ObjectStore,
        kept: KeptHeaders,
        provider: str,
        *,
        cache_bytes: int = 32 * 1024 * 1024,
        concurrency: int = 16,
    ) -> None:
        self._manifest, self._store, self._kept = manifest, store, kept
        self._provider = provider
        self._concurrency = concurrency
        self._reading = asyncio.Semaphore(concurrency)
        self._documents = _Documents(cache_bytes)
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def document(self, study_instance_uid: str) -> HeaderDocument:
        """The document as of now. Raises ``NotFound`` when the provider has no such study."""
        locations = await self._located(study_instance_uid)
        content = self._documents.get(_state(locations))
        if content is not None:
            return HeaderDocument(locations, content)
        # Who asks for a study that is being put together waits for it, instead of reading the same files again; then
        # what has come meanwhile is in the document too, and all who waited share it.
        async with self._turns.setdefault(study_instance_uid, asyncio.Lock()):
            locations = await self._located(study_instance_uid)
            state = _state(locations)
            content = self._documents.get(state)
            if content is not None:
                return HeaderDocument(locations, content)
            made = await self._made(study_instance_uid, locations)
            if not made.unread:  # an object may come back, in the same state of the manifest
                self._documents.put(state, made.content)
            return made

    async def _located(self, study_instance_uid: str) -> Sequence[InstanceLocation]:
        locations = await self._manifest.locate(Scope(study_instance_uid, provider=self._provider))
        if not locations:
            raise NotFound("there is no such study here")
        return locations

    async def _made(self, study_instance_uid: str, locations: Sequence[InstanceLocation]) -> HeaderDocument:
        kept = await self._kept.load(study_instance_uid, self._provider)
        headers = await asyncio.to_thread(_known, locations, kept)
        missing = [one for one in locations if one.object_name not in headers]
        if missing:
            headers |= await self._read_all(study_instance_uid, missing)
        unread = [one.object_name for one in locations if one.object_name not in headers]
        members = [(one, headers.get(one.object_name) or _identifiers(one)) for one in locations]
        content = await asyncio.to_thread(gzipped_document, study_instance_uid, members)
        return HeaderDocument(locations, content, unread)

    async def _read_all(self, study_instance_uid: str, locations: Sequence[InstanceLocation]) -> dict[str, bytes]:
        found: dict[str, bytes] = {}
        unsaved: dict[str, bytes] = {}

        async def use(read: tuple[InstanceLocation, bytes | None]) -> None:
            location, packed = read
            if packed is not None:
                found[location.object_name] = unsaved[location.object_name] = packed
            if len(unsaved) >= _SAVED_AT_ONCE:
                await self._save(study_instance_uid, unsaved)
                unsaved.clear()

        await in_order(locations, self._read, use, ahead=self._concurrency)
        if unsaved:
            await self._save(study_instance_uid, unsaved)
        log.info("study headers read", read=len(found))
        return found

    async def _save(self, study_instance_uid: str, headers: dict[str, bytes]) -> None:
        """A document that is at hand is answered also when its parts cannot be kept."""
        try:
            await self._kept.save(study_instance_uid, self._provider, headers)
        except ImagingError as error:
            log.warning("headers cannot be kept", headers=len(headers), reason=str(error))

    async def _read(self, location: InstanceLocation) -> tuple[InstanceLocation, bytes | None]:
        """The header of a stored file, packed; None when it cannot be read."""
        try:
            async with self._reading:
                file = await open_stored(self._store, location)
                return location, await file.inspect(lambda content: _header(content, location))
        except PermanentError as error:
            log.warning("header cannot be read", object=location.object_name, error=type(error).__name__)
            return location, None


def _header(file: RangeFile, location: InstanceLocation) -> bytes:
    deflated = encoding_of(location.transfer_syntax_uid).deflated  # then the offset says nothing of the inflated file
    header = read_instance_header(file, None if deflated else location.pixel_data_offset)
    if not any(tag == _SOP_INSTANCE_UID for tag, _, _ in header.attributes):
        raise PermanentError("the stored file cannot be read as DICOM: it has no SOP Instance UID")
    return header.packed()


class _Documents:
    """The last documents by the state that they describe."""

    def __init__(self, limit: int) -> None:
        self._limit, self._held = limit, 0
        self._contents: OrderedDict[str, bytes] = OrderedDict()

    def get(self, state: str) -> bytes | None:
        if state in self._contents:
            self._contents.move_to_end(state)
        return self._contents.get(state)

    def put(self, state: str, content: bytes) -> None:
        if state in self._contents or len(content) > self._limit:
            return
        self._contents[state] = content
        self._held += len(content)
        while self._held > self._limit:
            self._held -= len(self._contents.popitem(last=False)[1])


def _state(locations: Sequence[InstanceLocation]) -> str:
    digest = hashlib.sha256()
    for one in locations:
        digest.update(f"{one.series_instance_uid} {one.sop_instance_uid} {one.object_name} {one.size}\n".encode())
    return digest.hexdigest()


def _known(locations: Sequence[InstanceLocation], kept: dict[str, bytes]) -> dict[str, bytes]:
    headers = {one.object_name: kept[one.object_name] for one in locations if one.object_name in kept}
    return {name: packed for name, packed in headers.items() if is_packed(packed)}


def _identifiers(location: InstanceLocation) -> InstanceHeader:
    identifiers = (*_IDENTIFIERS, *_PARENTS)
    return InstanceHeader("", tuple((tag, "UI", value_xml(getattr(location, name))) for tag, name in identifiers))
