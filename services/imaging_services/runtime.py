"""What every service needs while it runs: settings, logging, signals, health and metrics."""

import asyncio
import gc
import logging
import os
import signal
import sys
import warnings
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, TypeVar, cast

import orjson
import structlog
import uvloop
from fastapi import FastAPI, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel, Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from imaging_services.adapters.http.server import serve
from imaging_services.adapters.processes import channel
from imaging_services.adapters.processes.heap import keep_freed_memory
from imaging_services.domain.errors import SettingsError

log = structlog.get_logger(__name__)


class ServiceSettings(BaseSettings):
    """Settings that every service has; each app's ``Settings`` derives from it."""

    model_config = SettingsConfigDict(extra="ignore", frozen=True)

    LOG_LEVEL: Literal["debug", "info", "warning", "error"] = Field(default="info", description="least level logged")
    LOG_FORMAT: Literal["json", "console"] = Field(default="json", description="json lines, or text for people")
    HEALTH_HOST: str = Field(default="127.0.0.1", description="address of /healthz, /readyz and /metrics")
    HEALTH_PORT: int = Field(default=0, ge=0, le=65535, description="their port; 0 turns them off")
    DRAIN_SECONDS: float = Field(default=15, gt=0, description="time to finish work under way after SIGTERM, seconds")


class WorkerVariables(BaseModel):
    """For services that may run as several processes on one port: mix into an app's ``Settings``."""

    PORT_PREFIX: ClassVar[str] = "DIMSE"
    """Of the variables ``_HOST`` and ``_PORT`` that say where all of them listen."""

    WORKERS: int = Field(
        default=1,
        ge=1,
        le=64,
        description="processes that share the port and the work, for as many cores; limits and memory budgets count "
        "for each of them. 1 is a single process without a parent",
    )


@dataclass
class Lifecycle:
    """Set ``stop`` to end the service; the service sets ``ready`` once it takes work."""

    stop: asyncio.Event = field(default_factory=asyncio.Event)
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    worker: int | None = None
    """The number of this process, from 1 on, among those that share the port; None when it is the only one."""

    @property
    def takes_work(self) -> bool:
        """It is ready, and not told to stop."""
        return self.ready.is_set() and not self.stop.is_set()


DRAIN_GRACE = 3.0
"""Time to close connections after the drain, seconds."""
S = TypeVar("S", bound=ServiceSettings)
Main = Callable[[S, Lifecycle], Awaitable[None]]


def load_settings(settings_class: type[S]) -> S:
    """Read settings from the environment. Raises ``SettingsError`` that names each wrong variable."""
    try:
        return settings_class()
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, item['loc'])) or 'settings'}: {item['msg']}" for item in error.errors()]
        raise SettingsError("wrong settings, set these variables: " + "; ".join(lines)) from None


def run(main: Main[S], settings: S) -> None:
    """Run a service until SIGTERM or SIGINT; returns when it has drained."""
    configure_logging(settings.LOG_LEVEL, settings.LOG_FORMAT)
    membership = channel.inherited()
    if membership is not None:
        structlog.contextvars.bind_contextvars(worker=membership.number)
    # What is loaded by now stays: looking through it took 80 ms whenever the collector went through everything, in
    # which nobody was answered.
    gc.freeze()
    keep_freed_memory()
    uvloop.run(supervise(main, settings, membership))


async def supervise(main: Main[S], settings: S, membership: channel.Membership | None = None) -> None:
    """Run ``main`` with signals and the health server beside it, which answers until ``main`` has drained."""
    lifecycle, ended = Lifecycle(worker=membership.number if membership else None), asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, lifecycle.stop.set)
    try:
        async with asyncio.TaskGroup() as tasks:
            answering = tasks.create_task(_answer(membership, lifecycle)) if membership else None
            if settings.HEALTH_PORT:
                app = _own_health(lifecycle)
                tasks.create_task(serve(app, settings.HEALTH_HOST, settings.HEALTH_PORT, ended, drain_seconds=1))
            await _stoppable(asyncio.ensure_future(main(settings, lifecycle)), lifecycle, settings.DRAIN_SECONDS)
            lifecycle.stop.set()
            ended.set()
            if answering:
                answering.cancel()
    except BaseExceptionGroup as group:
        raise sole(group) from group


async def _answer(membership: channel.Membership, lifecycle: Lifecycle) -> None:
    """Tell the parent how this worker is. Without a parent nobody would restart or stop it, and it would keep the
    port from the next one: it ends at once. What was acknowledged is safe without a drain."""
    answers = {
        channel.STATE: lambda: channel.READY if lifecycle.takes_work else b"",
        channel.METRICS: generate_latest,
    }
    await channel.answer(membership.channel, answers)
    log.error("the parent process is gone: the worker ends")
    logging.shutdown()
    os._exit(1)


async def _stoppable(running: "asyncio.Future[None]", lifecycle: Lifecycle, drain_seconds: float) -> None:
    """Wait for the service. Told to stop before it was ready, it may wait for a backend that never comes: cancel it.
    So too when it has drained for too long, as it does when its backends have gone first: what was not acknowledged
    is sent again, and what is queued is in the database."""
    stopping = asyncio.create_task(lifecycle.stop.wait())
    try:
        await asyncio.wait(cast(list[asyncio.Future[Any]], [running, stopping]), return_when=asyncio.FIRST_COMPLETED)
        if not running.done() and lifecycle.ready.is_set():
            await asyncio.wait([running], timeout=drain_seconds + DRAIN_GRACE)
        abandoned = not running.done()
        if abandoned:
            log.warning("stopped before the work under way was finished", drain_seconds=drain_seconds)
            running.cancel()
        try:
            await running
        except asyncio.CancelledError:
            if not abandoned:
                raise
    finally:
        stopping.cancel()
        running.cancel()


def sole(error: BaseException) -> BaseException:
    """The error within groups of one, so that a wrong setting is said in one sentence."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def health_app(ready: Callable[[], Awaitable[bool]], metrics: Callable[[], Awaitable[bytes]]) -> FastAPI:
    """Liveness, readiness (503 before ready and while draining) and Prometheus metrics."""
    app = FastAPI(openapi_url=None)

    @app.get("/healthz")
    async def healthz() -> Response:
        return Response("ok")

    @app.get("/readyz")
    async def readyz() -> Response:
        yes = await ready()
        return Response("ready" if yes else "not ready", status_code=200 if yes else 503)

    @app.get("/metrics")
    async def exposed() -> Response:
        return Response(await metrics(), media_type=CONTENT_TYPE_LATEST)

    return app


def _own_health(lifecycle: Lifecycle) -> FastAPI:
    async def ready() -> bool:
        return lifecycle.takes_work

    async def metrics() -> bytes:
        return generate_latest()

    return health_app(ready, metrics)


def configure_logging(level: str, log_format: str) -> None:
    """Send structlog and the standard library's loggers to stderr as one line an event."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    renderer: Any = (
        structlog.processors.JSONRenderer(serializer=lambda event, **_: orjson.dumps(event, default=str).decode())
        if log_format == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for noisy in ("httpx", "httpcore", "uvicorn", "nats", "pynetdicom"):
        logging.getLogger(noisy).setLevel(max(logging.WARNING, logging.getLogger().level))
    # pydicom's complaints quote values, which may be a patient's; a service says itself what it could not read.
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", module=r"pydicom(\.|$)")
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        cache_logger_on_first_use=False,
    )
