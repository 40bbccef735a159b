"""ConfigMaps: the operator's own, and those that a user may edit."""

from collections.abc import Mapping

from pydicom.uid import UID

from imaging_operator.builders.names import CREATE_ONLY, metadata
from imaging_operator.builders.types import Json, Owner
from imaging_services.adapters.dimse.capability_lists import (
    DEFAULT_SOP_CLASSES,
    DEFAULT_TRANSFER_SYNTAXES,
    SOP_CLASSES_FILE,
    TRANSFER_SYNTAXES_FILE,
)


def config_map(owner: Owner, name: str, component: str, data: Mapping[str, str], *, create_only: bool = False) -> Json:
    """A ConfigMap; one that is ``create_only`` is made when it is absent, and then belongs to the user."""
    annotations = {CREATE_ONLY: "true"} if create_only else None
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata(owner, name, component, annotations=annotations),
        "data": dict(sorted(data.items())),
    }


def capability_lists() -> dict[str, str]:
    """``IMAGE_CUIDS`` and ``IMAGE_TSUIDS``: what the services accept by default, as ``Keyword:UID`` lines to edit."""
    return {SOP_CLASSES_FILE: _lines(DEFAULT_SOP_CLASSES), TRANSFER_SYNTAXES_FILE: _lines(DEFAULT_TRANSFER_SYNTAXES)}


def _lines(uids: tuple[str, ...]) -> str:
    return "".join(f"{UID(uid).keyword or 'Unnamed'}:{uid}\n" for uid in uids)
