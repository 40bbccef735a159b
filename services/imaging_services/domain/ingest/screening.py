"""A first look at an instance that somebody else will store: is it what its command says it is?"""

from collections.abc import AsyncIterable, AsyncIterator

from imaging_services.domain.dicom.command_set import CommandSet
from imaging_services.domain.dicom.elements import SOP_CLASS_UID, SOP_INSTANCE_UID, STUDY_INSTANCE_UID, Header
from imaging_services.domain.dicom.uids import clean_uid
from imaging_services.domain.errors import DataSetMismatch, NotDicom
from imaging_services.domain.ingest.heading import FIRST_LOOK, look, read_ahead


async def screen(
    blocks: AsyncIterable[bytes], transfer_syntax: str, command: CommandSet
) -> tuple[Header, AsyncIterator[bytes]]:
    """Read the head of a data set, and give back what it says and all blocks, unchanged. The header is that of the
    first 64 KiB.

    The sender is still there to be told: raises ``NotDicom`` when no UID of an instance can be read, and
    ``DataSetMismatch`` when SOP class or instance differ from the command's (PS3.4 section B.2.3).
    """
    iterator = aiter(blocks)
    head, ended = await read_ahead(iterator, b"", FIRST_LOOK)
    header, _ = look(head, transfer_syntax, ended=ended)
    _check(header, command)
    return header, _all(head, iterator)


def _check(header: Header, command: CommandSet) -> None:
    if not any(map(header.uid, (SOP_CLASS_UID, SOP_INSTANCE_UID, STUDY_INSTANCE_UID))):
        raise NotDicom("no data set: none of the UIDs that identify an instance can be read")
    for name, tag, wanted in (
        ("SOPClassUID", SOP_CLASS_UID, command.sop_class_uid),
        ("SOPInstanceUID", SOP_INSTANCE_UID, command.sop_instance_uid),
    ):
        found = header.uid(tag)
        if found and wanted and found != clean_uid(wanted):
            raise DataSetMismatch(f"{name} {found} of the data set is not the request's {clean_uid(wanted)}")


async def _all(head: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    if head:
        yield head
    async for block in rest:
        yield block
