"""What a resource refers to: looked up before each pass, and remembered so that a change of it wakes the resource."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from imaging_operator.cluster import Cluster
from imaging_operator.errors import MissingReference
from imaging_operator.kinds.common import Reference
from imaging_operator.resources import CONFIG_MAP, SECRET, Json, Key, Resource

ANY = ""
"""In place of a name: any object of the kind may be meant."""


class Target(NamedTuple):
    """An object that is referred to, whether it exists or not."""

    kind: str
    namespace: str
    name: str


class ReferenceIndex:
    """Which resources wait for, or use, an object. Absent objects count: their appearance is what is waited for."""

    def __init__(self) -> None:
        self._users: dict[Target, set[Key]] = {}
        self._targets: dict[Key, frozenset[Target]] = {}

    def remember(self, key: Key, targets: Iterable[Target]) -> None:
        """Replaces what was known of the resource; nothing forgets it."""
        self.forget(key)
        self._targets[key] = frozenset(targets)
        for target in self._targets[key]:
            self._users.setdefault(target, set()).add(key)

    def forget(self, key: Key) -> None:
        """The resource is gone."""
        for target in self._targets.pop(key, ()):
            users = self._users[target]
            users.discard(key)
            if not users:
                del self._users[target]

    def users(self, kind: str, namespace: str, name: str) -> set[Key]:
        """Resources to look at when this object appears, changes or goes."""
        named = self._users.get(Target(kind, namespace, name), set())
        return named | self._users.get(Target(kind, namespace, ANY), set())


@dataclass(slots=True)
class Resolved:
    """References as they are now."""

    found: dict[str, Json] = field(default_factory=dict)
    """Those that exist, by key."""
    targets: list[Target] = field(default_factory=list)
    """All that are known, also beyond a missing one."""
    missing: str = ""
    """The message of the first one that is missing; empty: none is."""

    def raise_if_missing(self) -> None:
        """Raises ``MissingReference``."""
        if self.missing:
            raise MissingReference(self.missing)


async def resolve(
    cluster: Cluster, customs: Mapping[str, Resource], namespace: str, references: Sequence[Reference]
) -> Resolved:
    """Look references up in their order; ``customs`` says where the seven kinds are served.

    Nothing after the first missing one is read, but what is named is a target all the same.
    """
    resources = {SECRET.kind: SECRET, CONFIG_MAP.kind: CONFIG_MAP, **customs}
    resolved = Resolved()
    for reference in references:
        if resolved.missing and reference.named_by:
            continue  # its name is not known yet
        name = reference.named_by(resolved.found) if reference.named_by else reference.name
        if not name and reference.matches is None:
            resolved.missing = resolved.missing or _message_if_needed(reference)
            continue
        resolved.targets.append(Target(reference.kind, namespace, name or ANY))
        if resolved.missing:
            continue
        found = await _look_up(cluster, resources[reference.kind], namespace, name, reference)
        if found is not None:
            resolved.found[reference.key] = found
        elif not reference.optional:
            resolved.missing = reference.missing
    return resolved


def _message_if_needed(reference: Reference) -> str:
    """A reference without a name is missing, unless it is optional or follows from others."""
    return "" if reference.optional or reference.named_by else reference.missing


async def _look_up(
    cluster: Cluster, resource: Resource, namespace: str, name: str, reference: Reference
) -> Json | None:
    if name:
        return await cluster.get(resource, namespace, name)
    candidates = [each for each in await cluster.list(resource, namespace) if _matches(reference, each)]
    return min(candidates, key=_age, default=None)


def _matches(reference: Reference, document: Json) -> bool:
    return reference.matches is not None and reference.matches(document)


def _age(document: Json) -> tuple[Any, ...]:
    """The oldest first; names decide between equals."""
    metadata = document["metadata"]
    return metadata.get("creationTimestamp") or "", metadata["name"]
