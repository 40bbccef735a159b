"""Knative's own YAML, from its Go modules: all that an installation is made of."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from knative.modules import module_folder

Json = dict[str, Any]
PARTS = (
    ("knative.dev/serving", "config/core"),
    ("knative.dev/networking", "config"),
    ("knative.dev/caching", "config"),
    ("knative.dev/eventing", "config/core"),
    ("knative.dev/eventing", "config/brokers/mt-channel-broker"),
    ("knative.dev/eventing", "config/channels/in-memory-channel"),
    ("knative.dev/eventing", "third_party/eventing-integrations-latest"),
)
"""Go modules and folders in them, from which releases of Serving and Eventing are put together too."""


def documents() -> list[Json]:
    """Every object of both; images are still ``ko://`` and the Go package."""
    return [document for module, folder in PARTS for document in _documents(module_folder(module) / folder)]


def _documents(folder: Path) -> Iterator[Json]:
    for path in sorted(folder.rglob("*.yaml")):
        yield from filter(None, yaml.safe_load_all(path.read_text()))
