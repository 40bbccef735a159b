"""The instance binding's handler as its ``main`` wires it, and files to deliver."""

import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from imaging_services.adapters.files.spool import FileSpools
from imaging_services.adapters.http.client import HttpOptions, HttpTarget
from imaging_services.apps.instance_binding.deliver import DeliverInstance, Forwarder, Target
from imaging_services.apps.instance_binding.fetch import WadoSource
from imaging_services.domain.events.selector import Selector
from imaging_services.domain.pace import Pace
from support.dicom_files import DicomFile, storable_files

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    FILES = {file.path.name: file for file in storable_files()}
CT = FILES["CT_small.dcm"]
NAMES = ["CT_small.dcm", "MR_small.dcm", "SC_rgb_rle.dcm", "SC_rgb_jpeg_dcmtk.dcm", "examples_jpeg2k.dcm"]
SEVERAL = [FILES[name] for name in NAMES if name in FILES]


def copy_of(file: DicomFile, number: int) -> DicomFile:
    """The same instance under another SOP Instance UID of the same length."""
    uid = f"{file.sop_instance_uid[:-5]}{10000 + number}"
    return replace(
        file, sop_instance_uid=uid, data_set=file.data_set.replace(file.sop_instance_uid.encode(), uid.encode())
    )


@asynccontextmanager
async def forwarding(
    folder: Path, target: Target, *, selector: str = "", concurrency: int = 8, token: str = "", timeout: float = 20
) -> AsyncIterator[DeliverInstance]:
    """The handler as ``main`` wires it; whatever it spooled must be gone at the end."""
    folder.mkdir(exist_ok=True)
    async with HttpTarget("http://localhost", HttpOptions(timeout_seconds=timeout)) as wado:
        forwarder = Forwarder(WadoSource(wado, FileSpools(folder), token), target)
        yield DeliverInstance(forwarder, Selector.parse(selector), Pace(concurrency))
    assert list(folder.iterdir()) == []
