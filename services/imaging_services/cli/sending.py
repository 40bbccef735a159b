"""Sending Part 10 files by C-STORE, data sets undecoded."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pydicom
from pydicom.errors import InvalidDicomError

from imaging_services.adapters.dimse.pool import AssociationPool
from imaging_services.adapters.dimse.requestor import RemoteAE
from imaging_services.domain.dicom.dimse import Status
from imaging_services.domain.dicom.part10 import MAX_META_LENGTH, read_file_head
from imaging_services.domain.errors import ImagingError, NotDicom

_BLOCK = 256 * 1024
CALLING_AE = "IMAGING"


@dataclass(frozen=True)
class DicomFile:
    """A file that can be sent. ``data_set`` is where its data set begins, bytes."""

    path: Path
    data_set: int
    transfer_syntax: str
    sop_class_uid: str
    sop_instance_uid: str
    study_instance_uid: str
    series_instance_uid: str
    modality: str

    async def blocks(self) -> AsyncIterator[bytes]:
        """The encoded data set."""
        with await asyncio.to_thread(self.path.open, "rb") as file:
            file.seek(self.data_set)
            while block := await asyncio.to_thread(file.read, _BLOCK):
                yield block


@dataclass(frozen=True)
class Sent:
    """What became of a file: ``status`` is None when no response came; ``problem`` is empty after success."""

    file: DicomFile
    status: int | None
    problem: str = ""


def read_dicom_file(path: Path) -> DicomFile | None:
    """What a C-STORE needs to know of a file; None when it is not an instance that can be sent. Raises ``OSError`` when
    it cannot be read: nobody knows then whether it is one."""
    with path.open("rb") as file:
        beginning = file.read(MAX_META_LENGTH)
    try:
        head = read_file_head(beginning, ended=True)
        header = pydicom.dcmread(path, specific_tags=_TAGS, stop_before_pixels=True)
        values = {tag: str(header.get(tag) or "") for tag in _TAGS}
    except OSError as error:
        if error.errno is not None:  # the system's; pydicom's own has no number
            raise
        return None
    except (InvalidDicomError, NotDicom, ValueError, AttributeError, NotImplementedError):
        return None  # pydicom raises many kinds for files that are not DICOM
    if head is None or not head.transfer_syntax or not values["SOPClassUID"] or not values["SOPInstanceUID"]:
        return None
    return DicomFile(
        path,
        head.data_set,
        head.transfer_syntax,
        values["SOPClassUID"],
        values["SOPInstanceUID"],
        values["StudyInstanceUID"],
        values["SeriesInstanceUID"],
        values["Modality"],
    )


_TAGS = ["SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "Modality"]


def find_files(paths: Iterable[Path]) -> list[Path]:
    """The files named, and every file below the folders named."""
    found: list[Path] = []
    for path in paths:
        found += sorted(one for one in path.rglob("*") if one.is_file()) if path.is_dir() else [path]
    return found


async def send_files(
    files: Sequence[DicomFile],
    host: str,
    port: int,
    called: str,
    *,
    calling: str = CALLING_AE,
    associations: int = 1,
    sent: Callable[[Sent], None],
) -> None:
    """C-STORE each file once; ``sent`` hears of each, in the order in which they are done."""
    pool = AssociationPool(RemoteAE(host, port), calling, called, max_associations=associations)
    contexts = list(dict.fromkeys((file.sop_class_uid, file.transfer_syntax) for file in files))
    waiting = iter(files)

    async def work() -> None:
        for file in waiting:
            sent(await _send(pool, file, contexts))

    try:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(associations):
                tasks.create_task(work())
    finally:
        await pool.close()


async def _send(pool: AssociationPool, file: DicomFile, contexts: list[tuple[str, str]]) -> Sent:
    try:
        response = await pool.store(
            file.sop_class_uid, file.sop_instance_uid, file.transfer_syntax, file.blocks, extra_contexts=contexts
        )
    except (ImagingError, OSError) as error:
        return Sent(file, None, str(error))
    # PS3.4 annex B.2.3: B000H, B006H and B007H are warnings, the instance was stored.
    stored = response.status == Status.SUCCESS or response.status & 0xF000 == 0xB000
    return Sent(file, response.status, "" if stored else f"status {response.status:04X}H")
