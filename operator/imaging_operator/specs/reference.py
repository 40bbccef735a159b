"""Writes docs/custom-resources.md from the models: ``make crds``."""

import inspect
import sys
import typing
from collections.abc import Iterator

from pydantic.fields import FieldInfo

from imaging_operator.specs.common import DeploymentGroup, ServiceGroup, Spec
from imaging_operator.specs.connections import (
    Authorities,
    ClientTls,
    DatabaseTls,
    DimseTargetTls,
    Exposure,
    ListenerTls,
    TargetTls,
)
from imaging_operator.specs.dicomweb_ingestion_service import Ingress
from imaging_operator.specs.examples import EXAMPLES
from imaging_operator.specs.kubernetes import EnvironmentVariable, LocalReference, Resources, Toleration
from imaging_operator.specs.model import Model, rules_of
from imaging_operator.specs.resources import CATEGORY, GROUP, RESOURCES, VERSION, Resource
from imaging_operator.specs.schema import Json, structural
from imaging_operator.specs.status import Condition, ScaledStatus, Status

OBJECTS: tuple[type[Model], ...] = (
    ServiceGroup,
    DeploymentGroup,
    Resources,
    ClientTls,
    DatabaseTls,
    Authorities,
    TargetTls,
    ListenerTls,
    DimseTargetTls,
    Exposure,
    Ingress,
    EnvironmentVariable,
    Toleration,
    LocalReference,
)
INTRODUCTION = f"""# Custom resources

Written from the operator's models by `make crds`; a test says whether it agrees with them.

API group `{GROUP}`, version `{VERSION}`, all kinds namespaced, category `{CATEGORY}` (`kubectl get
{CATEGORY}` shows all of them). References are names in the same namespace. An empty text means the same as an
absent field. The CRDs need Kubernetes 1.30.

Resources written for the Alvearie operator 0.0.3 are accepted as they are: what is refused could never have worked. A
resource that was stored before these CRDs came is left alone until the wrong field is changed, and its name is never
asked for again.
"""


def render() -> str:
    """The whole page."""
    sections = [INTRODUCTION, _kinds(), *map(_kind, RESOURCES)]
    sections.append(f"## Fields of every spec\n\n{_table(Spec, Spec)}")
    sections.append(f"## Objects in specs\n\n{''.join(map(_object, OBJECTS))}".rstrip() + "\n")
    sections.append(_statuses())
    return "\n".join(sections)


def _kinds() -> str:
    rows = ["| kind | plural | short name | what it is | `kubectl scale` |", "|---|---|---|---|---|"]
    for resource in RESOURCES:
        scale = f"`spec.{resource.scaled}.replicas`" if resource.scaled else "–"
        link = f"[`{resource.kind}`](#{resource.kind.lower()})"
        rows.append(f"| {link} | `{resource.plural}` | `{resource.short_name}` | {resource.spec.__doc__} | {scale} |")
    return "\n".join([*rows, ""])


def _kind(resource: Resource) -> str:
    refusals = [rule.message for rule in (*resource.name_rules, *rules_of(resource.spec))]
    status = _table(resource.status, *_bases(resource.status, ScaledStatus, Status))
    return f"""## {resource.kind}

{resource.spec.__doc__}

```yaml
apiVersion: {GROUP}/{VERSION}
kind: {resource.kind}
{EXAMPLES[resource.kind]}```

{_table(resource.spec, Spec)}
Beside these the [fields of every spec](#fields-of-every-spec). Refused, with these words:

{_list(refusals)}
Status, beside the [fields of every status](#fields-of-every-status):

{status}"""


def _object(model: type[Model]) -> str:
    refusals = [rule.message for rule in rules_of(model)]
    refused = f"\nRefused, with these words:\n\n{_list(refusals)}" if refusals else ""
    return f"### {model.__name__}\n\n{model.__doc__}\n\n{_table(model)}{refused}\n"


def _statuses() -> str:
    return f"""## Fields of every status

Kinds with `kubectl scale` also have `replicas` and `selector`.

{_table(Status)}
### Condition

{Condition.__doc__}

{_table(Condition)}"""


def _bases(model: type[Model], *candidates: type[Model]) -> list[type[Model]]:
    return [base for base in candidates if issubclass(model, base)]


def _list(items: list[str]) -> str:
    return "".join(f"- {item}\n" for item in items)


def _table(model: type[Model], *without: type[Model]) -> str:
    """A row for each field; those of the bases ``without`` are described elsewhere, unless the model is one."""
    schema = structural(model)
    elsewhere = {name for base in without if base is not model for name in base.model_fields}
    rows = ["| field | type | default | meaning |", "|---|---|---|---|"]
    for name, field in _ordered(model):
        if name not in elsewhere:
            member = schema["properties"][field.alias]
            type_text = _type(member, field.annotation)
            rows.append(f"| `{field.alias}` | {type_text} | {_default(field)} | {_cell(field.description)} |")
    return "\n".join([*rows, ""]) if len(rows) > 2 else "No others.\n"


def _cell(text: str | None) -> str:
    return (text or "").replace("<", "&lt;").replace("|", "\\|")


def _ordered(model: type[Model]) -> Iterator[tuple[str, FieldInfo]]:
    """A model's own fields first, then those of its bases from the left."""
    names = [name for base in model.__mro__ for name in inspect.get_annotations(base)]
    for name in dict.fromkeys(names):
        if name in model.model_fields:
            yield name, model.model_fields[name]


def _type(member: Json, annotation: object) -> str:
    if named := _named(annotation):
        linked = f"[{named}](#{named.lower()})"
        return f"list of {linked}" if member.get("type") == "array" else linked
    if choices := member.get("enum"):
        return ", ".join(f"`{choice}`" for choice in choices if choice)
    if member.get("x-kubernetes-int-or-string"):
        return "quantity"
    if member["type"] == "array":
        return f"list of {_type(member['items'], None)}"
    if member["type"] == "object":
        return f"map to {_type(member['additionalProperties'], None)}" if "additionalProperties" in member else "object"
    return str(member["type"]) + _bounds(member)


def _bounds(member: Json) -> str:
    low, high = member.get("minimum"), member.get("maximum")
    if low is not None and high is not None:
        return f", {low} to {high}"
    if low is not None:
        return f", {low} or more"
    longest = member.get("maxLength")
    # 253 is the length of an object's name, and no news.
    return f", at most {longest} characters" if longest and longest < 253 else ""


def _named(annotation: object) -> str:
    """The name of the model inside of an annotation, if any."""
    if isinstance(annotation, type) and issubclass(annotation, Model):
        return annotation.__name__
    return next(filter(None, map(_named, typing.get_args(annotation))), "")


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.default
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value}`" if isinstance(value, (int, str)) and value != "" else "–"


if __name__ == "__main__":
    sys.stdout.write(render())
