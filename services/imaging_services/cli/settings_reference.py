"""Writes docs/settings.md from the settings classes: ``make docs``."""

import importlib
import sys
from enum import Enum
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import AliasChoices, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from pydantic_settings import BaseSettings

from imaging_services.adapters.s3 import settings as space_settings
from imaging_services.cli.backend import SERVERS as BACKENDS
from imaging_services.local import backend
from imaging_services.runtime import ServiceSettings

COMPONENTS = {
    "dimse-proxy": "dimse_proxy",
    "dimse-ingestion": "dimse_ingestion",
    "dicomweb-ingestion": "dicomweb_ingestion",
    "event-driven-ingestion": "event_driven_ingestion",
    "instance-binding": "instance_binding",
    "study-binding": "study_binding",
    "event-bridge": "event_bridge",
}
INTRODUCTION = """# Settings

Written from the settings classes by `make docs`; a test says whether it agrees with them.

Every service is configured by environment variables, and by files in mounted directories where a variable ends in
`_PATH`. A wrong or missing setting stops the start with a sentence that names it. Durations are in seconds and sizes in
bytes unless the name or the description says otherwise.
"""


def render() -> str:
    """The whole page."""
    pages = [INTRODUCTION, _common()]
    for component, package in COMPONENTS.items():
        settings = importlib.import_module(f"imaging_services.apps.{package}.settings").Settings
        pages.append(f"## `imaging run {component}`\n\n{_table(_own(settings, ServiceSettings))}")
    pages.append(_space_files())
    pages.append(_backends())
    return "\n".join(pages)


def _common() -> str:
    return f"## Every service\n\n{_table(ServiceSettings.model_fields)}"


def _space_files() -> str:
    fields = space_settings.BucketSettings.model_fields
    return (
        "## Files of a storage space\n\nOne file a key, in the directories `BUCKET_CONFIG_PATH` and "
        f"`BUCKET_SECRET_PATH`. Values are trimmed; an empty file counts as absent.\n\n{_table(fields)}"
    )


def _backends() -> str:
    parts = [f"## `imaging backend`\n\nServers for trials.\n\n{_table(_own(backend.BackendSettings, ServiceSettings))}"]
    for server, (settings, _) in BACKENDS.items():
        parts.append(f"### `imaging backend {server}`\n\n{_table(_own(settings, backend.BackendSettings))}")
    return "\n".join(parts)


def _own(settings: type[BaseSettings], base: type[BaseSettings]) -> dict[str, FieldInfo]:
    return {name: info for name, info in settings.model_fields.items() if name not in base.model_fields}


def _table(fields: dict[str, FieldInfo]) -> str:
    rows = [
        f"| {_names(name, info)} | {_type(info.annotation)} | {_default(info)} | {_cell(info.description)} |"
        for name, info in fields.items()
    ]
    return "\n".join(["| variable | type | default | meaning |", "|---|---|---|---|", *rows, ""])


def _names(name: str, info: FieldInfo) -> str:
    alias = info.validation_alias
    names = [str(choice) for choice in alias.choices] if isinstance(alias, AliasChoices) else [str(alias or name)]
    return ", ".join(f"`{one}`" for one in names)


def _type(annotation: Any) -> str:
    if annotation is SecretStr:
        return "secret"
    if get_origin(annotation) is Literal:
        return " or ".join(f"`{choice}`" for choice in get_args(annotation))
    if get_origin(annotation) in (Union, UnionType):
        return " or ".join(_type(part) for part in get_args(annotation) if part is not type(None))
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return " or ".join(f"`{member.value}`" for member in annotation)
    return str(getattr(annotation, "__name__", annotation)).replace("|", "or")


def _default(info: FieldInfo) -> str:
    if info.is_required():
        return "required"
    value = info.default if info.default is not PydanticUndefined else info.get_default(call_default_factory=True)
    if value is None or value == "" or value == ():
        return "–"
    return f"`{value.value if isinstance(value, Enum) else value}`"


def _cell(text: str | None) -> str:
    return (text or "").replace("|", "\\|").replace("\n", " ")


if __name__ == "__main__":
    sys.stdout.write(render())
