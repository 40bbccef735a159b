"""STOW-RS with metadata and bulk data apart (PS3.18 section 10.5.1.2): put together and stored like any other instance.

The bulk data of a request waits in one spool until its end, since metadata may refer to any part of it.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urljoin

import orjson
import structlog
from starlette.exceptions import HTTPException

from imaging_services.apps.dicomweb_ingestion.stow_budget import Budget
from imaging_services.apps.dicomweb_ingestion.stow_bulk import BulkParts
from imaging_services.apps.dicomweb_ingestion.stow_form import PartParser
from imaging_services.apps.dicomweb_ingestion.stow_outcome import Outcome, report
from imaging_services.domain.dicom.media_types import DICOM_JSON, DICOM_XML, JSON, parse_media_type
from imaging_services.domain.dicom.model_encoder import encode_model, is_encodable, is_tag
from imaging_services.domain.dicom.multipart import PartEvent, PartStart
from imaging_services.domain.dicom.native_model_reader import read_native_model
from imaging_services.domain.dicom.transfer_syntaxes import EXPLICIT_VR_LITTLE_ENDIAN
from imaging_services.domain.dicom.uids import clean_uid
from imaging_services.domain.errors import InvalidInput, MissingIdentifier
from imaging_services.domain.ingest.conformance import Finding
from imaging_services.domain.ingest.encapsulation import ENCAPSULATED_DOCUMENT, complete_document
from imaging_services.domain.ingest.ingest import Expected, Ingest, Ingested
from imaging_services.domain.ingest.urgency import UrgentSeries
from imaging_services.domain.manifest.query import DicomJson

log = structlog.get_logger(__name__)

MAX_METADATA = 8 * 1024 * 1024
"""Longest metadata of a request, bytes over all its instances: it is held in memory."""
MAX_INSTANCES = 10_000
"""Most instances of a request."""
_IN_MEMORY = 8
"""What metadata takes in memory once it is parsed, times its bytes."""
_XML = (DICOM_XML, "application/xml", "text/xml")
_METADATA = (DICOM_JSON, JSON, *_XML)
_SOP_CLASS, _SOP_INSTANCE, _NUMBER_OF_FRAMES = "00080016", "00080018", "00280008"


@dataclass(slots=True)
class _Metadata:
    """The metadata parts as they come."""

    documents: list[tuple[str, bytearray]] = field(default_factory=list)
    size: int = 0

    def begin(self, media_type: str) -> None:
        _require_few(len(self.documents) + 1)
        self.documents.append((media_type, bytearray()))

    def add(self, block: bytes) -> None:
        if self.size + len(block) > MAX_METADATA:
            raise HTTPException(413, f"the metadata is longer than {MAX_METADATA} bytes: store fewer instances at once")
        self.size += len(block)
        self.documents[-1][1].extend(block)

    def models(self) -> list[Any]:
        """The instances. Raises ``InvalidInput``."""
        found: list[Any] = []
        for media_type, content in self.documents:
            if media_type in _XML:
                found.append(read_native_model(bytes(content)))
            else:
                found += _instances(content)
        _require_few(len(found))
        return found


def _require_few(instances: int) -> None:
    if instances > MAX_INSTANCES:
        raise HTTPException(413, f"more than {MAX_INSTANCES} instances in one request")


def _instances(content: bytearray) -> list[Any]:
    try:
        document = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise InvalidInput(f"the metadata is not JSON: {error}") from None
    return document if isinstance(document, list) else [document]


class MetadataReceiver:
    """Takes one request apart and stores the instances of its metadata. ``location``: the request's URL, which relative
    URIs belong to. ``max_body``: bytes of a request, None for any number."""

    def __init__(
        self,
        ingest: Ingest,
        budget: Budget,
        *,
        study: str | None,
        concurrency: int,
        location: str,
        urgent: UrgentSeries,
        max_body: int | None = None,
    ) -> None:
        self._ingest = ingest
        self._urgent = urgent
        self._max_body = max_body
        self._budget = budget
        self._expected = Expected(study_instance_uid=study) if study else None
        self._turns = asyncio.Semaphore(concurrency)
        self._location = location
        self._metadata = _Metadata()
        self.outcomes: list[Outcome] = []

    async def receive(self, blocks: AsyncIterable[bytes], parser: PartParser) -> None:
        """Store every instance. On a malformed or cut body nothing is stored: raises ``InvalidInput``, HTTP 413, or
        what ``blocks`` raises."""
        await self._budget.available()
        try:
            await self._receive(blocks, parser)
        finally:
            await self._budget.release(self._metadata.size * _IN_MEMORY)

    async def _receive(self, blocks: AsyncIterable[bytes], parser: PartParser) -> None:
        async with self._ingest.spools.open() as spool:
            bulk = BulkParts(spool)
            async for block in blocks:
                for event in parser.feed(block):
                    await self._take(event, bulk)
            for event in parser.close():
                await self._take(event, bulk)
            models = await asyncio.to_thread(self._metadata.models)
            bulk.require_fitting(await asyncio.to_thread(self._locations, models), self._max_body)
            await bulk.complete()
            self.outcomes = [Outcome() for _ in models]
            async with asyncio.TaskGroup() as tasks:
                for model, outcome in zip(models, self.outcomes, strict=True):
                    tasks.create_task(self._store(model, bulk, outcome))

    async def _take(self, event: PartEvent, bulk: BulkParts) -> None:
        if isinstance(event, PartStart):
            media_type = parse_media_type(event.headers.get("content-type") or DICOM_JSON)
            if media_type.type in _METADATA and not _is_document(media_type.type, event):
                bulk.end()
                self._metadata.begin(media_type.type)
            else:
                location = event.headers.get("content-location") or event.headers.get("content-id", "").strip("<>")
                bulk.begin(self._absolute(location), media_type)
        elif isinstance(event, bytes):
            if bulk.is_open:
                await bulk.add(event)
            else:
                self._metadata.add(event)
                self._budget.hold(len(event) * _IN_MEMORY)
        else:
            bulk.end()

    def _absolute(self, uri: str) -> str:
        try:
            return urljoin(self._location, uri.removeprefix("cid:"))
        except ValueError as error:
            raise InvalidInput(f"a location of bulk data is no URI: {error}") from None

    def _locations(self, models: list[Any]) -> Counter[str]:
        """Where the metadata says that bulk data is, and how often; what is no URI is told with its instance."""
        found: Counter[str] = Counter()
        for uri in _bulk_data_uris(models):
            with contextlib.suppress(InvalidInput):
                found[self._absolute(uri)] += 1
        return found

    async def _store(self, model: Any, bulk: BulkParts, outcome: Outcome) -> None:
        async with self._turns:
            try:
                outcome.ingested = await self._store_model(model, bulk, outcome)
            except Exception as error:  # noqa: BLE001 - the response tells of each instance
                report(outcome, error)

    async def _store_model(self, model: Any, bulk: BulkParts, outcome: Outcome) -> Ingested:
        if not isinstance(model, dict):
            raise InvalidInput("an instance of the metadata is no object")
        model = self._completed(model, bulk, outcome)
        outcome.identify(_uid(model, _SOP_CLASS), _uid(model, _SOP_INSTANCE))
        found = bulk.resolver(self._absolute, _frames(model))
        pieces = await asyncio.to_thread(encode_model, model, found)
        size = sum(len(piece) if isinstance(piece, bytes) else piece.length for piece in pieces)
        self._budget.hold(size)
        try:
            return await self._ingest.receive(
                bulk.stream(pieces),
                transfer_syntax=found.transfer_syntax or EXPLICIT_VR_LITTLE_ENDIAN,
                expected=self._expected,
                identified=outcome.identify,
                inspect=outcome.inspect,
                is_urgent=self._urgent.is_urgent,
            )
        finally:
            await self._budget.release(size)

    def _completed(self, model: DicomJson, bulk: BulkParts, outcome: Outcome) -> DicomJson:
        """The model with what a document's media type says, and a note of what is left out."""
        outcome.discarded = [
            Finding(int(tag, 16), "left out: it has no place in a data set")
            for tag in model
            if is_tag(tag) and not is_encodable(tag) and not tag.startswith("0002")
        ]
        document = model.get(ENCAPSULATED_DOCUMENT)
        if not isinstance(document, dict) or "BulkDataURI" not in document:
            return model
        part = bulk.part(self._absolute(str(document["BulkDataURI"])))
        completed = complete_document(model, part.media_type.type, part.span.length)
        outcome.coerced = [Finding(int(tag, 16), comment[:64]) for tag, comment in completed.added.items()]
        return completed.model


def _is_document(media_type: str, part: PartStart) -> bool:
    """A CDA document is XML, too: bulk data has a location that metadata refers to."""
    located = "content-location" in part.headers or "content-id" in part.headers
    return located and media_type in _XML and media_type != DICOM_XML


def _bulk_data_uris(models: list[Any]) -> Iterator[str]:
    left: list[Any] = [models]
    while left:
        one = left.pop()
        if isinstance(one, dict):
            if "BulkDataURI" in one:
                yield str(one["BulkDataURI"])
            left += one.values()
        elif isinstance(one, list):
            left += one


def _frames(model: DicomJson) -> int:
    """Number of Frames; 1 without it, and when it cannot be read."""
    attribute = model.get(_NUMBER_OF_FRAMES)
    values = attribute.get("Value") if isinstance(attribute, dict) else None
    try:
        return int(values[0]) if isinstance(values, list) and values else 1
    except (TypeError, ValueError, OverflowError):
        return 1


def _uid(model: DicomJson, tag: str) -> str:
    attribute = model.get(tag)
    values = attribute.get("Value") if isinstance(attribute, dict) else None
    if values and not (isinstance(values, list) and isinstance(values[0], str)):
        raise MissingIdentifier(f"attribute {tag} is no UID")
    return clean_uid(values[0]) if values else ""
