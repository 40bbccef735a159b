"""Reading ahead, reading in ranges, and the bytes of parts."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imaging_services.apps.dicomweb_ingestion.read_ahead import in_order
from imaging_services.domain.budget import ByteBudget
from imaging_services.domain.dicom.byte_order import ByteSwapper, swapped
from imaging_services.domain.dicom.multipart_writer import MultipartWriter
from imaging_services.domain.dicom.pixel_layout import align_bits
from imaging_services.domain.dicom.range_file import RangeFile


async def test_results_come_in_order_and_only_so_many_run() -> None:
    running, most, used = 0, 0, []

    async def work(number: int) -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.001 * (10 - number))
        running -= 1
        return number

    async def use(number: int) -> None:
        used.append(number)

    await in_order(range(10), work, use, ahead=3)
    assert used == list(range(10))
    assert most == 3


async def test_an_error_cancels_what_is_under_way() -> None:
    cancelled = []

    async def work(number: int) -> int:
        try:
            await asyncio.sleep(0.001 if number == 0 else 30)
        except asyncio.CancelledError:
            cancelled.append(number)
            raise
        raise OSError("gone")

    async def use(_number: int) -> None:
        raise AssertionError("nothing succeeded")

    with pytest.raises(OSError, match="gone"):
        await in_order(range(10), work, use, ahead=4)
    assert cancelled == [1, 2, 3]


def test_a_budget_says_no_instead_of_waiting() -> None:
    budget = ByteBudget(10)
    assert budget.try_take(6)
    assert not budget.try_take(6)
    budget.give_back(6)
    assert budget.try_take(10)


@given(
    content=st.binary(min_size=1, max_size=300),
    head=st.integers(0, 300),
    reads=st.lists(st.tuples(st.integers(0, 320), st.integers(-1, 320)), max_size=20),
)
def test_a_range_file_reads_like_a_file(content: bytes, head: int, reads: list[tuple[int, int]]) -> None:
    file = RangeFile(content[:head], len(content), lambda start, length: content[start : start + length], block=16)
    for position, length in reads:
        file.seek(position)
        expected = content[position:] if length < 0 else content[position : position + length]
        assert file.read(length) == expected
        assert file.tell() == position + len(expected)


def test_a_range_file_fetches_only_what_is_touched() -> None:
    fetched: list[tuple[int, int]] = []

    def fetch(start: int, length: int) -> bytes:
        fetched.append((start, length))
        return bytes(length)

    file = RangeFile(bytes(100), 10_000_000, fetch, block=1000)
    file.read_at(0, 100)
    file.read_at(5_000_000, 8)
    file.read_at(5_000_100, 8)
    assert fetched == [(5_000_000, 1000)]


@given(words=st.lists(st.binary(min_size=4, max_size=4), max_size=50), cuts=st.lists(st.integers(1, 7), max_size=60))
def test_a_stream_is_swapped_wherever_it_is_cut(words: list[bytes], cuts: list[int]) -> None:
    content = b"".join(words)
    swapper, position, got = ByteSwapper(4), 0, b""
    for cut in [*cuts, len(content)]:
        got += swapper.feed(content[position : position + cut])
        position += cut
    assert got + swapper.end() == b"".join(word[::-1] for word in words) == swapped(content, 4)


def test_bits_are_aligned_from_the_least_significant() -> None:
    assert align_bits(bytes([0b10110100, 0b00000001]), 3, 6) == bytes([0b110110])


def test_parts_are_written_as_the_standard_says() -> None:
    writer = MultipartWriter("edge")
    body = writer.head({"Content-Type": "text/plain"}, first=True) + b"one" + writer.head({}, first=False) + b"two"
    assert body + writer.end == b"--edge\r\nContent-Type: text/plain\r\n\r\none\r\n--edge\r\n\r\ntwo\r\n--edge--\r\n"
    assert writer.content_type("text/plain") == 'multipart/related; type="text/plain"; boundary=edge'
