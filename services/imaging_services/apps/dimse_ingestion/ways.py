"""The ways to known AEs: associations opened for a retrieve or a report, or the relay to the proxy's target."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import cache

from imaging_services.adapters.dimse.pool import AssociationPool
from imaging_services.adapters.dimse.requestor import RemoteAE
from imaging_services.adapters.dimse.settings import AssociationLimits
from imaging_services.adapters.dimse.tls import TlsContext
from imaging_services.apps.dimse_ingestion.destinations import (
    Destination,
    KnownDestination,
    ProxyDestination,
    Unreachable,
)
from imaging_services.apps.dimse_ingestion.known_aes import KnownAe
from imaging_services.domain.dicom.dimse import DicomPeer, EventReportHandler, ProposedContext, Requestor, Role
from imaging_services.domain.errors import ImagingError, Refused
from imaging_services.domain.manifest.query import InstanceLocation
from imaging_services.domain.relay.ports import RelayLink

ClientTls = Callable[[], TlsContext]


class Ways:
    """Opens the way to a known AE; ``ae_title`` is the own one. ``relay`` None: nobody is behind a proxy."""

    def __init__(
        self, ae_title: str, limits: AssociationLimits, client_tls: ClientTls, relay: RelayLink | None
    ) -> None:
        self._ae_title, self._limits, self._client_tls, self.relay = ae_title, limits, cache(client_tls), relay

    @asynccontextmanager
    async def open(
        self, ae: KnownAe, locations: Sequence[InstanceLocation], transcodes: bool
    ) -> AsyncIterator[Destination]:
        """Where instances can be sent to, see ``Destinations``."""
        if ae.behind_proxy:
            yield ProxyDestination(self.link(ae), calling=self._ae_title, called=ae.title)
            return
        pool = AssociationPool(_Surely(self.peer(ae)), self._ae_title, ae.title, max_associations=1)
        try:
            yield KnownDestination(pool, locations, transcodes)
        finally:
            await pool.close()

    def peer(self, ae: KnownAe) -> DicomPeer:
        """The AE as one that associations can be opened with."""
        return RemoteAE(ae.host, ae.port, self._limits, tls=self._client_tls() if ae.tls else None)

    def link(self, ae: KnownAe) -> RelayLink:
        """The relay to it. Raises ``Refused`` when this process has none."""
        if self.relay is None:
            raise Refused(f"{ae.title} is behind a proxy, and DIMSE_NATS_DISABLED is true")
        return self.relay


class _Surely:
    """A peer with which no association can be opened is not asked again, whatever the reason."""

    def __init__(self, peer: DicomPeer) -> None:
        self._peer = peer

    async def associate(
        self,
        *,
        calling_ae_title: str,
        called_ae_title: str,
        contexts: tuple[ProposedContext, ...],
        roles: Mapping[str, Role] | None = None,
        extended: Mapping[str, bytes] | None = None,
        events: EventReportHandler | None = None,
    ) -> Requestor:
        """See ``DicomPeer.associate``; raises ``Unreachable`` for each of its errors."""
        try:
            return await self._peer.associate(
                calling_ae_title=calling_ae_title,
                called_ae_title=called_ae_title,
                contexts=contexts,
                roles=roles,
                extended=extended,
                events=events,
            )
        except ImagingError as error:
            raise Unreachable(str(error)) from error
