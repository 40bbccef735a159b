"""The JetStream domains whose queues are emptied: the own one, those that are named, and those that are heard of.

A server at the edge of a network, joined by a leaf connection, keeps what is sent there in a domain of its own. Who
sends says so at intervals, and the last word of each domain is kept here, so that a queue is emptied even when its
sender is gone.
"""

import asyncio
import time

import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import NoRespondersError
from nats.js.errors import ServiceUnavailableError

from imaging_services.adapters.nats.connection import nats_errors
from imaging_services.adapters.nats.relay_consumer import StoreConsumer
from imaging_services.adapters.nats.relay_ends import AssociationEnds
from imaging_services.adapters.nats.relay_janitor import Janitor
from imaging_services.adapters.nats.relay_places import RelayPlace, place_in
from imaging_services.adapters.nats.relay_receiving import Receiving
from imaging_services.adapters.nats.relay_settings import RelaySettings, is_domain
from imaging_services.adapters.nats.relay_streams import domains, ensure_relay, ensure_stream
from imaging_services.domain.errors import ImagingError, RetryableError
from imaging_services.domain.relay.messages import H_VERSION, VERSION
from imaging_services.domain.relay.ports import RelayHandler

log = structlog.get_logger(__name__)

_ANNOUNCED_EVERY = 5  # seconds
_MOST_DOMAINS = 1024
_WITHOUT_JETSTREAM = {10039, 10076}  # the account, the server; other reasons pass
_AGAIN, _LATER = 1.0, 5.0  # seconds
_TRIES = 5  # to learn the own domain's name, until it is started without
_WARNED_EVERY = 60.0  # seconds


async def announce_domain(client: Client, settings: RelaySettings) -> None:
    """Say in which domain the other end finds what this one sends, until cancelled. The other end may be away."""
    if settings.send_domain is None:
        return
    js, names = client.jetstream(domain=settings.send_domain), settings.sends
    there, reconnects = False, -1
    while True:
        if client.is_connected:
            reconnects = client.stats["reconnects"]
            try:
                if not there:  # who is told looks for the streams at once
                    await ensure_relay(js, names, settings.stream_max_bytes, settings.stream_replicas)
                    there = True
                with nats_errors("announcing a JetStream domain"):
                    await client.publish(names.domain(settings.send_domain), headers={H_VERSION: VERSION})
            except ImagingError as error:
                log.debug("domain not announced", domain=settings.send_domain, error=str(error))
        for _ in range(_ANNOUNCED_EVERY):
            await asyncio.sleep(1)
            if client.stats["reconnects"] != reconnects:
                break


class Domains:
    """Empties the queues of the own channel, wherever they are; one domain's trouble is not the others'."""

    def __init__(self, client: Client, settings: RelaySettings, handler: RelayHandler) -> None:
        self._client, self._settings = client, settings
        self._receiving = Receiving(client, settings, handler)
        self._known: set[str | None] = set()

    async def run(self) -> None:
        """Until cancelled. What is at work then is finished, or given back after the drain time."""
        async with asyncio.TaskGroup() as tasks:
            self._known.add(await self._own(tasks))
            for name in self._settings.receive_domains:
                self._found(name, tasks)
            if self._settings.discovers_domains:
                tasks.create_task(self._discover(tasks))

    def _found(self, name: str, tasks: asyncio.TaskGroup) -> None:
        if name in self._known or not is_domain(name):
            return
        if len(self._known) > _MOST_DOMAINS:
            log.error("JetStream domain not emptied: there are too many", domain=name, most=_MOST_DOMAINS)
            return
        self._known.add(name)
        log.info("JetStream domain found", domain=name)
        self._start(name, tasks)

    def _start(self, domain: str | None, tasks: asyncio.TaskGroup) -> RelayPlace:
        settings, receiving = self._settings, self._receiving
        place = place_in(self._client, domain, settings.receives, settings.silence_seconds)
        ends = AssociationEnds(place, receiving.handler, receiving.is_away)
        tasks.create_task(ends.renew())
        for urgent in (False, True):
            tasks.create_task(StoreConsumer(place, receiving, ends, urgent=urgent).run())
        janitor = Janitor(place.js, place.subjects, settings.object_age_seconds, settings.silence_seconds)
        tasks.create_task(janitor.keep_clean())
        return place

    async def _own(self, tasks: asyncio.TaskGroup) -> str | None:
        """Start the own domain, as soon as its name is known, or it is clear that it will not be soon: then its
        consumers say what is wrong. The others wait for the name, since one of them may be this one.

        Returns the name, empty when it has none, None without JetStream."""
        tries, warned_at = 0, -_WARNED_EVERY
        while True:
            try:
                name = await self._name()
            except RetryableError as error:
                tries += 1
                if time.monotonic() >= warned_at + _WARNED_EVERY:
                    warned_at = time.monotonic()
                    log.warning("JetStream is not there yet", tries=tries, error=str(error))
                if tries == _TRIES:
                    self._receiving.home = self._start(None, tasks)
                await asyncio.sleep(_AGAIN)
                continue
            if name is None:
                self._receiving.home = None
            elif self._receiving.home is None:
                self._receiving.home = self._start(None, tasks)
            return name

    async def _name(self) -> str | None:
        """Of the server's own domain, empty when it has none; None without JetStream, which only an end that names
        other domains does without. Raises a RetryableError."""
        with nats_errors("asking NATS for its JetStream domain"):
            try:
                return (await self._client.jetstream().account_info()).domain or ""
            except (NoRespondersError, ServiceUnavailableError) as error:
                for_good = isinstance(error, NoRespondersError) or error.err_code in _WITHOUT_JETSTREAM
                if for_good and self._settings.receive_domains:
                    return None
                raise

    async def _discover(self, tasks: asyncio.TaskGroup) -> None:
        subjects, prefix = self._settings.receives, self._settings.receives.domain("")

        async def heard(message: Msg) -> None:
            self._found(message.subject.removeprefix(prefix), tasks)

        async def recall() -> bool:
            try:
                for subject in await self._remembered():
                    self._found(subject.removeprefix(prefix), tasks)
            except RetryableError as error:
                log.debug("JetStream domains not read", error=str(error))
                return False
            return True

        recalled = await recall()  # first, so that what is heard from now on is kept
        with nats_errors("listening for JetStream domains"):
            subscription = await self._client.subscribe(subjects.domain("*"), cb=heard)
        try:
            while not recalled:
                await asyncio.sleep(_LATER)
                recalled = await recall()
            await asyncio.Event().wait()
        finally:
            if not self._client.is_closed:
                await subscription.unsubscribe()

    async def _remembered(self) -> list[str]:
        js, subjects = self._client.jetstream(), self._settings.receives
        with nats_errors("reading the JetStream domains"):
            await ensure_stream(js, domains(subjects))
            state = (await js.stream_info(subjects.domains_stream, subjects_filter=subjects.domain("*"))).state
        return list(state.subjects or {})
