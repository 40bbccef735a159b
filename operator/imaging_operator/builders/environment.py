"""Environment of a container: what the operator sets, and what users may set instead.

Precedence, weakest first: values that the operator derives, keys of the ConfigMaps and Secrets that the kind is about
(database, binding), values that fields of the resource choose, keys of ``serviceConfigName``, ``env`` of the resource.
What has to agree with the pod's ports and mounts is fixed.
"""

import base64
import binascii
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from imaging_operator.builders.types import Json
from imaging_operator.errors import Wrong


@dataclass(frozen=True, slots=True)
class SecretKey:
    """A value that stays in its Secret."""

    secret: str
    key: str


Value = str | SecretKey


@dataclass(frozen=True, slots=True)
class Environment:
    """Variables of one container."""

    fixed: Mapping[str, str] = field(default_factory=dict)
    """What agrees with ports and mounts: nobody may change it."""
    values: Mapping[str, Value] = field(default_factory=dict)
    """What the operator derives."""
    chosen: Mapping[str, Value] = field(default_factory=dict)
    """What fields of the resource choose."""
    brought: Collection[str] = ()
    """Names in the kind's own ConfigMaps and Secrets."""
    overridden: Collection[str] = ()
    """Names in the ConfigMap of ``serviceConfigName``."""
    overrides: Sequence[tuple[str, str]] = ()
    """``env`` of the resource: name and value."""

    def effective(self) -> dict[str, Value]:
        """By name, as it will be rendered. Raises ``Wrong`` when ``env`` sets what is fixed."""
        derived = {name: value for name, value in self.values.items() if name not in self.brought}
        merged = {name: value for name, value in {**derived, **self.chosen}.items() if name not in self.overridden}
        for name, value in self.overrides:
            if name in self.fixed:
                raise Wrong(f"spec.env: {name} is set by the operator, to {self.fixed[name]}; remove it")
            merged[name] = value
        return merged | dict(self.fixed)

    def render(self) -> list[Json]:
        """The ``env`` of a container, sorted by name."""
        return [_entry(name, value) for name, value in sorted(self.effective().items())]


def _entry(name: str, value: Value) -> Json:
    if isinstance(value, SecretKey):
        return {"name": name, "valueFrom": {"secretKeyRef": {"name": value.secret, "key": value.key}}}
    return {"name": name, "value": value}


def config_map_env(name: str) -> Json:
    """``envFrom`` entry of a ConfigMap."""
    return {"configMapRef": {"name": name}}


def secret_env(name: str) -> Json:
    """``envFrom`` entry of a Secret."""
    return {"secretRef": {"name": name}}


def keys_of(*objects: Json | None) -> frozenset[str]:
    """Keys of ConfigMaps and Secrets, which may have no data at all."""
    return frozenset(key for each in objects if each for key in each.get("data") or {})


def value_of(name: str, config_map: Json | None, secret: Json | None = None) -> str | None:
    """A key's text as the pod sees it: a Secret that follows a ConfigMap in ``envFrom`` wins."""
    encoded = ((secret or {}).get("data") or {}).get(name)
    if encoded is not None:
        try:
            return base64.b64decode(encoded or "", validate=True).decode()
        except (binascii.Error, UnicodeError):
            return None
    value = ((config_map or {}).get("data") or {}).get(name)
    return None if value is None else str(value)


def boolean(value: bool) -> str:
    """As the services' settings and the reference system write it."""
    return "true" if value else "false"
