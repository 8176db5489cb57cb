"""Checks an RLScaler as the API server would, for callers without one: the command line and the twin.

`admit` fills in defaults and says what is wrong in the words of `kubectl apply`; `parse_spec` is for an
object that an API server has let in already. Unknown fields are dropped, and `unknown_fields` names
them for strict callers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from controller.api import constants
from controller.api.crd import structural_schema
from controller.api.model import ApiModel, Json
from controller.api.types import RLScalerSpec
from controller.errors import SpecError

_UNION_MEMBERS: Final = frozenset({"int", "str"})

Model = TypeVar("Model", bound=ApiModel)


@dataclass(frozen=True)
class FieldProblem:
    """One wrong field; `str()` reads as in `kubectl apply`."""

    path: str
    value: Any
    problem: str

    def __str__(self) -> str:
        if self.problem == "Required value":
            return f"{self.path}: Required value"
        shown = f'"{self.value}"' if isinstance(self.value, str) else self.value
        if not isinstance(self.value, (str, int, float, bool)):
            shown = '"object"'
        return f"{self.path}: Invalid value: {shown}: {self.problem}"


class InvalidSpec(SpecError):
    """A spec with fields that are not allowed: names each, its value, and what is allowed."""

    def __init__(self, problems: Sequence[FieldProblem]) -> None:
        super().__init__(constants.Reason.INVALID_SPEC, "; ".join(str(problem) for problem in problems))
        self.problems = tuple(problems)


def parse_spec(spec: Json) -> RLScalerSpec:
    """The typed spec, defaults filled in. Raises InvalidSpec."""
    return parse(RLScalerSpec, spec)


def parse(model: type[Model], spec: Json) -> Model:
    """The spec of any kind of the API as its type, defaults filled in. Raises InvalidSpec."""
    try:
        return model.model_validate(_without_nulls(spec))
    except ValidationError as error:
        raise InvalidSpec(list(_problems(error))) from None


def admit(manifest: Json, model: type[ApiModel] = RLScalerSpec) -> Json:
    """The manifest as an API server would store it. Raises InvalidSpec."""
    spec = manifest.get("spec")
    if not isinstance(spec, dict):
        raise InvalidSpec([FieldProblem("spec", spec, "Required value")])
    return {**manifest, "spec": parse(model, spec).dump()}


def unknown_fields(manifest: Json) -> list[str]:
    """Paths below spec that the schema does not know, which the API server would drop."""
    return sorted(_unknown(manifest.get("spec", {}), _spec_schema(), "spec"))


@cache
def _spec_schema() -> Json:
    return structural_schema(RLScalerSpec)


def _unknown(value: Any, schema: Json, path: str) -> Iterator[str]:
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from _unknown(item, schema.get("items", {}), f"{path}[{index}]")
    if not isinstance(value, dict) or "properties" not in schema:
        return
    for name, child in value.items():
        if name in schema["properties"]:
            yield from _unknown(child, schema["properties"][name], f"{path}.{name}")
        else:
            yield f"{path}.{name}"


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nulls(child) for name, child in value.items() if child is not None}
    return [_without_nulls(child) for child in value] if isinstance(value, list) else value


def _problems(error: ValidationError) -> Iterator[FieldProblem]:
    seen = set()
    for detail in error.errors(include_url=False):
        path = _path(detail["loc"])
        if path not in seen or detail["type"] == "rule":
            yield FieldProblem(
                path, detail["input"], _say(detail, union=_UNION_MEMBERS.issuperset(detail["loc"][-1:]))
            )
        seen.add(path)


def _path(location: tuple[int | str, ...]) -> str:
    path = "spec"
    for step in location:
        if step not in _UNION_MEMBERS:
            path += f"[{step}]" if isinstance(step, int) else f".{step}"
    return path


def _say(detail: ErrorDetails, union: bool) -> str:
    if detail["type"] == "missing":
        return "Required value"
    if detail["type"] == "rule":
        return detail["msg"]
    if union:
        return "must be an integer or a string"
    said = detail["msg"].removeprefix("Input should ")
    return f"must {said}" if said != detail["msg"] else f"must be valid: {said}"
