"""The seven kinds: references, objects and status of each, as pure functions of spec and references."""

from collections.abc import Mapping
from typing import Any

from imaging_operator.kinds import (
    dicomweb_ingestion,
    dimse_ingestion,
    dimse_proxy,
    event_bridge,
    event_driven_ingestion,
)
from imaging_operator.kinds.bindings import INSTANCE_BINDING, STUDY_BINDING
from imaging_operator.kinds.common import Kind

KINDS: Mapping[str, Kind[Any]] = {
    kind.name: kind
    for kind in (
        event_driven_ingestion.KIND,
        dicomweb_ingestion.KIND,
        INSTANCE_BINDING,
        STUDY_BINDING,
        dimse_ingestion.KIND,
        dimse_proxy.KIND,
        event_bridge.KIND,
    )
}
"""By the name of the kind."""
