"""Where the sub-operations of a retrieve go: another AE, the proxy at the other end of the relay, or the requestor."""

from collections.abc import Awaitable, Iterable, Sequence
from typing import Protocol
from uuid import uuid4

from imaging_services.apps.dimse_ingestion.outgoing import DataSource
from imaging_services.domain.dicom.command_set import ERROR_COMMENT, CommandSet
from imaging_services.domain.dicom.dimse import StoreAnswer
from imaging_services.domain.dicom.storage_scp import Context, StorageScp
from imaging_services.domain.dicom.transfer_syntaxes import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN
from imaging_services.domain.errors import (
    AssociationRejected,
    BackendUnavailable,
    DeadlineExceeded,
    OutOfResources,
    PermanentError,
    UnsupportedSopClass,
)
from imaging_services.domain.manifest.query import InstanceLocation
from imaging_services.domain.relay.messages import Call, Origin
from imaging_services.domain.relay.ports import RelayLink

_UNCOMPRESSED = (EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN)


class Unreachable(PermanentError):
    """The destination takes nothing any more: the sub-operations that are left would fail as well."""


class Destination(Protocol):
    """Takes instances one after another."""

    def candidates(self, location: InstanceLocation, transcodes: bool) -> Sequence[str]:
        """Transfer syntaxes to try, the stored one first. Raises ``UnsupportedSopClass`` when there is none."""
        ...

    async def store(
        self, location: InstanceLocation, syntax: str, command: CommandSet, data: DataSource
    ) -> StoreAnswer:
        """C-STORE. Raises ``Refused`` or ``UnsupportedSopClass`` when this syntax is not accepted, before a byte is
        sent, and ``Unreachable``."""
        ...


class StorePool(Protocol):
    """Associations to one AE, see ``AssociationPool``."""

    def store(
        self,
        sop_class_uid: str,
        sop_instance_uid: str,
        transfer_syntax: str,
        data: DataSource,
        *,
        extra_contexts: Iterable[Context] = (),
        command: CommandSet | None = None,
    ) -> Awaitable[CommandSet]:
        """The response's command set, whatever its status."""
        ...


class KnownDestination:
    """An AE that is called. Every context that the instances need is proposed with the first association."""

    def __init__(self, pool: StorePool, locations: Iterable[InstanceLocation], transcodes: bool) -> None:
        self._pool = pool
        contexts = ((one.sop_class_uid, syntax) for one in locations for syntax in self.candidates(one, transcodes))
        self._contexts = list(dict.fromkeys(contexts))

    def candidates(self, location: InstanceLocation, transcodes: bool) -> Sequence[str]:
        """See ``Destination``."""
        return _offered(location.transfer_syntax_uid, transcodes)

    async def store(
        self, location: InstanceLocation, syntax: str, command: CommandSet, data: DataSource
    ) -> StoreAnswer:
        """See ``Destination``."""
        try:
            response = await self._pool.store(
                location.sop_class_uid,
                location.sop_instance_uid,
                syntax,
                data,
                extra_contexts=self._contexts,
                command=command,
            )
        except DeadlineExceeded as error:  # with more of them, a requestor would wait for hours
            raise Unreachable(str(error)) from error
        return StoreAnswer(response.status, response.text(ERROR_COMMENT))


class ProxyDestination:
    """The target AE of the proxy at the other end of the relay, which is called with the title asked for."""

    def __init__(self, link: RelayLink, *, calling: str, called: str) -> None:
        self._link, self._origin = link, Origin(uuid4().hex, calling, called)

    def candidates(self, location: InstanceLocation, transcodes: bool) -> Sequence[str]:
        """See ``Destination``."""
        return _offered(location.transfer_syntax_uid, transcodes)

    async def store(
        self, location: InstanceLocation, syntax: str, command: CommandSet, data: DataSource
    ) -> StoreAnswer:
        """See ``Destination``."""
        try:
            return await self._link.store_confirmed(Call(self._origin, location.sop_class_uid, syntax, command), data())
        except (AssociationRejected, BackendUnavailable, DeadlineExceeded, OutOfResources) as error:
            raise Unreachable(str(error)) from error


class Requestor:
    """The requestor of a C-GET, over the association of its request: here, or at the other end of the relay."""

    def __init__(self, scp: StorageScp) -> None:
        self._scp = scp
        self._syntaxes: dict[str, set[str]] = {}
        for sop_class, syntax in scp.contexts:
            self._syntaxes.setdefault(sop_class, set()).add(syntax)

    def candidates(self, location: InstanceLocation, transcodes: bool) -> Sequence[str]:
        """See ``Destination``."""
        accepted, stored = self._syntaxes.get(location.sop_class_uid, set()), location.transfer_syntax_uid
        if stored in accepted:
            return [stored]
        if not accepted:
            raise UnsupportedSopClass("the requestor has negotiated no SCP role for this SOP class")
        if not transcodes:
            raise UnsupportedSopClass(f"the requestor does not take transfer syntax {stored}")
        return [syntax for syntax in _UNCOMPRESSED if syntax in accepted]

    async def store(
        self, location: InstanceLocation, syntax: str, command: CommandSet, data: DataSource
    ) -> StoreAnswer:
        """See ``Destination``."""
        try:
            response = await self._scp.store(location.sop_class_uid, syntax, command, data())
        except (BackendUnavailable, DeadlineExceeded) as error:
            raise Unreachable(str(error)) from error
        return StoreAnswer(response.status, response.text(ERROR_COMMENT))


def _offered(stored: str, transcodes: bool) -> list[str]:
    """What is offered of an instance: as it is stored, then uncompressed, which every AE should understand."""
    others = _UNCOMPRESSED if transcodes else ()
    return [stored, *(syntax for syntax in others if syntax != stored)]
