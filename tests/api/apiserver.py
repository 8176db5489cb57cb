"""What a kube-apiserver does to a custom resource, in its order: prune, default, validate, CEL.

Written from the API server's documented rules and independent of controller/api, so that tests can hold the
generated CRD against it. CEL is Google's own implementation (cel-expr-python), with the schema's types
declared.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import jsonschema
from cel_expr_python import cel
from google.protobuf import descriptor_pb2, descriptor_pool, struct_pb2
from google.protobuf.descriptor_pb2 import FieldDescriptorProto as FieldProto

Json = dict[str, Any]

SCALARS = {
    "integer": FieldProto.TYPE_INT64,
    "string": FieldProto.TYPE_STRING,
    "boolean": FieldProto.TYPE_BOOL,
}
CEL_TYPES = {"integer": cel.Type.INT, "string": cel.Type.STRING, "boolean": cel.Type.BOOL}


class Refused(Exception):
    """422: the problems, one a line, as `kubectl apply` prints them."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class CustomResource:
    """One version of a CRD, as the API server sees it."""

    def __init__(self, crd: Json) -> None:
        self.version = crd["spec"]["versions"][0]
        self.schema: Json = self.version["schema"]["openAPIV3Schema"]

    def apply(self, manifest: Json) -> Json:
        """The object as it is stored. Raises Refused."""
        stored = copy.deepcopy(manifest)
        prune(stored, {**self.schema, "properties": {**self.schema["properties"], "metadata": {}}})
        default(stored, self.schema)
        problems = [*schema_problems(stored, self.schema), *duplicate_keys(stored, self.schema, "")]
        problems += [] if problems else list(self.rule_problems(stored, self.schema, ""))
        if problems:
            raise Refused(problems)
        return stored

    def rule_problems(self, value: Any, schema: Json, path: str) -> Iterator[str]:
        """What the CEL rules refuse in `value`."""
        for rule in schema.get("x-kubernetes-validations", []):
            if not self.compiled[rule["rule"]](value):
                yield f"{path}: Invalid value: {rule['message']}"
        if isinstance(value, dict):
            for name, child in value.items():
                if name in schema.get("properties", {}):
                    yield from self.rule_problems(
                        child, schema["properties"][name], f"{path}.{name}".lstrip(".")
                    )
        if isinstance(value, list):
            for index, child in enumerate(value):
                yield from self.rule_problems(child, schema["items"], f"{path}[{index}]")

    @cached_property
    def compiled(self) -> dict[str, Any]:
        """Every rule by its text, ready to be evaluated."""
        env = cel.NewEnv(variables={"self": cel.Type.DYN})
        return {rule["rule"]: _evaluator(env, rule["rule"]) for _, _, rule in rules(self.schema)}


def _evaluator(env: cel.Env, text: str) -> Any:
    expression = env.compile(text)
    return lambda value: expression.eval(data={"self": value}).value() is True


def nodes(schema: Json, path: str = "") -> Iterator[tuple[str, Json]]:
    """Every node of a structural schema with its path."""
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        yield from nodes(child, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            yield from nodes(schema[key], f"{path}[*]")


def rules(schema: Json) -> Iterator[tuple[str, Json, Json]]:
    """Every rule with its path and the node that it is on."""
    for path, node in nodes(schema):
        for rule in node.get("x-kubernetes-validations", []):
            yield path, node, rule


# Admission


def prune(value: Any, schema: Json) -> None:
    """Drop the fields that the schema does not specify."""
    if isinstance(value, dict) and "properties" in schema:
        for name in [name for name in value if name not in schema["properties"]]:
            del value[name]
        for name, child in value.items():
            prune(child, schema["properties"][name])
    if isinstance(value, list):
        for child in value:
            prune(child, schema.get("items", {}))


def default(value: Any, schema: Json) -> None:
    """Fill in defaults, outermost first; null counts as absent where there is a default."""
    if isinstance(value, dict):
        for name, child in schema.get("properties", {}).items():
            if value.get(name) is None and "default" in child:
                value[name] = copy.deepcopy(child["default"])
            if name in value:
                default(value[name], child)
    if isinstance(value, list):
        for item in value:
            default(item, schema.get("items", {}))


def schema_problems(value: Any, schema: Json) -> list[str]:
    """What the schema alone refuses."""
    found = jsonschema.Draft202012Validator(plain_json_schema(schema)).iter_errors(value)
    return [f"{'.'.join(map(str, error.absolute_path))}: {error.message}" for error in found]


def plain_json_schema(schema: Json) -> Json:
    """The structural schema without what JSON schema does not know."""
    kept = {key: value for key, value in schema.items() if not key.startswith("x-kubernetes-")}
    if "properties" in kept:
        kept["properties"] = {name: plain_json_schema(child) for name, child in kept["properties"].items()}
    for key in ("items", "additionalProperties"):
        if isinstance(kept.get(key), dict):
            kept[key] = plain_json_schema(kept[key])
    return kept


def duplicate_keys(value: Any, schema: Json, path: str) -> Iterator[str]:
    """Items of lists of type map that share their keys."""
    if isinstance(value, dict):
        for name, child in value.items():
            yield from duplicate_keys(child, schema.get("properties", {}).get(name, {}), f"{path}.{name}")
    if isinstance(value, list):
        keys = schema.get("x-kubernetes-list-map-keys", [])
        seen = [tuple(item.get(key) for key in keys) for item in value] if keys else []
        if len(set(seen)) < len(seen):
            yield f"{path}: Duplicate value"


# What the API server asks of the CRD itself


def structural_problems(schema: Json, path: str = "") -> Iterator[str]:
    """Where a schema breaks the rules of structural schemas in apiextensions/v1."""
    forbidden = {
        "$ref",
        "$defs",
        "definitions",
        "title",
        "const",
        "nullable",
        "oneOf",
        "not",
        "patternProperties",
    }
    for key in forbidden & schema.keys():
        yield f"{path}: {key} is not allowed"
    if schema.get("uniqueItems"):
        yield f"{path}: uniqueItems is not allowed"
    if schema.get("x-kubernetes-int-or-string"):
        if "type" in schema or schema.get("anyOf") != [{"type": "integer"}, {"type": "string"}]:
            yield f"{path}: int-or-string needs anyOf integer, string and no type"
    elif schema.get("type") not in ("object", "array", "string", "integer", "boolean"):
        yield f"{path}: type {schema.get('type')} is not allowed"
    elif "anyOf" in schema or "allOf" in schema:
        yield f"{path}: unions are not allowed"
    if "properties" in schema and "additionalProperties" in schema:
        yield f"{path}: properties and additionalProperties exclude each other"
    if "pattern" in schema:
        re.compile(schema["pattern"])
    for name in schema.get("required", []):
        if name not in schema.get("properties", {}):
            yield f"{path}: required {name} is not a property"
    yield from _list_problems(schema, path)
    for name, child in schema.get("properties", {}).items():
        yield from structural_problems(child, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            yield from structural_problems(schema[key], f"{path}[*]")


def _list_problems(schema: Json, path: str) -> Iterator[str]:
    if schema.get("type") == "array" and not isinstance(schema.get("items"), dict):
        yield f"{path}: an array needs items"
    for key in schema.get("x-kubernetes-list-map-keys", []):
        item = schema["items"]
        if key not in item.get("required", []) and "default" not in item["properties"][key]:
            yield f"{path}: list key {key} must be required or have a default"


def unbounded(schema: Json) -> Iterator[str]:
    """Nodes whose size has no limit, which the CEL cost estimator takes to be as large as a request."""
    limits = {"string": {"maxLength", "enum", "format"}, "array": {"maxItems"}}
    for path, node in nodes(schema):
        if not limits.get(node.get("type", ""), set(node)) & node.keys():
            yield path
        if "additionalProperties" in node and "maxProperties" not in node:
            yield path


class TypedRules:
    """Compiles rules as the API server does, with the schema's types: objects become messages."""

    def __init__(self, schema: Json) -> None:
        self._file = descriptor_pb2.FileDescriptorProto(
            name="schema.proto", package="schema", syntax="proto3"
        )
        self._file.dependency.append("google/protobuf/struct.proto")
        self._names: dict[int, str] = {}
        self._message(schema)
        self._pool = descriptor_pool.DescriptorPool()
        self._pool.AddSerializedFile(struct_pb2.DESCRIPTOR.serialized_pb)
        self._pool.AddSerializedFile(self._file.SerializeToString())

    def compile(self, node: Json, rule: str) -> str:
        """The rule's type with `self` of the node's type. Raises RuntimeError that says what does not fit."""
        env = cel.NewEnv(descriptor_pool=self._pool, variables={"self": self._type(node)})
        return str(env.compile(rule).return_type().name())

    def _type(self, node: Json) -> cel.Type:
        if node.get("type") == "object":
            return cel.Type(f"schema.{self._names[id(node)]}")
        if node.get("type") == "array":
            return cel.Type.List(self._type(node["items"]))
        return CEL_TYPES[node["type"]]

    def _message(self, node: Json) -> str:
        name = f"Message{len(self._names)}"
        self._names[id(node)] = name
        fields = [self._field(*item) for item in enumerate(node.get("properties", {}).items(), start=1)]
        self._file.message_type.add(name=name).field.extend(fields)
        return name

    def _field(self, number: int, item: tuple[str, Json]) -> FieldProto:
        name, node = item
        repeated = node.get("type") == "array"
        label = FieldProto.LABEL_REPEATED if repeated else FieldProto.LABEL_OPTIONAL
        element = node["items"] if repeated else node
        field = FieldProto(name=name, number=number, label=label)
        if "properties" in element:
            field.type, field.type_name = FieldProto.TYPE_MESSAGE, f".schema.{self._message(element)}"
        elif element.get("type") in SCALARS:
            field.type = SCALARS[element["type"]]
        else:
            field.type, field.type_name = FieldProto.TYPE_MESSAGE, ".google.protobuf.Value"
        return field
