"""Data sets on the relay compressed and unpacked again: without loss, bounded, and only where it pays."""

import hashlib
import os

import numpy as np
import pytest
import zstandard
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    JPEGLSLossless,
)

from imaging_services.adapters.nats.relay_compression import SPLIT, ZSTD, Compressor, content
from imaging_services.domain.errors import RetryableError
from imaging_services.domain.relay.messages import StoreMessage
from support.relay import blocks, call

CT = (np.arange(512 * 512) % 4096 + np.random.default_rng(1).integers(0, 16, 512 * 512)).astype("<i2").tobytes()
TEXT = b"A report says what was seen, in words of one byte a letter. " * 2000
COMPRESSOR = Compressor(1)


def message(data: bytes, *, size: int | None = None, encoding: str = ZSTD) -> StoreMessage:
    digest = hashlib.sha256(data).hexdigest()
    return StoreMessage(call(), "m", len(data) if size is None else size, digest, encoding=encoding)


async def read(store: StoreMessage, payload: bytes) -> bytes:
    return b"".join([block async for block in content(store, None, payload)()])


@pytest.mark.parametrize(
    ("syntax", "data", "encoding"),
    [
        (ExplicitVRLittleEndian, CT, SPLIT),
        (ExplicitVRBigEndian, CT, SPLIT),
        (ExplicitVRLittleEndian, TEXT, ZSTD),
        (ExplicitVRLittleEndian, CT[:3000], None),
        (ExplicitVRLittleEndian, os.urandom(200_000), None),
        (JPEGLSLossless, CT, None),
        (DeflatedExplicitVRLittleEndian, CT, None),
    ],
    ids=["ct", "big-endian", "text", "short", "noise", "jpeg-ls", "deflated"],
)
def test_when_it_pays(syntax, data, encoding):
    assert COMPRESSOR.encoding(syntax, data) == encoding


@pytest.mark.parametrize("encoding", [ZSTD, SPLIT])
@pytest.mark.parametrize("data", [CT, CT * 12, CT[:5001], CT * 2 + b"x"], ids=["ct", "long", "odd", "one-more"])
async def test_nothing_is_lost(data, encoding):
    packed = await COMPRESSOR.packed(data, encoding)
    assert len(packed) < 0.9 * len(data)
    assert await read(message(data, encoding=encoding), packed) == data
    packed = b"".join([block async for block in COMPRESSOR.packing(blocks(data, 70_001), encoding)])
    assert len(packed) < 0.9 * len(data)
    assert await read(message(data, encoding=encoding), packed) == data


async def test_it_is_one_zstandard_frame():
    packed = b"".join([block async for block in COMPRESSOR.packing(blocks(TEXT), ZSTD)])
    assert zstandard.ZstdDecompressor().decompressobj().decompress(packed) == TEXT


async def test_what_does_not_shrink_is_left_alone():
    assert await COMPRESSOR.packed(os.urandom(300_000), ZSTD) is None


@pytest.mark.parametrize("damage", ["cut", "changed", "nonsense", "longer", "other", "unknown"])
async def test_damage_is_noticed(damage):
    packed = await COMPRESSOR.packed(CT, ZSTD)
    store = message(CT)
    if damage == "cut":
        packed = packed[:-20]
    elif damage == "changed":
        packed = packed[:1000] + bytes([packed[1000] ^ 255]) + packed[1001:]
    elif damage == "nonsense":
        packed = b"no frame at all"
    elif damage == "longer":
        packed = zstandard.ZstdCompressor().compress(bytes(500_000_000 // 8))
    elif damage == "other":
        packed = await COMPRESSOR.packed(CT[::-1], ZSTD)
    else:
        store = message(CT, encoding="br")
    with pytest.raises(RetryableError):
        await read(store, packed)
