"""The requestor of a C-GET, which is the SCP of the C-STORE sub-operations (PS3.4 section C.4.3)."""

from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from imaging_services.domain.dicom.command_set import CommandSet
from imaging_services.domain.dicom.dimse import Association
from imaging_services.domain.errors import BackendUnavailable, UnsupportedSopClass

Context = tuple[str, str]
"""SOP class UID and transfer syntax UID."""


class StorageScp(Protocol):
    """Takes the instances that a C-GET asks for, one at a time."""

    @property
    def contexts(self) -> Sequence[Context]:
        """What it takes: the contexts in which it has the role of an SCP (PS3.7 annex D.3.3.4)."""
        ...

    async def store(
        self, sop_class_uid: str, transfer_syntax: str, command: CommandSet, data: AsyncIterator[bytes]
    ) -> CommandSet:
        """C-STORE in the context of this SOP class and transfer syntax; the response's command set, whatever its
        status. Raises ``UnsupportedSopClass`` for a context that it does not take, before a byte is read,
        ``BackendUnavailable`` and ``DeadlineExceeded`` when it takes nothing any more, and what ``data`` raises."""
        ...


class RequestorScp:
    """The requestor of an association of this process: implements ``StorageScp``."""

    def __init__(self, association: Association) -> None:
        self._requests = association.sub_operations
        self._ids: dict[Context, int] = {}
        for context in association.contexts.values():
            role = association.roles.get(context.abstract_syntax)
            if role is not None and role.scp:
                self._ids[context.abstract_syntax, context.transfer_syntax] = context.context_id

    @property
    def contexts(self) -> Sequence[Context]:
        """See ``StorageScp``."""
        return tuple(self._ids)

    async def store(
        self, sop_class_uid: str, transfer_syntax: str, command: CommandSet, data: AsyncIterator[bytes]
    ) -> CommandSet:
        """See ``StorageScp``."""
        context_id = self._ids.get((sop_class_uid, transfer_syntax))
        if context_id is None:
            raise UnsupportedSopClass(f"the requestor does not take {sop_class_uid} in {transfer_syntax}")
        if self._requests is None:
            raise BackendUnavailable("the association takes no requests of this side")
        return await self._requests.store(context_id, command, data)
