"""Resources and their objects as YAML: what goes into a kind's ``build``, and what came out when it was last written.

``tests/data/operator/<mode>/<case>.in.yaml`` holds the resource and then what it refers to; ``<case>.out.yaml`` the
objects. After a change that is meant, write the latter anew::

    PYTHONPATH=tests .venv/bin/python -m support.operator_kinds
"""

import copy
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from imaging_operator.errors import MissingReference
from imaging_operator.kinds import KINDS
from imaging_operator.kinds.common import Features, Json, Reference, Wanted
from imaging_operator.settings import OperatorSettings

DATA = Path(__file__).parents[1] / "data" / "operator"
NOTHING = Features()
KNATIVE = Features(knative_serving=True, knative_eventing=True)
KEDA = Features(keda=True)


@dataclass(frozen=True)
class Case:
    """One pair of files."""

    path: Path

    @property
    def name(self) -> str:
        """``plain/dimse-proxy``."""
        return f"{self.path.parent.name}/{self.path.name.removesuffix('.in.yaml')}"

    @property
    def settings(self) -> OperatorSettings:
        """The operator's settings in this mode."""
        mode = self.path.parent.name
        nats = "" if mode == "knative" else "nats://nats.messaging.svc:4222"
        return OperatorSettings(KNATIVE=mode == "knative", EVENTS_NATS_URL=nats, IMAGE="imaging-ingestion:0.1.0")

    @property
    def features(self) -> Features:
        """What the cluster offers in this mode."""
        return {"plain": NOTHING, "knative": KNATIVE, "keda": KEDA}[self.path.parent.name]

    def documents(self) -> list[Json]:
        """The resource, then its references."""
        return load(self.path)

    def expected(self) -> list[Json]:
        """The objects as they were written."""
        return load(self.out)

    @property
    def out(self) -> Path:
        """The file of the objects."""
        return self.path.with_name(self.path.name.replace(".in.yaml", ".out.yaml"))

    def wanted(self) -> Wanted[Any]:
        """The resource with its references. Raises ``MissingReference``."""
        resource, *others = self.documents()
        return wanted(resource, others, self.features)

    def build(self) -> list[Json]:
        """The objects that the resource wants now."""
        return list(KINDS[self.wanted().kind].build(self.wanted(), self.settings))


def cases() -> list[Case]:
    """All cases by name."""
    return [Case(path) for path in sorted(DATA.glob("*/*.in.yaml"))]


def case(name: str) -> Case:
    """One case: ``plain/dimse-proxy``."""
    return Case(DATA / f"{name}.in.yaml")


@cache
def _loaded(path: Path) -> list[Json]:
    return [each for each in yaml.safe_load_all(path.read_text("utf-8")) if each]


def load(path: Path) -> list[Json]:
    """The documents of a file."""
    return copy.deepcopy(_loaded(path))


def wanted(resource: Json, others: Iterable[Json] = (), features: Features = NOTHING) -> Wanted[Any]:
    """A resource with its references, as the reconciler makes it. Raises ``MissingReference``."""
    kind, metadata = KINDS[resource["kind"]], resource["metadata"]
    spec = kind.spec.model_validate(resource.get("spec") or {})
    found = resolve(kind.references(metadata["name"], spec), [resource, *others])
    return Wanted(kind.name, metadata["name"], metadata["namespace"], "uid-1", spec, found, features)


def resolve(references: Iterable[Reference], documents: Iterable[Json]) -> dict[str, Json]:
    """The references that exist, by key. Raises ``MissingReference``."""
    documents, found = list(documents), dict[str, Json]()
    for reference in references:
        name = reference.named_by(found) if reference.named_by else reference.name
        if not name and (reference.named_by or (reference.optional and not reference.matches)):
            continue
        match = next((each for each in documents if _is(each, reference, name)), None)
        if match is not None:
            found[reference.key] = match
        elif not reference.optional:
            raise MissingReference(reference.missing)
    return found


def _is(document: Json, reference: Reference, name: str) -> bool:
    if document["kind"] != reference.kind:
        return False
    return reference.matches(document) if reference.matches else document["metadata"]["name"] == name


class _Dumper(yaml.SafeDumper):
    """Long texts as blocks, no aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


_Dumper.add_representer(str, _text)


def dump(documents: Iterable[Json]) -> str:
    """As the files are written."""
    return yaml.dump_all(documents, Dumper=_Dumper, sort_keys=False, width=120, explicit_start=True)


if __name__ == "__main__":
    for each in cases():
        each.out.write_text(dump(each.build()), "utf-8")
        print(each.name)
