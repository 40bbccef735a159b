"""The checksum that rolls pods when something they read changes."""

import hashlib
import json
from collections.abc import Mapping

from imaging_operator.builders.types import Json


def config_checksum(found: Mapping[str, Json], own: Mapping[str, Json]) -> str:
    """SHA-256 over the data of every referenced Secret and ConfigMap, and of ConfigMaps of the resource's own.

    Only what the containers see counts: a new label or resourceVersion does not roll pods. Of a Secret nothing can be
    read back from it but whether it changed. What is ``found`` wins over ``own`` at the same key: a ConfigMap that the
    operator makes and the user may edit.
    """
    seen = {key: _data(each) for key, each in {**own, **found}.items() if "spec" not in each}
    return hashlib.sha256(json.dumps(seen, sort_keys=True).encode()).hexdigest()


def _data(document: Json) -> Json:
    return {part: document.get(part) or {} for part in ("data", "binaryData")}
