"""Deflated data sets (PS3.5 section A.5), inflated into memory: nothing in them can be found by its offset."""

import asyncio
import weakref
import zlib

from imaging_services.domain.budget import ByteBudget
from imaging_services.domain.dicom.part10 import file_meta, read_file_head
from imaging_services.domain.dicom.transfer_syntaxes import EXPLICIT_VR_LITTLE_ENDIAN
from imaging_services.domain.errors import OutOfResources, PermanentError
from imaging_services.domain.manifest.query import InstanceLocation
from imaging_services.domain.ports import ObjectStore

INFLATED_LIMIT = 256 * 1024 * 1024
"""Longest inflated data set, bytes."""
INFLATED = ByteBudget(2 * INFLATED_LIMIT)
"""All that a process holds at once."""
_STEP = 1024 * 1024
_LONGEST_HEAD = 2 * 1024 * 1024


class Inflated(bytearray):
    """A file whose bytes are given back to the budget when nobody refers to it any more."""


async def inflated(store: ObjectStore, location: InstanceLocation, budget: ByteBudget = INFLATED) -> Inflated:
    """The file with its data set inflated, as Explicit VR Little Endian; the deflated one is not held.

    Raises ``OutOfResources`` when other requests hold too much, ``PermanentError`` for one that is too long or broken.
    """
    meta = file_meta(
        sop_class_uid=location.sop_class_uid,
        sop_instance_uid=location.sop_instance_uid,
        transfer_syntax=EXPLICIT_VR_LITTLE_ENDIAN,
    )
    content, inflater, start = Inflated(meta), zlib.decompressobj(-zlib.MAX_WBITS), None
    held, left, full = 0, b"", False
    try:
        async for block in store.stream(location.object_name):
            left += block
            if start is None:
                start = _data_set(left)
                if start is None:
                    continue
                left = left[start:]
            while (left or full) and not inflater.eof:
                more = await asyncio.to_thread(_inflate, inflater, left)
                if len(content) + len(more) > INFLATED_LIMIT:
                    raise PermanentError("the inflated data set is too long")
                if not budget.try_take(len(more)):
                    raise OutOfResources("too many deflated data sets are read at once")
                held += len(more)
                content += more
                left, full = inflater.unconsumed_tail, len(more) == _STEP  # then there may be more of the same input
            left = b""
    except BaseException:
        budget.give_back(held)
        raise
    weakref.finalize(content, budget.give_back, held)
    return content


def _inflate(inflater: "zlib._Decompress", block: bytes) -> bytes:
    try:
        return inflater.decompress(block, _STEP)
    except zlib.error as error:
        raise PermanentError(f"the deflated data set cannot be inflated: {error}") from None


def _data_set(head: bytes) -> int | None:
    """Where the data set begins; None when more bytes may tell."""
    found = read_file_head(head, ended=len(head) > _LONGEST_HEAD)
    return None if found is None else found.data_set
