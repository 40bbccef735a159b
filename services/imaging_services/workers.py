"""Several processes of one service on one port, for services that a single core limits.

The parent holds the port and answers for health and metrics, nothing else: each worker is the service as it runs alone,
and listens with SO_REUSEPORT, so the kernel spreads connections over them.
"""

import asyncio
import signal
import sys
import time
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import structlog
from prometheus_client import Counter, generate_latest

from imaging_services.adapters.http.server import serve
from imaging_services.adapters.processes.metrics import merged
from imaging_services.adapters.processes.port import reserve
from imaging_services.adapters.processes.worker import Worker, how, start
from imaging_services.domain.errors import DeadlineExceeded, RetryableError
from imaging_services.runtime import DRAIN_GRACE, configure_logging, health_app, sole

log = structlog.get_logger(__name__)

FIRST_DELAY_SECONDS, LONGEST_DELAY_SECONDS = 0.5, 30.0
_STEADY_SECONDS = 60.0
_LOOK_SECONDS = 0.1  # between looks at a worker that starts
_WATCH_SECONDS = 5.0  # between looks at one that runs
_SILENT_SECONDS = 60.0  # as long as the kubelet waits for a silent container
_PATIENCE = 3.0  # for what a probe or Prometheus asks
_KILL_GRACE = 1.0

_RESTARTS = Counter("imaging_worker_restarts_total", "worker processes that were started again")


class WorkerSettings(Protocol):
    """What is needed of a service's settings: ``ServiceSettings`` with ``WorkerVariables``."""

    PORT_PREFIX: str
    WORKERS: int
    LOG_LEVEL: str
    LOG_FORMAT: str
    HEALTH_HOST: str
    HEALTH_PORT: int
    DRAIN_SECONDS: float


def run(component: str, settings: WorkerSettings) -> int:
    """Run a component's workers until SIGTERM or SIGINT. The exit code: 0 when all have drained, else that of the
    worker that could not start, which has said why. Raises ``SettingsError`` when a port cannot be had."""
    configure_logging(settings.LOG_LEVEL, settings.LOG_FORMAT)
    host, port = f"{settings.PORT_PREFIX}_HOST", f"{settings.PORT_PREFIX}_PORT"
    with reserve(getattr(settings, host), getattr(settings, port)) as held:
        environment = {"WORKERS": "1", "HEALTH_PORT": "0", port: str(held.getsockname()[1])}
        command = [sys.executable, "-P", "-m", "imaging_services.cli", "run", component]
        crew = Crew(command, environment, settings.WORKERS, settings.DRAIN_SECONDS + DRAIN_GRACE + _KILL_GRACE)
        return asyncio.run(_supervise(crew, settings))


async def _supervise(crew: "Crew", settings: WorkerSettings) -> int:
    stop, ended = asyncio.Event(), asyncio.Event()

    async def ready() -> bool:
        return not stop.is_set() and await crew.ready()

    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stop.set)
    try:
        async with asyncio.TaskGroup() as tasks:
            if settings.HEALTH_PORT:
                app = health_app(ready, crew.metrics)
                tasks.create_task(serve(app, settings.HEALTH_HOST, settings.HEALTH_PORT, ended, drain_seconds=1))
            try:
                return await crew.run(stop)
            finally:
                ended.set()
    except BaseExceptionGroup as group:
        raise sole(group) from group


class Crew:
    """The workers: started, watched, started again when they end, and stopped together within ``stop_seconds``."""

    def __init__(self, command: Sequence[str], environment: dict[str, str], count: int, stop_seconds: float) -> None:
        self._command, self._environment, self._count = command, environment, count
        self._stop_seconds = stop_seconds
        self._beginning: set[asyncio.Task[Worker]] = set()
        self._alive: dict[int, Worker] = {}
        self._were_ready = False
        self._over = asyncio.Event()
        self._code = 0

    async def run(self, stop: asyncio.Event) -> int:
        """Until ``stop`` is set and all have drained, or until none can be started; the exit code."""
        ending = [asyncio.create_task(event.wait()) for event in (stop, self._over)]
        keeping: list[asyncio.Task[None]] = []
        try:
            # One goes ahead: what keeps it from starting keeps all, and is said once.
            for numbers in ([1], range(2, self._count + 1)):
                keeping += [asyncio.create_task(self._keep(number)) for number in numbers]
                if not await self._all_ready(numbers, [*ending, *keeping]):
                    return self._code
            self._were_ready = True
            log.info("all workers take work", workers=self._count)
            done, _ = await asyncio.wait([*ending, *keeping], return_when=asyncio.FIRST_COMPLETED)
            _raise_first(done)
            return self._code
        finally:
            for task in (*ending, *keeping):
                task.cancel()
            await asyncio.gather(*ending, *keeping, return_exceptions=True)
            await self._stop_all()

    async def ready(self) -> bool:
        """Every worker takes work."""
        try:
            states = await asyncio.gather(*(worker.ready(_PATIENCE) for worker in list(self._alive.values())))
        except DeadlineExceeded:
            return False
        return len(states) == self._count and all(states)

    async def metrics(self) -> bytes:
        """Of all workers that answer, and of the parent."""
        pages = {"parent": generate_latest()}
        for number, worker in sorted(self._alive.items()):
            try:
                pages[str(number)] = await worker.metrics(_PATIENCE)
            except RetryableError as error:
                log.warning("no metrics of a worker", worker=number, error=str(error))
        return merged(pages)

    async def _all_ready(self, numbers: Sequence[int], ending: Sequence["asyncio.Task[Any]"]) -> bool:
        """Wait until these are ready; False when one of the tasks has ended before."""
        for number in numbers:
            while not await self._is_ready(number):
                done, _ = await asyncio.wait(ending, timeout=_LOOK_SECONDS, return_when=asyncio.FIRST_COMPLETED)
                if done:
                    _raise_first(done)
                    return False
        return True

    async def _is_ready(self, number: int) -> bool:
        worker = self._alive.get(number)
        try:
            return worker is not None and await worker.ready(_PATIENCE)
        except DeadlineExceeded:
            return False

    async def _keep(self, number: int) -> None:
        """Keep one worker running until cancelled."""
        delay = FIRST_DELAY_SECONDS
        while True:
            since, beginning = time.monotonic(), asyncio.create_task(self._begin(number))
            self._beginning.add(beginning)
            beginning.add_done_callback(self._beginning.discard)
            worker = await asyncio.shield(beginning)  # or a child would be nobody's
            was_ready, code = await self._until_it_ends(worker)
            del self._alive[number]
            if not was_ready and not (self._were_ready and await self._others_work()):
                log.error("a worker cannot start", worker=number, how=how(code))
                self._code = code if code > 0 else 1
                self._over.set()
                return
            if time.monotonic() - since > _STEADY_SECONDS:
                delay = FIRST_DELAY_SECONDS
            log.error("a worker has ended and is started again", worker=number, how=how(code), seconds=delay)
            await asyncio.sleep(delay)
            delay = min(2 * delay, LONGEST_DELAY_SECONDS)
            _RESTARTS.inc()

    async def _begin(self, number: int) -> Worker:
        worker = await start(number, self._command, self._environment)
        self._alive[number] = worker
        log.info("worker started", worker=number, pid=worker.pid)
        return worker

    async def _others_work(self) -> bool:
        states = await asyncio.gather(*(self._is_ready(number) for number in list(self._alive)))
        return any(states)

    async def _until_it_ends(self, worker: Worker) -> tuple[bool, int]:
        """Whether it ever took work, and its exit code. One that is silent for too long is killed."""
        ending = asyncio.create_task(worker.ended())
        was_ready = False
        try:
            while True:
                done, _ = await asyncio.wait({ending}, timeout=_WATCH_SECONDS if was_ready else _LOOK_SECONDS)
                if done:
                    return was_ready, ending.result()
                try:
                    was_ready = await worker.ready(_SILENT_SECONDS) or was_ready
                except DeadlineExceeded as error:
                    log.error("a worker is killed", worker=worker.number, error=str(error))
                    worker.send(signal.SIGKILL)
        finally:
            ending.cancel()

    async def _stop_all(self) -> None:
        """SIGTERM to all, which drain at the same time; SIGKILL to those that do not end."""
        await asyncio.gather(*self._beginning, return_exceptions=True)
        ends = {asyncio.create_task(worker.ended()): worker for worker in self._alive.values()}
        if not ends:
            return
        for worker in ends.values():
            worker.send(signal.SIGTERM)
        _, late = await asyncio.wait(ends, timeout=self._stop_seconds)
        for task in late:
            log.error("a worker did not stop in time and is killed", worker=ends[task].number)
            ends[task].send(signal.SIGKILL)
        if late:
            await asyncio.wait(late)


def _raise_first(done: Iterable["asyncio.Task[Any]"]) -> None:
    for task in done:
        task.result()
