"""Which replica works: the one that holds a Lease (coordination.k8s.io). The others wait until it is free or silent."""

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime

import structlog

from imaging_operator.cluster import Cluster
from imaging_operator.errors import Conflict, ReconcileError
from imaging_operator.metrics import LEADER
from imaging_operator.resources import LEASE, Json

log = structlog.get_logger(__name__)

_RENEWALS = 3
"""Renewals within the time after which silence ends the lead."""


_RELEASE_SECONDS = 5.0


class LeadLost(Exception):
    """Another replica works now: this one must not."""


class Leader:
    """One replica's part in the election.

    Clocks of replicas are not compared: a holder is silent when its Lease did not change for so long while *we* looked.
    """

    def __init__(
        self,
        cluster: Cluster,
        namespace: str,
        name: str,
        identity: str,
        seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._cluster = cluster
        self._namespace = namespace
        self._name = name
        self._identity = identity
        self._seconds = seconds
        self._clock = clock
        self._seen: tuple[str, float] = "", clock()
        self._confirmed = float("-inf")
        self.leads = asyncio.Event()
        """Set while work may begin; clear while the API server does not confirm the lead."""

    async def acquire(self) -> None:
        """Wait until this replica holds the Lease."""
        log.info("waiting for the lead", lease=f"{self._namespace}/{self._name}", identity=self._identity)
        while True:
            if await self._try():
                break
            await asyncio.sleep(self._seconds / _RENEWALS)
        self._set(leads=True)
        log.info("leading", identity=self._identity)

    def lead_alone(self) -> None:
        """Without an election: there is one replica."""
        self._set(leads=True)

    async def hold(self) -> None:
        """Renew for ever. Raises ``LeadLost`` when another replica has the Lease.

        While the API server does not answer, ``leads`` is cleared before another replica may take the Lease, and set
        again when it answers and the Lease is still ours.
        """
        while True:
            await asyncio.sleep(self._seconds / _RENEWALS)
            if await self._try():
                if not self.leads.is_set():
                    log.info("leading again")
                self._set(leads=True)
            elif self._clock() - self._confirmed >= self._seconds * (1 - 1 / _RENEWALS) and self.leads.is_set():
                log.warning("the lead is not confirmed, pausing")
                self._set(leads=False)

    async def release(self) -> None:
        """Let the next replica begin at once; what goes wrong only makes it wait."""
        self._set(leads=False)
        try:
            async with asyncio.timeout(_RELEASE_SECONDS):
                lease = await self._read()
                if lease and lease["spec"].get("holderIdentity") == self._identity:
                    await self._write(lease, holder="")
        except (ReconcileError, TimeoutError) as error:
            log.warning("the lead was not released", error=str(error) or "no answer in time")

    async def _try(self) -> bool:
        """Take or renew the Lease; False when another holds it or the API server does not answer in time."""
        began = self._clock()
        try:
            async with asyncio.timeout(self._seconds / _RENEWALS):
                taken = await self._take()
        except Conflict:
            return False
        except (ReconcileError, TimeoutError) as error:
            log.warning("cannot renew the lead", error=str(error) or "no answer in time")
            return False
        if taken:
            self._confirmed = began
        return taken

    async def _take(self) -> bool:
        lease = await self._read()
        if lease is None:
            await self._cluster.create(LEASE, self._namespace, self._document(None, self._identity))
        elif self._may_take(lease):
            await self._write(lease, holder=self._identity)
        else:
            self._check_not_lost(lease)
            return False
        return True

    def _may_take(self, lease: Json) -> bool:
        holder = lease["spec"].get("holderIdentity") or ""
        version = lease["metadata"]["resourceVersion"]
        if version != self._seen[0]:
            self._seen = version, self._clock()
        silent = self._clock() - self._seen[1]
        patience = float(lease["spec"].get("leaseDurationSeconds") or self._seconds)
        return holder in ("", self._identity) or silent >= patience

    def _check_not_lost(self, lease: Json) -> None:
        if self._confirmed > float("-inf"):
            self._set(leads=False)
            raise LeadLost(f"{lease['spec'].get('holderIdentity')} leads now")

    async def _read(self) -> Json | None:
        return await self._cluster.get(LEASE, self._namespace, self._name)

    async def _write(self, lease: Json, holder: str) -> None:
        await self._cluster.replace(LEASE, self._namespace, self._document(lease, holder))

    def _document(self, lease: Json | None, holder: str) -> Json:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        before = lease["spec"] if lease else {}
        is_new = before.get("holderIdentity") != holder
        return {
            "apiVersion": LEASE.api_version,
            "kind": LEASE.kind,
            "metadata": lease["metadata"] if lease else {"name": self._name, "namespace": self._namespace},
            "spec": {
                "holderIdentity": holder,
                "leaseDurationSeconds": max(1, round(self._seconds)),
                "acquireTime": now if is_new else before.get("acquireTime"),
                "renewTime": now,
                "leaseTransitions": int(before.get("leaseTransitions") or 0) + (1 if is_new and lease else 0),
            },
        }

    def _set(self, *, leads: bool) -> None:
        LEADER.set(1 if leads else 0)
        if leads:
            self.leads.set()
        else:
            self.leads.clear()
