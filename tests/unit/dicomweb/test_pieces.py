"""Sending pieces of stored files: order, bounded memory, and no short body passed off as complete."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest

from imaging_services.adapters.memory.object_store import MemoryObjectStore
from imaging_services.apps.dicomweb_ingestion.pieces import IN_MEMORY_BYTES, Piece, PieceSender
from imaging_services.domain.budget import ByteBudget
from imaging_services.domain.errors import BackendUnavailable, NotFound
from imaging_services.domain.manifest.query import InstanceLocation
from imaging_services.domain.retrieve.stored_file import StoredFile

MIB = 1024 * 1024


class Endless(MemoryObjectStore):
    """Objects of zeros as long as anyone asks; remembers the largest read into memory."""

    largest_get = 0

    async def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        assert length is not None
        self.largest_get = max(self.largest_get, length)
        return bytes(length)

    async def stream(self, key: str, start: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        assert length is not None
        for position in range(0, length, MIB):
            yield bytes(min(MIB, length - position))


def a_file(store: MemoryObjectStore, key: str, size: int) -> StoredFile:
    place = InstanceLocation(
        "1", "1.1", "1.1.1", "1.2", "1.2.840.10008.1.2.1", "north", key, None, size, None, None, datetime.now(UTC)
    )
    return StoredFile(store, place, size)


async def test_pieces_keep_their_order_and_lead() -> None:
    store = MemoryObjectStore()
    store.objects = {str(number): bytes([number]) * 100_000 for number in range(20)}
    files = [a_file(store, str(number), 100_000) for number in range(20)]
    written = bytearray()

    async def write(block: bytes) -> None:
        written.extend(block)

    budget = ByteBudget(250_000)
    await PieceSender(budget, 8).send([Piece(b"<", file, 10, 99_000) for file in files], write)
    assert bytes(written) == b"".join(b"<" + bytes([number]) * 99_000 for number in range(20))
    assert budget.try_take(250_000), "everything was given back"


async def test_large_pieces_are_never_held() -> None:
    store = Endless()
    sizes = [3 * MIB, 600 * MIB, IN_MEMORY_BYTES, 20 * MIB]
    received = 0

    async def write(block: bytes) -> None:
        nonlocal received
        assert len(block) <= IN_MEMORY_BYTES
        received += len(block)

    await PieceSender(ByteBudget(64 * MIB), 8).send([Piece(b"", a_file(store, "x", n), 0, n) for n in sizes], write)
    assert received == sum(sizes)
    assert store.largest_get == IN_MEMORY_BYTES


async def test_without_budget_pieces_are_streamed_at_their_turn() -> None:
    store = Endless()
    received = 0

    async def write(block: bytes) -> None:
        nonlocal received
        received += len(block)

    pieces = [Piece(b"", a_file(store, "x", MIB), 0, MIB) for _ in range(4)]
    await PieceSender(ByteBudget(0), 8).send(pieces, write)
    assert (received, store.largest_get) == (4 * MIB, 0)


@pytest.mark.parametrize("budget", [0, 64 * MIB], ids=["streamed", "in memory"])
async def test_an_object_that_is_shorter_than_recorded_is_an_error(budget: int) -> None:
    store = MemoryObjectStore()
    store.objects["x"] = bytes(10)

    async def write(_block: bytes) -> None:
        """Whatever is sent until then."""

    with pytest.raises(BackendUnavailable, match="shorter"):
        await PieceSender(ByteBudget(budget), 8).send([Piece(b"", a_file(store, "x", 11), 0, 11)], write)


async def test_the_budget_is_given_back_when_something_fails() -> None:
    store = MemoryObjectStore()
    store.objects["x"] = bytes(1000)
    budget = ByteBudget(10_000)

    async def write(_block: bytes) -> None:
        """Whatever is sent until then."""

    pieces = [Piece(b"", a_file(store, key, 1000), 0, 1000) for key in ("x", "gone", "x", "x")]
    with pytest.raises(NotFound):
        await PieceSender(budget, 8).send(pieces, write)
    assert budget.try_take(10_000)
