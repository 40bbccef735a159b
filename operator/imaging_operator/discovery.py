"""What the cluster offers now: our own kinds, Knative, KEDA. It comes and goes while the operator runs."""

import asyncio
from collections.abc import Mapping

import structlog

from imaging_operator.cluster import Cluster
from imaging_operator.errors import ReconcileError
from imaging_operator.kinds.common import Features
from imaging_operator.resources import (
    BROKER,
    CONFIG_MAP,
    KNATIVE_SERVICE,
    OWNED,
    SCALED_OBJECT,
    SECRET,
    SINK_BINDING,
    TRIGGER,
    Resource,
)

log = structlog.get_logger(__name__)

_COMES_AND_GOES = (BROKER, KNATIVE_SERVICE, SCALED_OBJECT, SINK_BINDING, TRIGGER)


class Discovery:
    """Kinds that are served, as of the last look."""

    def __init__(self, cluster: Cluster, customs: Mapping[str, Resource]) -> None:
        self._cluster = cluster
        self._customs = customs
        self._served: frozenset[Resource] = frozenset()
        self.changed = asyncio.Event()
        """Set when a look saw something else than the one before; whoever waits for it clears it."""

    @property
    def features(self) -> Features:
        """What builders may use."""
        return Features(
            knative_serving=KNATIVE_SERVICE in self._served,
            knative_eventing={BROKER, TRIGGER, SINK_BINDING} <= self._served,
            keda=SCALED_OBJECT in self._served,
        )

    @property
    def customs(self) -> tuple[Resource, ...]:
        """Those of the seven kinds that are served."""
        return tuple(each for each in self._customs.values() if each in self._served)

    @property
    def owned(self) -> tuple[Resource, ...]:
        """Kinds that can be owned."""
        return tuple(each for each in OWNED if each not in _COMES_AND_GOES or each in self._served)

    @property
    def watched(self) -> tuple[Resource, ...]:
        """Everything whose changes matter."""
        return tuple(dict.fromkeys((*self.customs, SECRET, CONFIG_MAP, *self.owned)))

    async def look(self) -> None:
        """Ask the API server. Raises ``ApiUnavailable``."""
        served = await self._cluster.served((*self._customs.values(), *_COMES_AND_GOES))
        if served != self._served:
            gone, new = self._served - served, served - self._served
            log.info("served kinds changed", new=sorted(map(_name, new)), gone=sorted(map(_name, gone)))
            self._served = served
            self.changed.set()

    async def keep_looking(self, seconds: float) -> None:
        """Look again and again, for ever; while the API server is away the last answer counts."""
        while True:
            await asyncio.sleep(seconds)
            try:
                await self.look()
            except ReconcileError as error:
                log.warning("cannot look for served kinds", error=str(error))


def _name(resource: Resource) -> str:
    return f"{resource.plural}.{resource.group}"
