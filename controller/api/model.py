"""Base of the API types: camelCase models whose rules are written once and enforced twice.

A `Rule` holds a CEL expression for the API server and the same predicate in Python for everywhere else
(command line, twin, tests). `controller.api.types` declares them; `controller.api.crd` exports them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, GetJsonSchemaHandler, model_validator
from pydantic.alias_generators import to_camel
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

Json = dict[str, Any]


@dataclass(frozen=True)
class Rule:
    """One x-kubernetes-validations entry: `cel` over `self`, what to tell the user, and `holds` in Python.

    In a model's RULES it sees the object; in `Annotated[...]` it sees the field's value.
    """

    cel: str
    message: str
    holds: Callable[[Any], bool]

    def as_validation(self) -> Json:
        return {"rule": self.cel, "message": self.message}

    def require(self, value: Any) -> Any:
        if not self.holds(value):
            raise PydanticCustomError("rule", "{message}", {"message": self.message})
        return value

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self.require, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        found = handler(schema)
        found.setdefault("x-kubernetes-validations", []).append(self.as_validation())
        return found


class ApiModel(BaseModel):
    """An object of the API. Unknown fields are dropped, as the API server prunes them."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore", frozen=True)

    RULES: ClassVar[tuple[Rule, ...]] = ()

    @model_validator(mode="after")
    def _obey_rules(self) -> Self:
        for rule in self.RULES:
            rule.require(self)
        return self

    def dump(self) -> Json:
        """The object as the API server would store it: camelCase, defaults filled in, absent fields
        left out.
        """
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        found = handler.resolve_ref_schema(handler(schema))
        if cls.RULES:
            found["x-kubernetes-validations"] = [rule.as_validation() for rule in cls.RULES]
        for field in cls.model_fields.values():
            if field.default_factory is not None and field.alias:
                found["properties"][field.alias]["default"] = _plain(
                    field.get_default(call_default_factory=True)
                )
        return found


def _plain(value: Any) -> Any:
    if isinstance(value, ApiModel):
        return value.dump()
    return [_plain(item) for item in value] if isinstance(value, list) else value
