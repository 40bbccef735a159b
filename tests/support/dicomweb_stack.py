"""DICOMweb service and event processor over real NATS, PostgreSQL and S3, within a test."""

import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from imaging_services.apps.dicomweb_ingestion import main as dicomweb
from imaging_services.apps.dicomweb_ingestion.settings import Settings as DicomwebSettings
from imaging_services.apps.event_driven_ingestion import main as processor
from imaging_services.apps.event_driven_ingestion.settings import Settings as ProcessorSettings
from support.azurite import Azurite
from support.dicom_files import DicomFile
from support.ports import a_free_port
from support.services import running

BOUNDARY = "edge-of-a-part"


@asynccontextmanager
async def dicomweb_stack(
    nats: Any, database: Any, s3: Any, bucket: str, folder: Path, *, direct: bool = True, **settings: Any
) -> AsyncIterator[str]:
    """Gives the root URL. ``s3`` and ``bucket`` may be Azurite and a container. ``direct``: the service reads and
    records in PostgreSQL itself, else by way of the event processor."""
    events = {"EVENTS_NATS_URL": nats.url, "EVENTS_NATS_SUBJECT_ROOT": f"t{uuid.uuid4().hex}"}
    events["EVENTS_STREAM"] = uuid.uuid4().hex
    db = {
        "DB_HOST": database.host,
        "DB_PORT": database.port,
        "DB_NAME": database.name,
        "DB_USER": database.user,
        "DB_PASS": database.password,
    }
    processor_port, port = a_free_port(), settings.pop("HTTP_PORT", None) or a_free_port()
    query = {"QUERY_ENDPOINT": f"http://127.0.0.1:{processor_port}/query"}
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(
            running(processor.main, ProcessorSettings(**events, **db, HTTP_PORT=processor_port))
        )
        served = DicomwebSettings(
            **events,
            **({**db, "EVENTS_RECORDED_BY": "service"} if direct else query),
            BUCKET_CONFIG_PATH=write_bucket(folder, s3, bucket),
            PROVIDER_NAME="north",
            HTTP_PORT=port,
            SPOOL_DIR=folder,
            **settings,
        )
        await stack.enter_async_context(running(dicomweb.main, served))
        yield f"http://127.0.0.1:{port}"


def write_bucket(folder: Path, s3: Any, bucket: str) -> Path:
    """The storage space's keys as mounted files."""
    directory = folder / "bucket"
    if isinstance(s3, Azurite):
        return s3.write_keys(directory, bucket)
    directory.mkdir(exist_ok=True)
    host, port = s3.endpoint.rsplit(":", 1)
    keys = {
        "BUCKET_HOST": host,
        "BUCKET_PORT": port,
        "BUCKET_REGION": s3.region,
        "BUCKET_NAME": bucket,
        "AWS_ACCESS_KEY_ID": s3.access_key_id,
        "AWS_SECRET_ACCESS_KEY": s3.secret_access_key,
    }
    for name, value in keys.items():
        (directory / name).write_text(value)
    return directory


async def stow(client: httpx.AsyncClient, files: list[DicomFile], folder: Path) -> httpx.Response:
    """Store files in one request."""
    body = b""
    for number, file in enumerate(files):
        content = file.write_part10(folder / f"{number}.dcm").read_bytes()
        body += b"--" + BOUNDARY.encode() + b"\r\nContent-Type: application/dicom\r\n\r\n" + content + b"\r\n"
    return await client.post(
        "studies",
        content=body + b"--" + BOUNDARY.encode() + b"--\r\n",
        headers={"content-type": f'multipart/related; type="application/dicom"; boundary={BOUNDARY}'},
    )
