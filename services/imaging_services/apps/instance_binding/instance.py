"""An instance on its way from a storage space to a target: a Part 10 file in a spool."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from imaging_services.domain.dicom.elements import SOP_CLASS_UID, SOP_INSTANCE_UID, guess_encoding
from imaging_services.domain.dicom.part10 import MAX_META_LENGTH, read_file_head
from imaging_services.domain.dicom.transfer_syntaxes import native_transfer_syntax
from imaging_services.domain.dicom.uids import require_uid
from imaging_services.domain.errors import NotDicom
from imaging_services.domain.ingest.heading import look
from imaging_services.domain.ports import Spool

BLOCK = 1024 * 1024
"""Bytes read from a spool file at a time."""
_LOOKED_AT = MAX_META_LENGTH + 64 * 1024


@dataclass(frozen=True, slots=True)
class Instance:
    """A Part 10 file of ``size`` bytes; its data set begins at byte ``data_set``."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax: str
    body: bytes | Path
    size: int
    data_set: int

    def file(self) -> AsyncIterator[bytes]:
        """The whole file, in blocks."""
        return _blocks(self.body, 0)

    def data_set_blocks(self) -> AsyncIterator[bytes]:
        """The data set without preamble and file meta, in blocks."""
        return _blocks(self.body, self.data_set)


async def instance_of(spool: Spool, declared: str | None) -> Instance:
    """Read from a filled spool what a target needs to know.

    The transfer syntax is the file meta header's, else ``declared``, else the look of the data set. Raises
    ``NotDicom`` or ``MissingIdentifier``.
    """
    body = await spool.body()
    head = await _head(body)
    found = read_file_head(head, ended=len(head) == spool.size)
    if found is None:
        raise NotDicom("broken file meta header: it does not end")
    data_set = head[found.data_set :]
    transfer_syntax = found.transfer_syntax or declared or native_transfer_syntax(guess_encoding(data_set[:8]))
    header, _ = look(data_set, transfer_syntax, ended=False)
    return Instance(
        sop_class_uid=require_uid("SOP Class UID", header.uid(SOP_CLASS_UID)),
        sop_instance_uid=require_uid("SOP Instance UID", header.uid(SOP_INSTANCE_UID)),
        transfer_syntax=transfer_syntax,
        body=body,
        size=spool.size,
        data_set=found.data_set,
    )


async def _head(body: bytes | Path) -> bytes:
    if isinstance(body, bytes):
        return body[:_LOOKED_AT]
    return await asyncio.to_thread(_read, body, 0, _LOOKED_AT)


async def _blocks(body: bytes | Path, start: int) -> AsyncIterator[bytes]:
    if isinstance(body, bytes):
        yield body[start:] if start else body
        return
    while block := await asyncio.to_thread(_read, body, start, BLOCK):
        yield block
        start += len(block)


def _read(path: Path, start: int, length: int) -> bytes:
    with path.open("rb") as file:
        file.seek(start)
        return file.read(length)
