"""The base of all models, and types that they share.

A field's name is the camel case of its attribute, its description is the user's documentation, its bounds and rules
are what the API server enforces. Models only read: unknown members and nulls are ignored, as the API server drops
them.
"""

from typing import Annotated, Any, ClassVar, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel
from pydantic.config import JsonDict

Int32 = Annotated[int, Field(json_schema_extra={"format": "int32"})]
Int64 = Annotated[int, Field(json_schema_extra={"format": "int64"})]
ObjectName = Annotated[str, Field(max_length=253)]
"""Name of a Secret, a ConfigMap or another resource in the same namespace; empty counts as absent."""


class Rule(NamedTuple):
    """A CEL rule of the API server, on the object that it stands at (``self``), and what a refused user reads."""

    rule: str
    message: str


def absent(field: str) -> str:
    """CEL: the text ``field`` is not there, or empty."""
    return f"(!has(self.{field}) || self.{field} == '')"


def rules_of(model: type) -> list[Rule]:
    """The CEL rules of a model and of its bases, each once; the bases' first."""
    found = [rule for base in reversed(model.__mro__) for rule in base.__dict__.get("rules", ())]
    return list(dict.fromkeys(found))


def _add_rules(schema: JsonDict, model: type) -> None:
    if rules := rules_of(model):
        schema["x-kubernetes-validations"] = [{"rule": rule, "message": message} for rule, message in rules]


class Model(BaseModel):
    """A JSON object of the API."""

    model_config = ConfigDict(
        frozen=True, extra="ignore", alias_generator=to_camel, populate_by_name=True, json_schema_extra=_add_rules
    )

    rules: ClassVar[tuple[Rule, ...]] = ()
    """CEL rules at this object; those of base classes hold too."""

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, value: Any) -> Any:
        return {key: item for key, item in value.items() if item is not None} if isinstance(value, dict) else value
