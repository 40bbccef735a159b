"""Event reports that the other end sends over an association of this end."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress

from imaging_services.domain.dicom.dimse import Association, DimseResponse
from imaging_services.domain.dicom.storage_scp import Context
from imaging_services.domain.errors import BackendUnavailable
from imaging_services.domain.relay.messages import Call
from imaging_services.domain.relay.ports import RelayLink
from imaging_services.domain.relay.services import NORMALIZED_SERVICES

_RESPONSE_SECONDS = 5.0  # that an event report waits for the response to a request before it


class Hearing:
    """Passes them on to the requestor, until it is closed."""

    def __init__(self, association: Association) -> None:
        self._association = association
        self._asking: set[asyncio.Event] = set()
        self._stack = AsyncExitStack()
        self._beginning = asyncio.Lock()
        self._hears = False

    @property
    def contexts(self) -> tuple[Context, ...]:
        """Those in which an event report may come."""
        contexts = self._association.contexts.values()
        found = {(one.abstract_syntax, one.transfer_syntax) for one in contexts}
        return tuple(sorted(one for one in found if one[0] in NORMALIZED_SERVICES))

    @asynccontextmanager
    async def asking(self, link: RelayLink) -> AsyncIterator[None]:
        """A DIMSE-N request is under way. Whoever sends an event report behind its response travels by another way and
        may be faster; the requestor gets them in order."""
        async with self._beginning:
            if not self._hears:
                heard = link.hearing(self._association.association_id, self._report)
                await self._stack.enter_async_context(heard)
                self._hears = True
        answered = asyncio.Event()
        self._asking.add(answered)
        try:
            yield
        finally:
            self._asking.discard(answered)
            answered.set()

    async def close(self) -> None:
        """The association has ended."""
        async with self._beginning:
            await self._stack.aclose()

    async def _report(self, call: Call, data: bytes | None) -> DimseResponse:
        """Raises ``BackendUnavailable`` when the requestor takes no such event report over this association."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_RESPONSE_SECONDS):
                for answered in tuple(self._asking):
                    await answered.wait()
        wanted, requests = (call.abstract_syntax, call.transfer_syntax), self._association.sub_operations
        for context_id, context in self._association.contexts.items():
            if (context.abstract_syntax, context.transfer_syntax) == wanted and requests and requests.is_open:
                return await requests.request(context_id, call.command, data)
        raise BackendUnavailable("the association takes no event reports")
