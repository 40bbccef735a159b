"""Keeps a set of programs running: ordered start, restart after a crash, ordered stop."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from imaging_services.domain.errors import BackendUnavailable
from imaging_services.local.processes import Child, Program

T = TypeVar("T")

FIRST_DELAY_SECONDS = 0.5
LONGEST_DELAY_SECONDS = 30.0
_STEADY_SECONDS = 60.0
_LOOK_SECONDS = 0.1


@dataclass(frozen=True)
class Stage:
    """Programs that start together, and stop together before those of earlier stages.

    ``prepare`` says what to run and may block; ``complete`` runs when all are ready, for what later stages need.
    The next stage starts then, or at once with ``then_at_once``: it needs them to stop later, not to start earlier.
    """

    prepare: Callable[[], Sequence[Program]]
    complete: Callable[[], None] = lambda: None
    then_at_once: bool = False


class Supervisor:
    """Runs stages of programs. Use from one event loop in the main thread.

    ``changed`` is called with name → process id whenever a program has become ready or has ended;
    ``report`` with a text for people: what crashed, its last log lines and when it is tried again.
    """

    def __init__(
        self, stages: Sequence[Stage], changed: Callable[[dict[str, int]], None], report: Callable[[str], None]
    ) -> None:
        self._stages = stages
        self._changed = changed
        self._report = report
        self._started: list[list[Child]] = []
        self._pool = ThreadPoolExecutor(max_workers=32, thread_name_prefix="supervisor")

    @property
    def pids(self) -> dict[str, int]:
        """Name → process id of everything that runs."""
        return {child.program.name: child.pid for stage in self._started for child in stage if child.returncode is None}

    async def run(self, ready: Callable[[], Awaitable[None]], stop: asyncio.Event) -> None:
        """Start everything, call ``ready``, keep everything running until ``stop`` is set, then stop it in reverse.

        Raises ``BackendUnavailable`` with the last log lines when a program does not start; the others are stopped.
        """
        try:
            await self._until(stop, self._start())
            if not stop.is_set():
                await self._until(stop, self._keep(ready))
        finally:
            await self._stop()
            self._pool.shutdown(wait=False, cancel_futures=True)

    async def _until(self, stop: asyncio.Event, work: Awaitable[None]) -> None:
        """Do ``work``, given up as soon as ``stop`` is set."""
        task, waiter = asyncio.ensure_future(work), asyncio.ensure_future(stop.wait())
        try:
            await asyncio.wait((task, waiter), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in (task, waiter):
                one.cancel()
            results = await asyncio.gather(task, waiter, return_exceptions=True)
        if isinstance(results[0], Exception):
            raise results[0]

    async def _start(self) -> None:
        starting: list[Child] = []
        for stage in self._stages:
            programs = await self._in_thread(stage.prepare)
            children: list[Child] = []
            self._started.append(children)
            children.extend(Child(program) for program in programs)
            self._changed(self.pids)
            starting += children
            if not stage.then_at_once:
                await self._all_ready(starting)
                starting.clear()
                await self._in_thread(stage.complete)

    async def _all_ready(self, children: Sequence[Child]) -> None:
        waits = [asyncio.ensure_future(self._in_thread(child.wait_ready)) for child in children]
        try:
            await asyncio.gather(*waits)
        finally:
            for wait in waits:
                wait.cancel()

    async def _keep(self, ready: Callable[[], Awaitable[None]]) -> None:
        async with asyncio.TaskGroup() as tasks:
            for stage in self._started:
                for place in range(len(stage)):
                    tasks.create_task(self._keep_one(stage, place))
            await ready()

    async def _keep_one(self, stage: list[Child], place: int) -> None:
        delay, since = FIRST_DELAY_SECONDS, time.monotonic()
        while True:
            await self._ended(stage[place])
            self._changed(self.pids)
            if time.monotonic() - since > _STEADY_SECONDS:
                delay = FIRST_DELAY_SECONDS
            self._report(f"{stage[place].epitaph()}\n  it is started again in {delay:g} s")
            await asyncio.sleep(delay)
            delay, since = min(2 * delay, LONGEST_DELAY_SECONDS), time.monotonic()
            stage[place] = Child(stage[place].program)
            await self._ready_again(stage[place])

    async def _ended(self, child: Child) -> None:
        while child.returncode is None:  # noqa: ASYNC110 - the end of a process is no event of the loop
            await asyncio.sleep(_LOOK_SECONDS)

    async def _ready_again(self, child: Child) -> None:
        try:
            await self._in_thread(child.wait_ready)
        except BackendUnavailable as error:
            if child.returncode is not None:
                return  # told by the caller's loop
            self._report(f"{error}\n  it is stopped and started again")
            await self._in_thread(child.stop)
            return
        self._changed(self.pids)
        self._report(f"{child.program.name} runs again, process {child.pid}")

    async def _stop(self) -> None:
        """Later stages first; within a stage all at once."""
        for stage in reversed(self._started):
            for child in stage:
                child.request_stop()
            ends = await asyncio.gather(*(self._in_thread(child.wait_stopped) for child in stage))
            for child, by_itself in zip(stage, ends, strict=True):
                if not by_itself:
                    self._report(
                        f"{child.program.name} did not stop in {child.program.stop_seconds:g} s and was killed"
                    )
        self._changed({})

    def _in_thread(self, call: Callable[[], T]) -> "asyncio.Future[T]":
        return asyncio.get_running_loop().run_in_executor(self._pool, call)
