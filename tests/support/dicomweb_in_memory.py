"""The whole DICOMweb service on memory: the routers of ``main`` over in-memory storage space, manifest and sink."""

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from fastapi import APIRouter

from imaging_services.adapters.http.guard import Guard
from imaging_services.adapters.memory.manifest import MemoryManifest
from imaging_services.adapters.memory.object_store import MemoryObjectStore
from imaging_services.apps.dicomweb_ingestion.app import build_app
from imaging_services.apps.dicomweb_ingestion.delete import ObjectRemover
from imaging_services.apps.dicomweb_ingestion.routers import routers
from imaging_services.apps.dicomweb_ingestion.settings import Settings
from imaging_services.domain.events.envelope import CloudEvent
from support.dicom_files import DicomFile
from support.dicomweb import PROVIDER, part10_of
from support.http_server import serving

_BOUNDARY = "edge-of-a-part"


class RecordingSink:
    """Hands events to the manifest, as the event processor does."""

    def __init__(self, manifest: MemoryManifest) -> None:
        self._manifest = manifest

    async def send(self, event: CloudEvent) -> None:
        (refused,) = await self._manifest.record([event])
        if refused is not None:
            raise refused

    async def close(self) -> None:
        """Nothing is open."""


def routers_in_memory(folder: Path, *, role: str = "all", **settings: Any) -> Mapping[str, Sequence[APIRouter]]:
    """What a service of this role serves."""
    manifest, space = MemoryManifest("test"), MemoryObjectStore()
    chosen = Settings(DICOMWEB_ROLE=role, PROVIDER_NAME=PROVIDER, SPOOL_DIR=folder, **settings)
    sink = RecordingSink(manifest) if chosen.stores or chosen.DICOMWEB_DELETE else None
    remover = ObjectRemover(manifest, space, PROVIDER) if chosen.DICOMWEB_DELETE else None
    return routers(chosen, space, sink, manifest if chosen.reads else None, remover=remover)


def service_in_memory(folder: Path, cors_origins: Sequence[str] = (), **settings: Any) -> Any:
    """The ASGI application."""
    return Guard(build_app(routers_in_memory(folder, **settings), cors_origins))


@contextmanager
def service_in_a_thread(folder: Path, port: int = 0, **settings: Any) -> Iterator[str]:
    """The service's URL, for clients that block; it has an event loop and a thread of its own."""
    url: Future[str] = Future()
    stop: Future[asyncio.Event] = Future()

    async def serve() -> None:
        event = asyncio.Event()
        stop.set_result(event)
        async with serving(service_in_memory(folder, **settings), port) as base:
            url.set_result(base)
            await event.wait()

    loop = asyncio.new_event_loop()
    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(loop.run_until_complete, serve())
        try:
            running.add_done_callback(lambda ended: url.done() or url.set_exception(ended.exception() or EOFError()))
            yield url.result(60)
        finally:
            loop.call_soon_threadsafe(stop.result(60).set)
            running.result(60)
            loop.close()


async def store(client: httpx.AsyncClient, files: Iterable[DicomFile]) -> None:
    """Store files in one request to ``studies`` below the client's base URL."""
    delimiter = f"--{_BOUNDARY}".encode()
    parts = [delimiter + b"\r\nContent-Type: application/dicom\r\n\r\n" + part10_of(file) + b"\r\n" for file in files]
    content_type = f'multipart/related; type="application/dicom"; boundary={_BOUNDARY}'
    body = b"".join([*parts, delimiter + b"--\r\n"])
    answer = await client.post("studies", content=body, headers={"content-type": content_type})
    assert answer.status_code == 200, answer.text
