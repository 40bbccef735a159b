"""WADO-RS: metadata of instances as DICOM JSON or Native DICOM Model (PS3.18 section 10.4.1.1.4)."""

import asyncio
import json
from collections import OrderedDict
from collections.abc import Sequence

import orjson
from starlette.requests import Request
from starlette.responses import Response

from imaging_services.apps.dicomweb_ingestion.negotiation import Representation, choose_document
from imaging_services.apps.dicomweb_ingestion.pieces import Write
from imaging_services.apps.dicomweb_ingestion.read_ahead import in_order
from imaging_services.apps.dicomweb_ingestion.resources import instance_url
from imaging_services.apps.dicomweb_ingestion.responses import Pushed, boundary_of, not_modified, validators
from imaging_services.domain.dicom.json_model import BulkPath, JsonModel, format_path
from imaging_services.domain.dicom.media_types import DICOM_XML
from imaging_services.domain.dicom.multipart_writer import MultipartWriter
from imaging_services.domain.dicom.native_model import native_dicom_model
from imaging_services.domain.dicom.range_file import RangeFile
from imaging_services.domain.dicom.trailing import read_data_set
from imaging_services.domain.errors import PermanentError
from imaging_services.domain.manifest.query import DicomJson, InstanceLocation
from imaging_services.domain.ports import ObjectStore
from imaging_services.domain.retrieve.stored_file import open_stored


class DocumentCache:
    """Encoded documents by object and URLs, up to so many bytes; the least recently used go first. Object names are
    digests, so a document never goes stale."""

    def __init__(self, limit: int) -> None:
        self._limit, self._held = limit, 0
        self._documents: OrderedDict[tuple[str, str, bool], bytes] = OrderedDict()

    def get(self, key: tuple[str, str, bool]) -> bytes | None:
        """The document, or None."""
        document = self._documents.get(key)
        if document is not None:
            self._documents.move_to_end(key)
        return document

    def put(self, key: tuple[str, str, bool], document: bytes) -> None:
        """Keep a document, at the cost of older ones."""
        if key in self._documents or len(document) > self._limit // 16:
            return
        self._documents[key] = document
        self._held += len(document)
        while self._held > self._limit:
            self._held -= len(self._documents.popitem(last=False)[1])


class MetadataRetriever:
    """Reads headers; ``concurrency`` bounds how many at once, over all requests."""

    def __init__(self, store: ObjectStore, concurrency: int, cache_bytes: int = 0) -> None:
        self._store = store
        self._cache = DocumentCache(cache_bytes)
        self._concurrency = concurrency
        self._turns = asyncio.Semaphore(concurrency)

    async def answer(self, request: Request, locations: Sequence[InstanceLocation], base: str) -> Response:
        """Stream one document or part an instance."""
        chosen = choose_document(request)
        headers = validators(locations, "metadata", chosen, base)
        unchanged = not_modified(request, headers)
        if unchanged is not None:
            return unchanged
        if chosen.multipart:
            return self._xml(locations, base, headers)
        return self._json(locations, base, headers, chosen)

    def _json(
        self,
        locations: Sequence[InstanceLocation],
        base: str,
        headers: dict[str, str],
        chosen: Representation,
    ) -> Response:
        async def produce(write: Write) -> None:
            separator = b"["

            async def emit(document: bytes) -> None:
                nonlocal separator
                await write(separator + document)
                separator = b","

            await in_order(locations, lambda one: self._encoded(one, base, xml=False), emit, ahead=self._concurrency)
            await write(b"]")

        return Pushed(produce, chosen.media_type, headers)

    def _xml(self, locations: Sequence[InstanceLocation], base: str, headers: dict[str, str]) -> Response:
        writer = MultipartWriter(boundary_of(headers))

        async def produce(write: Write) -> None:
            first = True

            async def emit(document: bytes) -> None:
                nonlocal first
                await write(writer.head({"Content-Type": DICOM_XML}, first=first) + document)
                first = False

            await in_order(locations, lambda one: self._encoded(one, base, xml=True), emit, ahead=self._concurrency)
            await write(writer.end)

        return Pushed(produce, writer.content_type(DICOM_XML), headers)

    async def _encoded(self, location: InstanceLocation, base: str, *, xml: bool) -> bytes:
        prefix = f"{instance_url(base, location)}/bulkdata/"
        key = (location.object_name, prefix, xml)
        document = self._cache.get(key)
        if document is None:
            async with self._turns:
                file = await open_stored(self._store, location)
                document = await file.inspect(lambda header: _encode(header, prefix, xml=xml))
            self._cache.put(key, document)
        return document


def _encode(file: RangeFile, prefix: str, *, xml: bool) -> bytes:
    try:
        document = read_metadata(file, prefix)
        return native_dicom_model(document) if xml else _json(document)
    except RecursionError:
        raise PermanentError("sequences of the instance are nested too deeply") from None


def _json(document: DicomJson) -> bytes:
    try:
        return orjson.dumps(document)
    except orjson.JSONEncodeError:  # it writes 254 levels at most, and a sequence takes four
        return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def read_metadata(file: RangeFile, bulk_data_prefix: str) -> DicomJson:
    """The data set in the order of tags, with a BulkDataURI for each value left out."""

    def bulk_uri(path: BulkPath) -> str:
        return bulk_data_prefix + format_path(path)

    dataset, pixels = read_data_set(file)
    document = JsonModel(file, bulk_uri).convert(dataset)
    if pixels is not None:
        document[f"{pixels.tag:08X}"] = {"vr": pixels.vr, "BulkDataURI": bulk_uri((pixels.tag,))}
    return dict(sorted(document.items()))
