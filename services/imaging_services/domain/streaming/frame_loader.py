"""Frames on demand: the one that is asked for goes first, those that will be asked for next come by themselves."""

import asyncio
from collections import deque
from collections.abc import Sequence
from types import TracebackType
from typing import Self

import structlog

from imaging_services.domain.errors import InvalidInput
from imaging_services.domain.streaming.client import Received, StreamedFrame, StreamingClient
from imaging_services.domain.streaming.study_reader import StreamedInstance, StreamedStudy

log = structlog.get_logger(__name__)

LARGEST_HELD = 256 * 1024 * 1024
"""Bytes of frames in memory from which on none is fetched before it is asked for."""


class FrameLoader:
    """The frames of a study, by position in the order of its instances. An async context.

    ``connections`` requests are under way at most. Behind the position asked for last, ``ahead`` frames are fetched
    before they are asked for, unless somebody waits for another one; about twice as many are kept. After a jump one
    frame is fetched ahead at a time, and one more with each step in order: who jumps about does not wait for much that
    he will not look at.
    """

    def __init__(
        self,
        client: StreamingClient,
        study: StreamedStudy,
        *,
        connections: int = 4,
        ahead: int = 16,
        received: Received | None = None,
    ) -> None:
        self._client, self._study, self._received = client, study, received
        self.positions: Sequence[tuple[StreamedInstance, int]] = [
            (instance, index) for instance in study.instances for index in range(instance.frames)
        ]
        self._connections, self._ahead = connections, ahead
        self._kept = 2 * ahead + connections
        self._frames: dict[int, asyncio.Future[StreamedFrame]] = {}
        self._asked: deque[int] = deque()
        self._waited_for = self._fetching_ahead = self._steps = self._held = 0
        self._failed: set[int] = set()
        self._next: int | None = None
        self._work = asyncio.Condition()
        self._workers: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._workers = [asyncio.create_task(self._fetch_on()) for _ in range(self._connections)]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self._workers:
            worker.cancel()
        await asyncio.gather(*self._workers, return_exceptions=True)
        for frame in self._frames.values():
            frame.cancel()

    async def get(self, position: int) -> StreamedFrame:
        """The frame at a position. Raises what fetching it raised; asking again tries again. ``InvalidInput`` when
        there is no such position."""
        if not 0 <= position < len(self.positions):
            raise InvalidInput(f"there is no frame at {position}: the study has {len(self.positions)}")
        async with self._work:
            self._steps = self._steps + 1 if position == self._next else 0
            self._next = position + 1
            frame = self._frames.get(position)
            if frame is None:
                frame = self._remember(position)
                self._asked.append(position)
            self._work.notify_all()
        return await asyncio.shield(frame)

    def _remember(self, position: int) -> asyncio.Future[StreamedFrame]:
        self._make_room()
        frame = self._frames[position] = asyncio.get_running_loop().create_future()
        return frame

    def _make_room(self) -> None:
        """Drop frames that are far from where somebody looks, the farthest first; never those that come next."""
        here = self._next or 0
        near = range(here - 1, here + self._ahead)
        far = [one for one, frame in self._frames.items() if frame.done() and one not in near]
        for one in sorted(far, key=lambda one: -abs(one - here)):
            if len(self._frames) < self._kept and self._held < LARGEST_HELD:
                return
            self._held -= len(self._frames.pop(one).result().content)

    async def _fetch_on(self) -> None:
        while True:
            async with self._work:
                chosen = await self._work.wait_for(self._choose)
            assert chosen is not None
            position, asked = chosen
            self._waited_for += asked
            self._fetching_ahead += not asked
            try:
                await self._fetch(position)
            finally:
                self._waited_for -= asked
                self._fetching_ahead -= not asked
            async with self._work:
                self._work.notify_all()

    def _choose(self) -> tuple[int, bool] | None:
        """The next position to fetch, and whether it was asked for; None when there is nothing to do."""
        if self._asked:
            return self._asked.popleft(), True
        if self._next is None or self._waited_for or self._fetching_ahead > self._steps:
            return None
        self._make_room()
        if self._held >= LARGEST_HELD:
            return None
        for position in range(self._next, min(self._next + self._ahead, len(self.positions))):
            if position not in self._frames and position not in self._failed:
                self._remember(position)
                return position, False
        return None

    async def _fetch(self, position: int) -> None:
        frame = self._frames.get(position)
        instance, index = self.positions[position]
        try:
            fetched = await self._client.frame(self._study, instance, index, self._received)
        except Exception as error:  # noqa: BLE001 - whoever asks for the frame has to hear of it, of whatever kind it is
            self._frames.pop(position, None)
            self._failed.add(position)
            log.info("frame not fetched", position=position, error=type(error).__name__)
            if frame is not None and not frame.done():
                frame.set_exception(error)
                frame.exception()  # nobody may have asked for it
        else:
            if frame is not None and not frame.done():
                frame.set_result(fetched)
                self._held += len(fetched.content)
