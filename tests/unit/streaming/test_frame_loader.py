"""Frames on demand: order, number of connections, memory, errors."""

import asyncio
from typing import Any

import pytest

from imaging_services.domain.errors import InvalidInput, NotFound
from imaging_services.domain.streaming import frame_loader
from imaging_services.domain.streaming.client import StreamedFrame
from imaging_services.domain.streaming.frame_loader import FrameLoader
from imaging_services.domain.streaming.study_reader import HeaderValue, StreamedInstance, StreamedStudy

ROWS = {0x00280010: HeaderValue("US", "2")}


def study_of(count: int, frames: int = 1) -> StreamedStudy:
    attributes = {**ROWS, 0x00280008: HeaderValue("IS", str(frames))}
    instances = [
        StreamedInstance("1.1", f"1.2.{n}", "1.3", "1.2.840.10008.1.2.1", "", 0, attributes) for n in range(count)
    ]
    return StreamedStudy("1", instances)


class Server:
    """Answers when it is told to, unless ``open``; notes what was asked for."""

    def __init__(self, *, open_: bool = True, size: int = 10) -> None:
        self.asked: list[int] = []
        self.at_once = self.most = 0
        self.missing: set[int] = set()
        self.gate = asyncio.Event()
        self.size = size
        if open_:
            self.gate.set()

    async def frame(
        self, _study: StreamedStudy, instance: StreamedInstance, index: int, _received: Any = None
    ) -> StreamedFrame:
        position = int(instance.sop_instance_uid.rpartition(".")[2]) * instance.frames + index
        self.asked.append(position)
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        try:
            await self.gate.wait()
            await asyncio.sleep(0)
            if position in self.missing:
                raise NotFound("no such frame")
            return StreamedFrame(instance, index, bytes(self.size), {})
        finally:
            self.at_once -= 1

    async def until_asked(self, count: int) -> None:
        while len(self.asked) < count:
            await asyncio.sleep(0)
        for _ in range(20):
            await asyncio.sleep(0)


def loader(server: Server, study: StreamedStudy, **options: int) -> FrameLoader:
    return FrameLoader(server, study, **options)  # type: ignore[arg-type]


async def test_every_frame_of_every_image_comes_once_when_read_in_order() -> None:
    server = Server()
    async with loader(server, study_of(20, frames=3), connections=4, ahead=8) as frames:
        assert len(frames.positions) == 60
        got = [await frames.get(position) for position in range(60)]
    assert [(one.instance.sop_instance_uid, one.index) for one in got] == [(f"1.2.{n // 3}", n % 3) for n in range(60)]
    assert sorted(server.asked) == list(range(60))
    assert 1 < server.most <= 4


async def test_what_is_not_an_image_has_no_frames() -> None:
    report = StreamedInstance("1.1", "1.2.9", "1.3", "1.2.840.10008.1.2.1", "", 0, {})
    async with loader(Server(), StreamedStudy("1", [report])) as frames:
        assert list(frames.positions) == []


async def test_nothing_is_fetched_ahead_while_somebody_waits() -> None:
    server = Server(open_=False)
    async with loader(server, study_of(100), connections=4, ahead=8) as frames:
        wanted = asyncio.create_task(frames.get(50))
        await server.until_asked(1)
        assert server.asked == [50]
        server.gate.set()
        await wanted
        await server.until_asked(9)
        assert sorted(server.asked) == list(range(50, 59))


async def test_a_jump_goes_before_what_was_to_come_next() -> None:
    server = Server()
    async with loader(server, study_of(100), connections=2, ahead=8) as frames:
        await frames.get(0)
        server.gate.clear()
        await server.until_asked(1)
        jump = asyncio.create_task(frames.get(90))
        await asyncio.sleep(0)
        server.gate.set()
        before = len(server.asked)
        await jump
        assert 90 in server.asked[before : before + 3]


async def test_who_jumps_about_has_one_frame_fetched_ahead_at_a_time_and_who_reads_on_has_more() -> None:
    server = Server()
    async with loader(server, study_of(200), connections=4, ahead=8) as frames:
        for number, position in enumerate((50, 10, 80), 1):
            await frames.get(position)
            await server.until_asked(9 * number)
        assert server.most == 1
        for position in range(120, 160):
            await frames.get(position)
        assert server.most == 4


async def test_a_frame_that_was_fetched_ahead_is_not_asked_for_again() -> None:
    server = Server()
    async with loader(server, study_of(10), connections=2, ahead=4) as frames:
        await frames.get(0)
        await server.until_asked(5)
        await frames.get(3)
        await server.until_asked(8)
        assert sorted(server.asked) == list(range(8))


async def test_memory_is_bounded_in_frames() -> None:
    server = Server()
    async with loader(server, study_of(500), connections=2, ahead=4) as frames:
        for position in [*range(200), *range(400, 300, -1)]:
            await frames.get(position)
            assert len(frames._frames) <= 2 * 4 + 2 + 2


async def test_memory_is_bounded_in_bytes_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frame_loader, "LARGEST_HELD", 5000)
    server = Server(size=1000)
    async with loader(server, study_of(60), connections=2, ahead=16) as frames:
        for position in range(60):
            await frames.get(position)
            await server.until_asked(1)
            assert frames._held <= 5000 + 2 * 1000
    assert sorted(server.asked) == list(range(60))


async def test_a_frame_that_fails_says_why_and_can_be_asked_for_again() -> None:
    server = Server()
    server.missing = {2, 5}
    async with loader(server, study_of(10), connections=2, ahead=8) as frames:
        await frames.get(0)
        await server.until_asked(9)
        with pytest.raises(NotFound):
            await frames.get(2)
        server.missing = set()
        assert (await frames.get(2)).instance.sop_instance_uid == "1.2.2"
    assert server.asked.count(5) == 1, "what could not be fetched ahead is left until somebody asks"


@pytest.mark.parametrize("position", [-1, 3])
async def test_a_position_outside_of_the_study_is_refused_and_stops_nothing(position: int) -> None:
    async with loader(Server(), study_of(3), connections=1) as frames:
        with pytest.raises(InvalidInput):
            await frames.get(position)
        assert (await frames.get(2)).index == 0


async def test_an_unforeseen_error_reaches_who_waits() -> None:
    server = Server()

    async def broken(*_: object) -> StreamedFrame:
        raise ValueError("unforeseen")

    server.frame = broken  # type: ignore[method-assign]
    async with loader(server, study_of(3)) as frames:
        with pytest.raises(ValueError, match="unforeseen"):
            await frames.get(1)


async def test_leaving_ends_what_is_under_way() -> None:
    server = Server(open_=False)
    async with loader(server, study_of(10), connections=3, ahead=8) as frames:
        waiting = asyncio.create_task(frames.get(0))
        await server.until_asked(1)
    assert server.at_once == 0
    with pytest.raises(asyncio.CancelledError):
        await waiting
