"""Data sets that are made to crash, stall or fill up whoever parses them, and ways of sending them."""

import asyncio
import struct
import zlib
from dataclasses import dataclass

import httpx
import nats
import pydicom
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, ImplicitVRLittleEndian, generate_uid

from imaging_services.adapters.dimse.requestor import RemoteAE
from imaging_services.adapters.nats.relay_dead_letters import list_relay_dead_letters
from imaging_services.domain.dicom.command_set import store_request
from imaging_services.domain.dicom.dimse import ProposedContext
from imaging_services.domain.errors import ImagingError
from imaging_services.domain.relay.subjects import RelaySubjects
from support.instances import blocks, element, encoded, instance
from support.stack import Stack

DEFLATED = "1.2.840.10008.1.2.1.99"
ANSWER_SECONDS = 60


@dataclass(frozen=True)
class Poison:
    """One data set, as bytes of its transfer syntax."""

    name: str
    sop_instance_uid: str
    content: bytes
    transfer_syntax: str = ExplicitVRLittleEndian

    @property
    def part10(self) -> bytes:
        """As a file."""
        meta = pydicom.dataset.FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, self.sop_instance_uid
        meta.TransferSyntaxUID = self.transfer_syntax
        buffer = pydicom.filebase.DicomBytesIO()
        pydicom.filewriter.write_file_meta_info(buffer, meta)
        return bytes(128) + b"DICM" + buffer.getvalue() + self.content


def poisons() -> list[Poison]:
    """One of each kind, with fresh UIDs."""
    return [
        _poison("sequences nested 20,000 deep, lengths undefined", _nested(20_000)),
        _poison("sequences nested 20,000 deep in implicit VR", _nested_implicit(20_000), ImplicitVRLittleEndian),
        _poison("a length of almost 4 GiB", element(0x0009_1001, b"OB", b"short", 0xFFFF_FFF0)),
        _poison("a UID with the length of the rest", element(0x0009_1001, b"UI", b"1.2", 0xFFFE)),
        _poison("a sequence that never ends", element(0x0009_1001, b"SQ", b"", 0xFFFF_FFFF) + bytes(200_000)),
        _poison("100,000 private elements", b"".join(map(_tiny, range(100_000)))),
        _poison("a private element of 12 MiB", element(0x0009_1001, b"UN", bytes(12 << 20))),
        _deflated("256 MiB of zeros in a quarter of a MiB", element(0x0009_1001, b"OB", b"", 256 << 20), 256),
    ]


def _head(uid: str) -> bytes:
    """The elements up to group 0009, with which every instance of this kind begins."""
    whole = instance(SOPInstanceUID=uid)
    return encoded(whole[:0x0009_0000])


def _tail(uid: str) -> bytes:
    whole = instance(SOPInstanceUID=uid)
    return encoded(whole[0x0009_0000:])


def _poison(name: str, content: bytes, syntax: str = ExplicitVRLittleEndian) -> Poison:
    uid = generate_uid()
    if syntax == ImplicitVRLittleEndian:
        whole = instance(SOPInstanceUID=uid)
        return Poison(
            name, uid, encoded(whole[:0x0009_0000], syntax) + content + encoded(whole[0x0009_0000:], syntax), syntax
        )
    return Poison(name, uid, _head(uid) + content + _tail(uid))


def _deflated(name: str, heading: bytes, mebibytes: int) -> Poison:
    """Compressed block by block, so that the bomb does not go off here."""
    uid, packer = generate_uid(), zlib.compressobj(9, wbits=-15)
    packed = packer.compress(_head(uid) + heading)
    packed += b"".join(packer.compress(bytes(1 << 20)) for _ in range(mebibytes))
    return Poison(name, uid, packed + packer.compress(_tail(uid)) + packer.flush(), DEFLATED)


def _nested(depth: int) -> bytes:
    opening = element(0x0009_1001, b"SQ", b"", 0xFFFF_FFFF) + struct.pack("<HHL", 0xFFFE, 0xE000, 0xFFFF_FFFF)
    closing = struct.pack("<HHLHHL", 0xFFFE, 0xE00D, 0, 0xFFFE, 0xE0DD, 0)
    return opening * depth + closing * depth


def _nested_implicit(depth: int) -> bytes:
    opening = struct.pack("<HHLHHL", 0x0009, 0x1001, 0xFFFF_FFFF, 0xFFFE, 0xE000, 0xFFFF_FFFF)
    closing = struct.pack("<HHLHHL", 0xFFFE, 0xE00D, 0, 0xFFFE, 0xE0DD, 0)
    return opening * depth + closing * depth


def _tiny(number: int) -> bytes:
    return struct.pack("<HH2sHH", 0x0009 + 2 * (number // 0xE000), 0x1000 + number % 0xE000, b"US", 2, 7)


async def by_c_store(stack: Stack, entrance: str, poison: Poison) -> int | None:
    """The status; None when the association was refused or ended. Raises ``TimeoutError`` when nothing is said."""
    address = stack.ready[entrance]
    try:
        association = await RemoteAE(address["host"], address["port"]).associate(
            calling_ae_title="POISON",
            called_ae_title=address["ae_title"],
            contexts=(ProposedContext(1, CTImageStorage, (poison.transfer_syntax,)),),
        )
        request = store_request(CTImageStorage, poison.sop_instance_uid)
        response = await association.store(1, request, blocks(poison.content))
        await association.release()
    except ImagingError:
        return None
    return int(response.status)


async def by_stow(stack: Stack, poison: Poison) -> int:
    """The status code."""
    body = b"--b\r\nContent-Type: application/dicom\r\n\r\n" + poison.part10 + b"\r\n--b--\r\n"
    headers = {"Content-Type": 'multipart/related; type="application/dicom"; boundary=b'}
    async with httpx.AsyncClient(timeout=ANSWER_SECONDS) as client:
        response = await client.post(f"{stack.url('stow')}/studies", content=body, headers=headers)
    return response.status_code


def buried(stack: Stack) -> set[str]:
    """The SOP Instance UIDs of the relay's dead letters, which are taken away."""

    async def take() -> set[str]:
        client = await nats.connect(stack.ready["nats"])
        try:
            found = {letter.sop_instance_uid async for letter in list_relay_dead_letters(client, "DIMSE", "B")}
            await client.jetstream().purge_stream(RelaySubjects("DIMSE", "B").dead_letter_stream)
            return found
        finally:
            await client.close()

    return asyncio.run(take())
