"""Handing an instance on by C-STORE (PS3.4 annex B), and reading the status."""

from collections.abc import AsyncIterator, Callable
from typing import Protocol

import structlog
from prometheus_client import Counter

from imaging_services.apps.instance_binding.instance import Instance
from imaging_services.domain.dicom.command_set import ERROR_COMMENT, CommandSet
from imaging_services.domain.errors import BackendUnavailable, OutOfResources, Refused

log = structlog.get_logger(__name__)

WARNINGS = Counter("imaging_instance_binding_warnings", "instances stored by the target with a warning status")

_DUPLICATE_SOP_INSTANCE = 0x0111


class StorePool(Protocol):
    """Associations to one AE."""

    async def store(
        self,
        sop_class_uid: str,
        sop_instance_uid: str,
        transfer_syntax: str,
        data: bytes | Callable[[], AsyncIterator[bytes]],
    ) -> CommandSet:
        """C-STORE; returns the response's command set. Raises when the peer does not take the context."""
        ...


class CStoreTarget:
    """A remote AE that stores; the data set goes out as it is, in its stored transfer syntax."""

    def __init__(self, pool: StorePool) -> None:
        self._pool = pool

    async def send(self, instance: Instance) -> None:
        """Return when the AE has answered success or a warning.

        Raises ``OutOfResources`` for A7xxH, ``Refused`` for every other failure, ``UnsupportedSopClass`` or
        ``Refused`` when it does not take the SOP class or the transfer syntax.
        """
        response = await self._pool.store(
            instance.sop_class_uid, instance.sop_instance_uid, instance.transfer_syntax, instance.data_set_blocks
        )
        judge(response.status, response.text(ERROR_COMMENT), instance.sop_instance_uid)


def judge(status: int, comment: str, sop_instance_uid: str) -> None:
    """Return when the status (PS3.4 table B.2-1, PS3.7 annex C) says stored; otherwise raise what it means."""
    if status == 0x0000:
        return
    if status & 0xF000 == 0xB000 or status in (0x0001, 0x0107, 0x0116, _DUPLICATE_SOP_INSTANCE):
        WARNINGS.inc()
        log.warning("target answered with a warning", instance=sop_instance_uid, status=f"{status:04X}H")
        return
    sentence = f"the target answered status {status:04X}H{f' ({comment})' if comment else ''}"
    if status & 0xFF00 == 0xA700:
        raise OutOfResources(sentence)
    if status == 0xFE00:
        raise BackendUnavailable(sentence)
    raise Refused(sentence)
