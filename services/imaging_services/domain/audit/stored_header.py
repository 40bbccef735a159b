"""The heading of an object in a storage space, by reading no more of it than its header."""

from collections.abc import AsyncIterator

from imaging_services.domain.dicom.elements import guess_encoding
from imaging_services.domain.dicom.part10 import FileHead, read_file_head
from imaging_services.domain.dicom.transfer_syntaxes import native_transfer_syntax
from imaging_services.domain.errors import InvalidInput, NotDicom
from imaging_services.domain.ingest.heading import Heading, complete_heading, heading_within, take_heading
from imaging_services.domain.ports import ObjectInfo, ObjectStore, Spools

FIRST_LOOK = 8 * 1024
"""Bytes that are read first: most headers end within them."""
_LOOKS = (FIRST_LOOK, 64 * 1024, 512 * 1024)


async def stored_heading(space: ObjectStore, info: ObjectInfo, spools: Spools) -> Heading:
    """The heading that the instance had when it was stored.

    Raises ``NotFound`` when the object has vanished, ``NotDicom``, ``MissingIdentifier``, ``InvalidInput`` when its
    file meta header is none that this product writes, and what the space raises.
    """
    for length in _LOOKS:
        head = await space.get(info.key, 0, min(length, info.size))
        ended = len(head) >= info.size
        file = read_file_head(head, ended=ended)
        if file is not None:
            heading = heading_within(head[file.data_set :], _declared(file, head), ended=ended)
            if heading is not None:
                return _ours(heading, file)
    return await _whole(space, info, spools)


async def _whole(space: ObjectStore, info: ObjectInfo, spools: Spools) -> Heading:
    """For headers with long values, which scanning has to pass by: the object is read."""
    head = await space.get(info.key, 0, _LOOKS[-1])
    file = read_file_head(head, ended=True)
    if file is None:
        raise NotDicom("the file meta header does not end")
    async with spools.open() as spool:
        async for block in space.stream(info.key):
            await spool.write(block)
        heading = await take_heading(_behind(space, info, file), _declared(file, head))
        return _ours(await complete_heading(heading, await spool.body()), file)


async def _behind(space: ObjectStore, info: ObjectInfo, file: FileHead) -> AsyncIterator[bytes]:
    async for block in space.stream(info.key, file.data_set):
        yield block


def _declared(file: FileHead, head: bytes) -> str:
    return file.transfer_syntax or native_transfer_syntax(guess_encoding(head[file.data_set : file.data_set + 8]))


def _ours(heading: Heading, file: FileHead) -> Heading:
    if len(heading.meta) != file.data_set:
        raise InvalidInput("the file meta header is none that this product writes")
    return heading
