"""What can be retrieved of what is recorded."""

from collections.abc import Sequence

import structlog

from imaging_services.domain.errors import ObjectMissing
from imaging_services.domain.manifest.query import InstanceLocation

log = structlog.get_logger(__name__)


def present(locations: Sequence[InstanceLocation]) -> list[InstanceLocation]:
    """Those whose objects are not known to be missing. Raises ``ObjectMissing`` when there are some, and all of them
    are."""
    found = [one for one in locations if one.missing_since is None]
    if len(found) < len(locations):
        study = locations[0].study_instance_uid
        log.warning("missing instances left out", study_instance_uid=study, instances=len(locations) - len(found))
        if not found:
            raise ObjectMissing("the stored file is missing: it has to be sent again, or restored from a backup")
    return found
