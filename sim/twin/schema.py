"""Structural schemas of CRDs: pruning, defaulting, validation, with the messages of the real API server.

Source: https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/
and the texts of k8s.io/apiextensions-apiserver/pkg/apiserver/validation (v1.32).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

from sim.twin.cel import CelCompileError, CelRuntimeError, Expression
from sim.twin.errors import FieldError, Json
from sim.twin.store import clone

_ROOT_FIELDS = ("apiVersion", "kind", "metadata")
_UNCHECKED = (
    "some validation rules were not checked because the object was invalid; "
    "correct the existing errors to complete validation"
)
_INT_OR_STRING = [{"type": "integer"}, {"type": "string"}]
_TYPES: dict[str, Callable[[Any], bool]] = {
    "object": lambda v: isinstance(v, dict),
    "array": lambda v: isinstance(v, list),
    "string": lambda v: isinstance(v, str),
    "boolean": lambda v: isinstance(v, bool),
    "integer": lambda v: isinstance(v, int) and not isinstance(v, bool),
    "number": lambda v: isinstance(v, int | float) and not isinstance(v, bool),
}


class StructuralSchema:
    """An `openAPIV3Schema`, checked and compiled once.

    Raises:
        ValueError: the schema isn't structural, or one of its CEL rules doesn't compile.
    """

    def __init__(self, schema: Json) -> None:
        self.schema = schema
        self._rules: dict[int, list[_Rule]] = {}
        for path, node in walk(schema):
            _check_structural(path, node)
            if node.get("x-kubernetes-validations"):
                self._rules[id(node)] = [_Rule(r, node, path) for r in node["x-kubernetes-validations"]]
        self._has_transitions = any(r.is_transition for rules in self._rules.values() for r in rules)

    def prune(self, obj: Json) -> tuple[Json, list[str]]:
        """The object without the fields that the schema doesn't have, and their paths."""
        unknown: list[str] = []
        body = {k: v for k, v in obj.items() if k not in _ROOT_FIELDS}
        pruned = _prune(body, self.schema, "", unknown)
        return {k: obj[k] for k in _ROOT_FIELDS if k in obj} | pruned, unknown

    def default(self, obj: Json) -> Json:
        result = _default(clone(obj), self.schema)
        assert isinstance(result, dict)
        return result

    def validate(self, obj: Json, old: Json | None = None) -> list[FieldError]:
        """Every fault: of the schema first; the CEL rules are run when there is none."""
        body = {k: v for k, v in obj.items() if k not in _ROOT_FIELDS}
        errors = list(_validate(body, self.schema, ""))
        if errors:
            unchecked = FieldError("<nil>", "FieldValueInvalid", f'Invalid value: "null": {_UNCHECKED}')
            return errors + ([unchecked] if self._rules else [])
        return list(self._run_rules(obj, old, self.schema, ""))

    def _run_rules(self, value: Any, old: Any, node: Json, path: str) -> Iterator[FieldError]:
        if old is not None and value == old and not self._has_transitions:
            return  # ratcheting: what is unchanged isn't judged again
        for rule in self._rules.get(id(node), []):
            yield from rule.check(value, old, path)
        for child, before, schema, where in _children(value, old, node, path):
            yield from self._run_rules(child, before, schema, where)


class _Rule:
    def __init__(self, rule: Json, node: Json, path: str) -> None:
        self._node, self._rule = node, rule
        try:
            self._expression = Expression(rule["rule"], node)
            message = rule.get("messageExpression")
            self._message = Expression(message, node) if message else None
        except CelCompileError as error:
            where = f"spec.validation.openAPIV3Schema{path}.x-kubernetes-validations.rule"
            raise ValueError(f"{where}: Invalid value: {rule!r}: {error}") from error

    @property
    def is_transition(self) -> bool:
        return self._expression.is_transition

    def check(self, value: Any, old: Any, path: str) -> Iterator[FieldError]:
        if self._expression.is_transition and old is None and not self._rule.get("optionalOldSelf"):
            return
        field = (path + self._rule.get("fieldPath", "")) or "<nil>"
        kind = self._node.get("type", "object")
        try:
            if bool(self._expression.evaluate(value, old)):
                return
            detail = self._text(value, old)
        except CelRuntimeError as error:
            detail = f"{error} evaluating rule: {self._rule.get('message') or self._rule['rule']}"
        yield self._error(field.lstrip("."), kind, detail)

    def _text(self, value: Any, old: Any) -> str:
        if self._message is not None:
            return str(self._message.evaluate(value, old))
        return str(self._rule.get("message") or f"failed rule: {self._rule['rule']}")

    def _error(self, field: str, kind: str, detail: str) -> FieldError:
        reason = self._rule.get("reason", "FieldValueInvalid")
        if reason == "FieldValueForbidden":
            return FieldError(field, reason, f"Forbidden: {detail}")
        if reason == "FieldValueRequired":
            return FieldError(field, reason, f"Required value: {detail}")
        return FieldError(field, reason, f'Invalid value: "{kind}": {detail}')


def walk(schema: Json, path: str = "") -> Iterator[tuple[str, Json]]:
    """Every value-carrying node of a schema with its path."""
    yield path, schema
    for name, child in (schema.get("properties") or {}).items():
        yield from walk(child, f"{path}.properties[{name}]")
    if isinstance(schema.get("items"), dict):
        yield from walk(schema["items"], f"{path}.items")
    if isinstance(schema.get("additionalProperties"), dict):
        yield from walk(schema["additionalProperties"], f"{path}.additionalProperties")


def _check_structural(path: str, node: Json) -> None:
    where = f"spec.validation.openAPIV3Schema{path}"
    if not node.get("type") and not _typeless(node):
        raise ValueError(f"{where}.type: Required value: must not be empty for specified object fields")
    for forbidden in ("$ref", "definitions", "$defs", "const", "patternProperties", "exclusiveMinimumValue"):
        if forbidden in node:
            raise ValueError(f"{where}.{forbidden}: Forbidden: must not be set in a structural schema")
    if node.get("additionalProperties") is not None and node.get("properties"):
        raise ValueError(f"{where}.additionalProperties: Forbidden: mutually exclusive with properties")
    if node.get("additionalProperties") is False:
        raise ValueError(f"{where}.additionalProperties: Forbidden: must not be false")
    int_or_string = node.get("x-kubernetes-int-or-string") and node.get("anyOf") == _INT_OR_STRING
    for quantifier in ("oneOf", "allOf", "not") if int_or_string else ("anyOf", "oneOf", "allOf", "not"):
        _check_junctor(where, quantifier, node.get(quantifier))
    if "default" in node and list(_validate(node["default"], node, "")):
        faults = "; ".join(str(e) for e in _validate(node["default"], node, ""))
        raise ValueError(f"{where}.default: Invalid value: {_show(node['default'])}: {faults}")


def _typeless(node: Json) -> bool:
    return bool(node.get("x-kubernetes-int-or-string") or node.get("x-kubernetes-preserve-unknown-fields"))


def _check_junctor(where: str, quantifier: str, value: Any) -> None:
    for branch in value if isinstance(value, list) else [value] if value else []:
        for forbidden in ("type", "default", "nullable", "description", "title", "additionalProperties"):
            if forbidden in branch:
                at = f"{where}.{quantifier}.{forbidden}"
                raise ValueError(f"{at}: Forbidden: must be empty to be structural")


def _keeps_unknown(node: Json) -> bool:
    return bool(node.get("x-kubernetes-preserve-unknown-fields"))


def _prune(value: Any, node: Json, path: str, unknown: list[str]) -> Any:
    if isinstance(value, list) and isinstance(node.get("items"), dict):
        return [_prune(v, node["items"], f"{path}[{i}]", unknown) for i, v in enumerate(value)]
    if not isinstance(value, dict) or "x-kubernetes-embedded-resource" in node:
        return value
    properties, extra = node.get("properties") or {}, node.get("additionalProperties")
    kept: Json = {}
    for key, child in value.items():
        where = f"{path}.{key}".lstrip(".")
        if key in properties:
            kept[key] = _prune(child, properties[key], where, unknown)
        elif isinstance(extra, dict):
            kept[key] = _prune(child, extra, where, unknown)
        elif extra is True or _keeps_unknown(node):
            kept[key] = child
        else:
            unknown.append(where)
    return kept


def _default(value: Any, node: Json) -> Any:
    if isinstance(value, dict):
        for name, child in (node.get("properties") or {}).items():
            if value.get(name, ...) is None and not child.get("nullable") and "default" in child:
                del value[name]
            if name not in value and "default" in child:
                value[name] = clone(child["default"])
            if name in value:
                value[name] = _default(value[name], child)
        extra = node.get("additionalProperties")
        if isinstance(extra, dict):
            for key in value.keys() - (node.get("properties") or {}).keys():
                value[key] = _default(value[key], extra)
    elif isinstance(value, list) and isinstance(node.get("items"), dict):
        value = [_default(v, node["items"]) for v in value]
    return value


def _show(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _type_name(value: Any) -> str:
    if value is None:
        return "null"
    return next(name for name, test in _TYPES.items() if test(value))


def _validate(value: Any, node: Json, path: str) -> Iterator[FieldError]:
    field = path.lstrip(".") or "<nil>"
    if value is None and node.get("nullable"):
        return
    error = _type_error(value, node, field)
    if error is not None:
        yield error
        return
    yield from _validate_enum(value, node, field)
    if isinstance(value, dict):
        yield from _validate_object(value, node, path)
    elif isinstance(value, list):
        yield from _validate_array(value, node, path)
    elif isinstance(value, str):
        yield from _validate_string(value, node, field)
    elif not isinstance(value, bool) and value is not None:
        yield from _validate_number(value, node, field)
    yield from _validate_junctors(value, node, path)


def _type_error(value: Any, node: Json, field: str) -> FieldError | None:
    if node.get("x-kubernetes-int-or-string"):
        if _TYPES["integer"](value) or _TYPES["string"](value):
            return None
        expected = "integer,string"
    else:
        expected = node.get("type", "")
        if not expected or _TYPES[expected](value):
            return None
    actual = _type_name(value)
    text = f'Invalid value: "{actual}": {field} in body must be of type {expected}: "{actual}"'
    return FieldError(field, "FieldValueTypeInvalid", text)


def _invalid(field: str, value: Any, rule: str) -> FieldError:
    text = f"Invalid value: {_show(value)}: {field} in body {rule}"
    return FieldError(field, "FieldValueInvalid", text)


def _validate_enum(value: Any, node: Json, field: str) -> Iterator[FieldError]:
    allowed = node.get("enum")
    if allowed is not None and value not in allowed:
        values = ", ".join(_show(a) for a in allowed)
        text = f"Unsupported value: {_show(value)}: supported values: {values}"
        yield FieldError(field, "FieldValueNotSupported", text)


def _validate_object(value: Json, node: Json, path: str) -> Iterator[FieldError]:
    for name in node.get("required") or []:
        if name not in value:
            yield FieldError(f"{path}.{name}".lstrip("."), "FieldValueRequired", "Required value")
    field = path.lstrip(".") or "<nil>"
    if len(value) > node.get("maxProperties", float("inf")):
        detail = f"Too many: {len(value)}: must have at most {node['maxProperties']} items"
        yield FieldError(field, "FieldValueTooMany", detail)
    if len(value) < node.get("minProperties", 0):
        yield _invalid(field, value, f"should have at least {node['minProperties']} properties")
    for child, _, schema, where in _children(value, None, node, path):
        yield from _validate(child, schema, where)


def _validate_array(value: list[Any], node: Json, path: str) -> Iterator[FieldError]:
    field = path.lstrip(".") or "<nil>"
    if len(value) > node.get("maxItems", float("inf")):
        detail = f"Too many: {len(value)}: must have at most {node['maxItems']} items"
        yield FieldError(field, "FieldValueTooMany", detail)
    if len(value) < node.get("minItems", 0):
        yield _invalid(field, len(value), f"should have at least {node['minItems']} items")
    yield from _validate_unique(value, node, path)
    for child, _, schema, where in _children(value, None, node, path):
        yield from _validate(child, schema, where)


def _validate_unique(value: list[Any], node: Json, path: str) -> Iterator[FieldError]:
    kind = node.get("x-kubernetes-list-type", "atomic")
    keys = node.get("x-kubernetes-list-map-keys") or []
    seen: list[Any] = []
    for index, item in enumerate(value):
        if kind == "atomic" or (kind == "map" and not isinstance(item, dict)):
            continue
        key = {k: item.get(k) for k in keys} if kind == "map" else item
        if key in seen:
            text = f"Duplicate value: {_show(key)}"
            yield FieldError(f"{path}[{index}]".lstrip("."), "FieldValueDuplicate", text)
        seen.append(key)


def _validate_string(value: str, node: Json, field: str) -> Iterator[FieldError]:
    if len(value) > node.get("maxLength", float("inf")):
        detail = f"Too long: may not be more than {node['maxLength']} bytes"
        yield FieldError(field, "FieldValueTooLong", detail)
    if len(value) < node.get("minLength", 0):
        yield _invalid(field, value, f"should be at least {node['minLength']} chars long")
    pattern = node.get("pattern")
    if pattern is not None and re.search(pattern, value) is None:
        yield _invalid(field, value, f"should match '{pattern}'")


def _validate_number(value: float, node: Json, field: str) -> Iterator[FieldError]:
    low, high = node.get("minimum"), node.get("maximum")
    if low is not None and (value < low or (node.get("exclusiveMinimum") and value == low)):
        than = "greater than" if node.get("exclusiveMinimum") else "greater than or equal to"
        yield _invalid(field, value, f"should be {than} {_show(low)}")
    if high is not None and (value > high or (node.get("exclusiveMaximum") and value == high)):
        than = "less than" if node.get("exclusiveMaximum") else "less than or equal to"
        yield _invalid(field, value, f"should be {than} {_show(high)}")
    if "multipleOf" in node and value % node["multipleOf"]:
        yield _invalid(field, value, f"should be a multiple of {_show(node['multipleOf'])}")


def _validate_junctors(value: Any, node: Json, path: str) -> Iterator[FieldError]:
    field = path.lstrip(".") or "<nil>"
    for branch in node.get("allOf") or []:
        yield from _validate(value, branch, path)
    if node.get("anyOf") and not any(_fits(value, b, path) for b in node["anyOf"]):
        yield _invalid(field, value, "must validate at least one schema (anyOf)")
    if node.get("oneOf"):
        found = sum(_fits(value, b, path) for b in node["oneOf"])
        if found != 1:
            end = "none valid" if found == 0 else f"{found} valid alternatives"
            rule = f"must validate one and only one schema (oneOf). Found {end}"
            yield _invalid(field, value, rule)
    if node.get("not") and _fits(value, node["not"], path):
        yield _invalid(field, value, "must not validate the schema (not)")


def _fits(value: Any, node: Json, path: str) -> bool:
    if "type" in node and not _TYPES[node["type"]](value):
        return False
    return not list(_validate(value, node, path))


def _children(value: Any, old: Any, node: Json, path: str) -> Iterator[tuple[Any, Any, Json, str]]:
    """(child, its previous state, its schema, its path) of what is present in an object or list."""
    if isinstance(value, dict):
        properties, extra = node.get("properties") or {}, node.get("additionalProperties")
        before = old if isinstance(old, dict) else {}
        for name, child in value.items():
            schema = properties.get(name) or (extra if isinstance(extra, dict) else None)
            if schema is not None:
                yield child, before.get(name), schema, f"{path}.{name}"
    elif isinstance(value, list) and isinstance(node.get("items"), dict):
        keys = node.get("x-kubernetes-list-map-keys") or []
        for index, child in enumerate(value):
            yield child, _same_item(child, old, keys), node["items"], f"{path}[{index}]"


def _same_item(item: Any, old: Any, keys: list[str]) -> Any:
    if not keys or not isinstance(item, dict) or not isinstance(old, list):
        return None
    wanted = [item.get(k) for k in keys]
    return next((o for o in old if [o.get(k) for k in keys] == wanted), None)
