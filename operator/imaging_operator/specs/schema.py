"""A model's structural OpenAPI v3 schema, as a CustomResourceDefinition wants it."""

from typing import Any

from imaging_operator.specs.model import Model

Json = dict[str, Any]

_INT_OR_STRING = "x-kubernetes-int-or-string"
_OPEN = "x-kubernetes-preserve-unknown-fields"


def structural(model: type[Model]) -> Json:
    """The schema of a model: no ``$ref``, no ``anyOf``, no null; members in the order of their names.

    Only defaults that say something are kept: empty texts, zeros and empty lists would be written into every
    resource, to no use.
    """
    whole = model.model_json_schema(by_alias=True)
    return _clean(whole, whole.get("$defs", {}))


def _clean(schema: Json, definitions: Json) -> Json:
    schema = _resolved(schema, definitions)
    if schema.get(_INT_OR_STRING):
        schema.pop("anyOf", None)
    if schema.get(_OPEN):
        schema.pop("additionalProperties", None)
    cleaned = {}
    for key, value in sorted(schema.items()):
        if key in ("title", "$defs") or (key == "default" and (not value or isinstance(value, dict))):
            continue
        if key == "properties":
            value = {name: _clean(member, definitions) for name, member in sorted(value.items())}
        elif key in ("items", "additionalProperties"):
            value = _clean(value, definitions)
        elif key == "required":
            value = sorted(value)
        cleaned[key] = value
    return cleaned


def _resolved(schema: Json, definitions: Json) -> Json:
    """Without reference and without null; what stands beside them (description, default) wins."""
    beside = {key: value for key, value in schema.items() if key not in ("$ref", "anyOf")}
    if reference := schema.get("$ref"):
        return _resolved(definitions[reference.rpartition("/")[2]], definitions) | beside
    alternatives = [item for item in schema.get("anyOf", []) if item.get("type") != "null"]
    if len(alternatives) == 1:
        return _resolved(alternatives[0], definitions) | beside
    return dict(schema)
