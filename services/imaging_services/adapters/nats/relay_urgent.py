"""Whether anybody empties the queue of urgent stores: a receiver of a former version knows none.

There urgent stores would wait for ever, and the janitor of that receiver, which does not look at their queue, would
remove their objects.
"""

import asyncio
import time
from collections import OrderedDict

import structlog
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.errors import NotFoundError

from imaging_services.adapters.nats.connection import nats_errors
from imaging_services.domain.errors import RetryableError
from imaging_services.domain.relay.subjects import RelaySubjects

log = structlog.get_logger(__name__)

_FRESH = 5.0  # seconds that an answer holds for associations that begin
_PATIENCE = 2.0  # seconds for the answer
_REMEMBERED = 16_384


async def is_emptied(js: JetStreamContext, subjects: RelaySubjects) -> bool:
    """The queue of urgent stores has a consumer, which its receiver leaves there; False as well when nobody can
    tell."""
    try:
        with nats_errors("looking for a receiver of urgent stores"):
            try:
                return (await js.stream_info(subjects.urgent_stream)).state.consumer_count > 0
            except NotFoundError:
                return False
    except RetryableError as error:
        log.debug("no word of who receives urgent stores", stream=subjects.urgent_stream, error=str(error))
        return False


class UrgentQueue:
    """Where urgent stores go, decided once for each association: a series that is split would be overtaken by
    itself."""

    def __init__(self, subjects: RelaySubjects, domain: str | None) -> None:
        self._subjects, self._domain = subjects, domain
        self._decided: OrderedDict[str, bool] = OrderedDict()
        self._asking = asyncio.Lock()
        self._emptied, self._fresh_until = False, 0.0

    async def takes(self, client: Client, association_id: str) -> bool:
        """The association's urgent stores go there; otherwise they go with the others."""
        if association_id not in self._decided:
            async with self._asking:
                if time.monotonic() > self._fresh_until:
                    self._emptied = await is_emptied(
                        client.jetstream(domain=self._domain, timeout=_PATIENCE), self._subjects
                    )
                    self._fresh_until = time.monotonic() + _FRESH
                self._decide(association_id)
        self._decided.move_to_end(association_id)
        return self._decided[association_id]

    def _decide(self, association_id: str) -> None:
        if association_id in self._decided:
            return
        self._decided[association_id] = self._emptied
        if len(self._decided) > _REMEMBERED:
            self._decided.popitem(last=False)
        if not self._emptied:
            log.info("nobody empties the queue of urgent stores: they go with the others", association=association_id)
