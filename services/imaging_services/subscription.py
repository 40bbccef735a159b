"""What the bindings share: taking events from the event log or by HTTP, and the limits of their target."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import structlog
from fastapi import FastAPI
from pydantic import AliasChoices, Field, SecretStr, field_validator
from pydantic_settings import SettingsConfigDict

from imaging_services.adapters.http.client import HttpOptions, HttpTarget
from imaging_services.adapters.http.cloudevents import event_router
from imaging_services.adapters.http.server import serve
from imaging_services.adapters.nats.settings import EventLogSettings
from imaging_services.domain.errors import PermanentError, Refused, SettingsError, answer_for
from imaging_services.domain.events.envelope import CloudEvent
from imaging_services.domain.events.selector import Selector
from imaging_services.domain.pace import Pace
from imaging_services.domain.ports import EventHandler, EventLog
from imaging_services.runtime import Lifecycle, ServiceSettings
from imaging_services.wiring.events import open_event_log

log = structlog.get_logger(__name__)

KNATIVE_PORT = 8080
_TRIED_AGAIN_BY_KNATIVE = frozenset({404, 408, 409, 429})


class SubscriptionSettings(EventLogSettings, ServiceSettings):
    """How a binding takes events and how it treats its target. Empty variables count as absent."""

    model_config = SettingsConfigDict(env_ignore_empty=True, populate_by_name=True)

    BINDING_NAME: str = Field(
        default="",
        validation_alias=AliasChoices("BINDING_NAME", "EVENTS_CONSUMER"),
        pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]{0,127})?$",
        description="name of the durable consumer, also accepted as EVENTS_CONSUMER; replicas of a binding share it, "
        "different bindings must not; default: derived from the target's address",
    )
    SELECTOR: str = Field(
        default="",
        description="comma separated regular expressions, each matching the whole provider name; empty: all events",
    )
    HTTP_HOST: str = Field(default="127.0.0.1", description="address that takes CloudEvents by POST /")
    HTTP_PORT: int | None = Field(
        default=None,
        ge=1,
        le=65535,
        description="its port; default 8080 without EVENTS_NATS_URL (as Knative wants it), none with it",
    )
    WEBHOOK_ENDPOINT: str = Field(
        default="", description="URL to which each event is posted as it is, as a CloudEvent in binary mode"
    )
    WEBHOOK_AUTH_TOKEN: SecretStr = Field(
        default=SecretStr(""), description="sent verbatim as Authorization to the webhook; empty: no such header"
    )
    TARGET_CONCURRENCY: int = Field(default=8, ge=1, le=256, description="events under way to the target at a time")
    TARGET_RATE: float = Field(default=0, ge=0, description="events to the target per second; 0: no limit")
    TARGET_TIMEOUT_SECONDS: float = Field(default=60, gt=0, description="longest wait for the target, seconds")
    TARGET_CA_FILE: Path | None = Field(
        default=None, description="PEM file of authorities to trust besides the system's"
    )
    INSECURE_SKIP_VERIFY: bool = Field(
        default=False, description="true: TLS certificates are not verified; for tests only"
    )

    @field_validator("SELECTOR")
    @classmethod
    def _readable(cls, value: str) -> str:
        Selector.parse(value)
        return value

    def pace(self) -> Pace:
        """The target's limits."""
        return Pace(self.TARGET_CONCURRENCY, self.TARGET_RATE)

    def http_target(
        self, url: str, authorization: SecretStr | None = None, basic: tuple[str, str] | None = None
    ) -> HttpTarget:
        """A client of the target; ``authorization`` is sent verbatim and wins over ``basic``."""
        options = HttpOptions(
            authorization=authorization.get_secret_value() or None if authorization else None,
            basic=basic,
            ca_file=self.TARGET_CA_FILE,
            ca_setting="TARGET_CA_FILE",
            insecure_skip_verify=self.INSECURE_SKIP_VERIFY,
            timeout_seconds=self.TARGET_TIMEOUT_SECONDS,
            max_connections=self.TARGET_CONCURRENCY,
        )
        return HttpTarget(url, options)


def consumer_name(settings: SubscriptionSettings, kind: str, target: str) -> str:
    """``BINDING_NAME``, else a name that the same target always gets, so that two bindings never share one."""
    return settings.BINDING_NAME or f"{kind}-{hashlib.sha256(target.encode()).hexdigest()[:12]}"


async def take_events(
    settings: SubscriptionSettings, lifecycle: Lifecycle, consumer: str, types: frozenset[str], handler: EventHandler
) -> None:
    """Give events to the handler until ``lifecycle.stop`` is set and those under way are done.

    From the event log when ``EVENTS_NATS_URL`` is set, by HTTP when it is not or ``HTTP_PORT`` is set.
    """
    port = settings.HTTP_PORT or (None if settings.EVENTS_NATS_URL else KNATIVE_PORT)
    async with asyncio.TaskGroup() as tasks:
        if port:
            listening = asyncio.Event()
            tasks.create_task(_serve(settings, port, lifecycle, handler, listening))
            await listening.wait()
        if settings.EVENTS_NATS_URL:
            await _consume(settings, lifecycle, consumer, types, handler)
        else:
            lifecycle.ready.set()


async def _serve(
    settings: SubscriptionSettings, port: int, lifecycle: Lifecycle, handler: EventHandler, listening: asyncio.Event
) -> None:
    app = FastAPI(openapi_url=None)
    app.include_router(event_router(_final_for_knative(handler)))
    await serve(
        app,
        settings.HTTP_HOST,
        port,
        lifecycle.stop,
        drain_seconds=settings.DRAIN_SECONDS,
        listening=lambda _: listening.set(),
    )


def _final_for_knative(handler: EventHandler) -> EventHandler:
    """Knative tries 404, 408, 409 and 429 again as it does 5xx: what failed for good must be answered otherwise."""

    async def handle(event: CloudEvent) -> None:
        try:
            await handler(event)
        except PermanentError as error:
            if answer_for(error).http in _TRIED_AGAIN_BY_KNATIVE:
                raise Refused(str(error)) from error
            raise

    return handle


async def _consume(
    settings: SubscriptionSettings, lifecycle: Lifecycle, consumer: str, types: frozenset[str], handler: EventHandler
) -> None:
    async with (
        open_event_log(settings, consumer) as events,
        _consuming(events, settings, consumer, types, handler) as consuming,
    ):
        log.info("taking events", consumer=consumer, types=sorted(types))
        lifecycle.ready.set()
        stopped = asyncio.create_task(lifecycle.stop.wait())
        await asyncio.wait({consuming, stopped}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()


@asynccontextmanager
async def _consuming(
    events: EventLog, settings: SubscriptionSettings, consumer: str, types: frozenset[str], handler: EventHandler
) -> AsyncIterator[asyncio.Task[None]]:
    """Consume beside the context; at its end what is in the handler gets ``DRAIN_SECONDS`` to finish."""
    consuming = asyncio.create_task(events.consume(consumer, types, handler, concurrency=settings.TARGET_CONCURRENCY))
    try:
        yield consuming
    finally:
        consuming.cancel()
        _, late = await asyncio.wait({consuming}, timeout=settings.DRAIN_SECONDS)
        if late:
            consuming.cancel()
            await asyncio.wait({consuming})
        if not consuming.cancelled():
            consuming.result()


def require_url(name: str, value: str) -> None:
    """Raises ``SettingsError`` that names the setting when its value is no absolute HTTP URL; empty is fine."""
    parts = urlsplit(value)
    if value and (parts.scheme not in ("http", "https") or not parts.hostname):
        raise SettingsError(f"{name}: {value!r} is not a full URL, write http://host/path or https://host/path")


def exactly_one(named: dict[str, str], meaning: str) -> str:
    """The name of the one setting that has a value. Raises ``SettingsError`` when none or several have."""
    present = [name for name, value in named.items() if value]
    if len(present) == 1:
        return present[0]
    if not present:
        raise SettingsError(f"no {meaning} is set: set one of {', '.join(named)}")
    raise SettingsError(f"{' and '.join(present)} are set: a binding has one {meaning}, leave the others empty")
