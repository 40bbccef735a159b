"""C-MOVE and C-GET from manifest and storage space (PS3.4 sections C.4.2 and C.4.3)."""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from typing import Protocol

import structlog

from imaging_services.apps.dimse_ingestion.asked import Asked
from imaging_services.apps.dimse_ingestion.destinations import Destination, Requestor
from imaging_services.apps.dimse_ingestion.identifiers import decode_identifier, off_loop
from imaging_services.apps.dimse_ingestion.known_aes import KnownAe, KnownAes
from imaging_services.apps.dimse_ingestion.move_jobs import MoveJobs
from imaging_services.apps.dimse_ingestion.outgoing import Outbox
from imaging_services.apps.dimse_ingestion.selection import Selection, read_selection, select
from imaging_services.apps.dimse_ingestion.sub_operations import Counts, Originator, Retrieve, perform
from imaging_services.domain.dicom.command_set import MOVE_DESTINATION
from imaging_services.domain.dicom.dimse import DimseResponse, Status
from imaging_services.domain.dicom.transfer_syntaxes import encoding_of
from imaging_services.domain.errors import BackendUnavailable, InvalidInput, NotFound, RetryableError
from imaging_services.domain.manifest.query import InstanceLocation
from imaging_services.domain.ports import ManifestQuery

log = structlog.get_logger(__name__)


class Destinations(Protocol):
    """Opens the way to a known AE."""

    def open(
        self, ae: KnownAe, locations: Sequence[InstanceLocation], transcodes: bool
    ) -> AbstractAsyncContextManager[Destination]:
        """The way, for these instances. Raises ``Refused`` when there is none."""
        ...


class Retriever:
    """Answers C-MOVE and C-GET of one storage space; with ``later``, a C-MOVE succeeds once it is kept there."""

    def __init__(
        self,
        manifest: ManifestQuery,
        outbox: Outbox,
        known: KnownAes,
        destinations: Destinations,
        *,
        provider: str | None,
        later: MoveJobs | None = None,
    ) -> None:
        self._manifest, self._outbox, self._later = manifest, outbox, later
        self._known, self._destinations, self._provider = known, destinations, provider

    async def move(self, asked: Asked) -> AsyncIterator[DimseResponse]:
        """C-MOVE; A801H for a destination that is not known. Raises as ``read_selection`` and the manifest do."""
        title = asked.command.text(MOVE_DESTINATION)
        try:
            ae = self._known.get(title)
        except NotFound as error:
            log.warning("move destination unknown", destination=title, calling=asked.calling_ae_title)
            status = Status.MOVE_DESTINATION_UNKNOWN
            yield DimseResponse(asked.command.response(status, error_comment=str(error)))
            return
        if self._later is not None:
            yield await self._put_off(asked, self._later)
            return
        locations = await self._select(asked)
        if locations is None:
            yield _no_matches(asked)
            return
        async with aclosing(self._move(asked, ae, locations)) as responses:
            async for response in responses:
                yield response

    async def _put_off(self, asked: Asked, later: MoveJobs) -> DimseResponse:
        await _selection(asked)
        try:
            await later.take_on(asked)
        except RetryableError as error:
            status = Status.UNABLE_TO_PERFORM_SUB_OPERATIONS
            return DimseResponse(asked.command.response(status, error_comment=str(error)))
        return Counts(0).response(asked.command, Status.SUCCESS, encoding_of(asked.transfer_syntax))

    async def run(self, asked: Asked, only: frozenset[str] | None) -> Counts:
        """A move that was taken on, see ``Mover``."""
        ae = self._known.get(asked.command.text(MOVE_DESTINATION))
        locations = await self._select(asked)
        if locations is None:
            raise BackendUnavailable("the manifest cannot be asked now")
        wanted = [one for one in locations if only is None or one.sop_instance_uid in only]
        counts = Counts(len(wanted))
        async for _ in self._move(asked, ae, wanted, counts):
            pass
        return counts

    async def _move(
        self, asked: Asked, ae: KnownAe, locations: list[InstanceLocation], counts: Counts | None = None
    ) -> AsyncGenerator[DimseResponse, None]:
        originator = Originator(asked.calling_ae_title, asked.command.message_id)
        log.info("move", destination=ae.title, calling=asked.calling_ae_title, instances=len(locations))
        async with self._destinations.open(ae, locations, self._outbox.transcodes) as destination:
            performed = perform(_retrieve(asked, originator), locations, destination, self._outbox, counts)
            async with aclosing(performed) as responses:
                async for response in responses:
                    yield response

    async def get(self, asked: Asked) -> AsyncIterator[DimseResponse]:
        """C-GET over the association that it came by. Raises as ``read_selection`` and the manifest do."""
        if asked.requestor is None:
            raise InvalidInput("the proxy at the other end of the relay does not take the instances of a C-GET")
        locations = await self._select(asked)
        if locations is None:
            yield _no_matches(asked)
            return
        log.info("get", calling=asked.calling_ae_title, instances=len(locations))
        performed = perform(_retrieve(asked), locations, Requestor(asked.requestor), self._outbox)
        async with aclosing(performed) as responses:
            async for response in responses:
                yield response

    async def _select(self, asked: Asked) -> list[InstanceLocation] | None:
        """The instances, or None when the manifest cannot be asked now."""
        selection = await _selection(asked)
        try:
            return await select(self._manifest, selection, self._provider)
        except RetryableError as error:
            log.warning("retrieve cannot be begun", error=f"{type(error).__name__}: {error}")
            return None


async def _selection(asked: Asked) -> Selection:
    data, encoding = asked.data, encoding_of(asked.transfer_syntax)
    if data is None:
        raise InvalidInput("the request has no identifier")
    return await off_loop(
        data, lambda: read_selection(asked.abstract_syntax, decode_identifier(data, encoding), asked.extended)
    )


def _retrieve(asked: Asked, originator: Originator | None = None) -> Retrieve:
    return Retrieve(asked.command, encoding_of(asked.transfer_syntax), asked.cancellation, originator)


def _no_matches(asked: Asked) -> DimseResponse:
    status, why = Status.UNABLE_TO_CALCULATE_MATCHES, "the manifest cannot be asked now"
    return DimseResponse(asked.command.response(status, error_comment=why))
