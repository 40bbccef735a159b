"""Associations that are sending instances hold the revisions of their studies back."""

import asyncio
import time
from datetime import timedelta

import structlog

from imaging_services.domain.errors import RetryableError
from imaging_services.domain.ports import StudyHolds
from imaging_services.domain.relay.messages import AssociationNotice, AssociationState

log = structlog.get_logger(__name__)


class AssociationHolds:
    """Holds once per association and study, renewed while the association lives; ``lease`` in seconds."""

    def __init__(self, holds: StudyHolds, lease: float) -> None:
        self._holds, self._seconds, self._lease = holds, lease, timedelta(seconds=lease)
        self._held: dict[str, dict[str, float]] = {}
        self._direct: set[str] = set()

    async def hold(self, association_id: str, study_instance_uid: str, *, direct: bool) -> None:
        """The association sends this study. ``direct``: it is one of this process, which renews the hold itself.

        Raises a RetryableError when the hold could not be recorded.
        """
        studies = self._held.setdefault(association_id, {})
        if direct:
            self._direct.add(association_id)
        now = time.monotonic()
        if studies.get(study_instance_uid, 0) > now + self._seconds / 2:
            return
        await self._holds.hold(association_id, study_instance_uid, self._lease)
        studies[study_instance_uid] = now + self._seconds

    async def noticed(self, notice: AssociationNotice) -> None:
        """An association at the other end of the relay was opened, lives, or has closed. Raises a RetryableError when
        its end could not be recorded."""
        association_id = notice.origin.association_id
        if notice.state is AssociationState.CLOSED:
            await self._release(association_id)
        elif notice.state is AssociationState.RENEWED:
            # Also one that this process knows nothing of: the process that held for it may have died.
            await self._renew(association_id, timedelta(seconds=notice.lease_seconds))

    async def ended(self, association_id: str) -> None:
        """An association of this process has ended; one that stored nothing held nothing. When the end cannot be
        recorded, the lease ends the hold."""
        if association_id not in self._direct:
            return
        try:
            await self._release(association_id)
        except RetryableError as error:
            log.warning("study hold not released, its lease ends it", association=association_id, error=str(error))

    async def keep(self) -> None:
        """Renew the holds of this process's own associations, and forget expired ones, until cancelled."""
        while True:
            await asyncio.sleep(self._seconds / 3)
            for association_id in list(self._direct):
                await self._renew(association_id, self._lease)
            self._forget()

    async def _release(self, association_id: str) -> None:
        self._held.pop(association_id, None)
        self._direct.discard(association_id)
        await self._holds.release(association_id)

    async def _renew(self, association_id: str, lease: timedelta) -> None:
        try:
            await self._holds.renew(association_id, lease)
        except RetryableError as error:
            log.warning("study hold not renewed", association=association_id, error=str(error))
            return
        expiry = time.monotonic() + lease.total_seconds()
        studies = self._held.get(association_id, {})
        studies.update(dict.fromkeys(studies, expiry))

    def _forget(self) -> None:
        now = time.monotonic()
        for association_id, studies in list(self._held.items()):
            if association_id not in self._direct and all(expiry < now for expiry in studies.values()):
                del self._held[association_id]
