"""Study revisions that come over an event bridge: a study is announced once at each site."""

from collections.abc import Awaitable, Callable

import orjson
import structlog

from imaging_services.domain.errors import InvalidInput
from imaging_services.domain.events.envelope import BRIDGE_ORIGIN, STUDY_REVISION, CloudEvent
from imaging_services.domain.manifest.query import Level, Query
from imaging_services.domain.ports import ManifestQuery

log = structlog.get_logger(__name__)

Record = Callable[[CloudEvent], Awaitable[None]]
_STUDY_INSTANCE_UID = "0020000D"


def announcing_once(manifest: ManifestQuery, record: Record) -> Record:
    """``record``, but without the other site's revision of a study that this manifest holds instances of.

    Where ``ImageStoredEvent`` crosses the bridge too, this site makes revisions of the study by itself, and its
    subscribers would be told of each twice.
    """

    async def accept(event: CloudEvent) -> None:
        if event.type == STUDY_REVISION and BRIDGE_ORIGIN in event.extensions:
            study = _study(event)
            query = Query(Level.STUDY, filters={_STUDY_INSTANCE_UID: (study,)}, limit=1)
            if await manifest.search(query):
                log.info("bridged revision of an own study left out", study_instance_uid=study)
                return
        await record(event)

    return accept


def _study(event: CloudEvent) -> str:
    try:
        return str(orjson.loads(event.data)["study"]["studyInstanceUID"])
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise InvalidInput(f"study revision {event.id} names no study") from error
