"""Writes the CustomResourceDefinitions from the models: ``make crds``."""

import sys
from pathlib import Path
from typing import Any

import yaml

from imaging_operator.specs.model import Rule
from imaging_operator.specs.resources import CATEGORY, GROUP, RESOURCES, VERSION, Resource
from imaging_operator.specs.schema import Json, structural

HEADER = "# Written from the models in operator/imaging_operator/specs by `make crds`.\n"
LABELS = {"app.kubernetes.io/name": "imaging-ingestion", "app.kubernetes.io/component": "crd"}

_API_VERSION = "version of the API that this object follows"
_KIND = "kind of this object"


def crd(resource: Resource) -> Json:
    """The CustomResourceDefinition of a kind."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": resource.crd_name, "labels": LABELS},
        "spec": {
            "group": GROUP,
            "names": {
                "categories": [CATEGORY],
                "kind": resource.kind,
                "listKind": f"{resource.kind}List",
                "plural": resource.plural,
                "shortNames": [resource.short_name],
                "singular": resource.kind.lower(),
            },
            "scope": "Namespaced",
            "versions": [
                {
                    "additionalPrinterColumns": _columns(resource),
                    "name": VERSION,
                    "schema": {"openAPIV3Schema": _schema(resource)},
                    "served": True,
                    "storage": True,
                    "subresources": _subresources(resource),
                }
            ],
        },
    }


def _schema(resource: Resource) -> Json:
    spec, status = structural(resource.spec), structural(resource.status)
    if resource.scaled:
        # Defaults apply inside of what is there only, and the scale subresource wants a number.
        spec["properties"][resource.scaled]["default"] = {}
    required = ["spec"] if spec.get("required") else []
    if not required:
        spec["default"] = {}
    return {
        "description": spec["description"],
        "properties": {
            "apiVersion": {"description": _API_VERSION, "type": "string"},
            "kind": {"description": _KIND, "type": "string"},
            "metadata": {"type": "object"},
            "spec": spec,
            "status": status,
        },
        **({"required": required} if required else {}),
        "type": "object",
        "x-kubernetes-validations": [_rule(rule) for rule in resource.name_rules],
    }


def _rule(rule: Rule) -> Json:
    # Needs Kubernetes 1.30.
    old = {"optionalOldSelf": True} if "oldSelf" in rule.rule else {}
    return {"message": rule.message, **old, "rule": rule.rule}


def _columns(resource: Resource) -> list[Json]:
    columns: list[Json] = [
        {"jsonPath": ".status.ready", "name": "Ready", "type": "string"},
        {"jsonPath": ".status.phase", "name": "Phase", "type": "string"},
    ]
    for column in resource.columns:
        shown: Json = {"jsonPath": column.path, "name": column.name, "type": "string"}
        columns.append(shown | ({"priority": 1} if column.wide else {}))
    columns.append({"jsonPath": ".status.message", "name": "Message", "priority": 1, "type": "string"})
    columns.append({"jsonPath": ".metadata.creationTimestamp", "name": "Age", "type": "date"})
    return columns


def _subresources(resource: Resource) -> Json:
    if not resource.scaled:
        return {"status": {}}
    scale = {
        "labelSelectorPath": ".status.selector",
        "specReplicasPath": f".spec.{resource.scaled}.replicas",
        "statusReplicasPath": ".status.replicas",
    }
    return {"scale": scale, "status": {}}


def text(resource: Resource) -> str:
    """The file of a kind; the same bytes each time."""
    return HEADER + yaml.dump(crd(resource), Dumper=_Plain, sort_keys=False, width=120, allow_unicode=True)


class _Plain(yaml.SafeDumper):
    """Without anchors and aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def write(folder: Path) -> None:
    """Write a file for each kind, ``<plural>.yaml``."""
    folder.mkdir(parents=True, exist_ok=True)
    for resource in RESOURCES:
        (folder / f"{resource.plural}.yaml").write_text(text(resource), encoding="utf-8")


if __name__ == "__main__":
    for name in sys.argv[1:]:
        write(Path(name))
