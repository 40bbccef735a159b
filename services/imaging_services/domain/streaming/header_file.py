"""The header of a stored file as a Part 10 file of its own: every element below a tag, and nothing of the others."""

import struct
import zlib
from dataclasses import dataclass
from typing import BinaryIO, cast

from pydicom.filereader import read_partial
from pydicom.tag import BaseTag

from imaging_services.domain.dicom.header import DEFER_BYTES
from imaging_services.domain.dicom.part10 import MAX_META_LENGTH, PREAMBLE_LENGTH, file_meta, read_file_head
from imaging_services.domain.dicom.range_file import RangeFile
from imaging_services.domain.dicom.transfer_syntaxes import encoding_of
from imaging_services.domain.errors import PermanentError
from imaging_services.domain.manifest.query import InstanceLocation

_SPECIFIC_CHARACTER_SET = 0x00080005
_META_BYTES = 8192  # more than any file meta that has no private information
_PREFIX = b"DICM"
_GROUP_LENGTH = b"\x02\x00\x00\x00UL\x04\x00"


@dataclass(frozen=True, slots=True)
class HeaderFile:
    """``head``, then ``length`` bytes of the stored file from ``start``. ``deflated``: the file was read inflated, and
    these bytes are to be deflated again."""

    head: bytes
    start: int
    length: int
    deflated: bool


def read_header_file(file: RangeFile, location: InstanceLocation, stop_tag: int) -> HeaderFile:
    """Find the elements below ``stop_tag``, of which no value is read. Raises ``PermanentError`` for a broken file."""
    deflated = encoding_of(location.transfer_syntax_uid).deflated
    meta = _meta(file)
    start = len(meta)
    file.seek(0)
    try:
        read_partial(
            cast(BinaryIO, file),
            stop_when=lambda tag, _vr, _length: tag >= stop_tag,
            defer_size=DEFER_BYTES,
            force=True,
            specific_tags=[BaseTag(_SPECIFIC_CHARACTER_SET)],
        )
    except Exception as error:
        raise PermanentError(f"the stored file cannot be read as DICOM: {type(error).__name__}") from error
    end = max(start, min(file.tell(), file.size))
    return HeaderFile(_head(meta, location, deflated=deflated), start, end - start, deflated)


def _meta(file: RangeFile) -> bytes:
    """All that stands before the data set."""
    size = _META_BYTES
    while True:
        beginning = file.read_at(0, min(size, file.size), ahead=0)
        found = read_file_head(beginning, ended=len(beginning) == file.size or size > MAX_META_LENGTH)
        if found is not None:
            return beginning[: found.data_set]
        size *= 4


def deflated_data_set(data_set: bytes) -> bytes:
    """A data set as Deflated Explicit VR Little Endian has it (PS3.5 section A.5)."""
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    packed = packer.compress(data_set) + packer.flush()
    return packed + b"\0" if len(packed) % 2 else packed


def _head(stored: bytes, location: InstanceLocation, *, deflated: bool) -> bytes:
    """An empty preamble and the stored file meta elements behind a group length that is right."""
    elements = stored[PREAMBLE_LENGTH + len(_PREFIX) :]
    if stored[PREAMBLE_LENGTH : PREAMBLE_LENGTH + len(_PREFIX)] != _PREFIX or not elements or deflated:
        return file_meta(
            sop_class_uid=location.sop_class_uid,
            sop_instance_uid=location.sop_instance_uid,
            transfer_syntax=location.transfer_syntax_uid,
        )
    if elements.startswith(_GROUP_LENGTH):
        elements = elements[len(_GROUP_LENGTH) + 4 :]
    return bytes(PREAMBLE_LENGTH) + _PREFIX + _GROUP_LENGTH + struct.pack("<L", len(elements)) + elements
