"""CEL rules of a CRD (`x-kubernetes-validations`), compiled once and evaluated by cel-python.

Source: https://kubernetes.io/docs/reference/using-api/cel/. Kubernetes checks types when a CRD is created;
cel-python doesn't, so field selections on `self` are checked here against the schema.
"""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation
from functools import cache
from typing import Any

import celpy
from celpy import celtypes
from celpy.adapter import json_to_cel
from celpy.evaluation import CELEvalError

from sim.twin.errors import Json

# Property names that are CEL keywords are reached as `self.__namespace__`.
_KEYWORDS = (
    *("true", "false", "null", "in", "as", "break", "const", "continue", "else", "for", "function"),
    *("if", "import", "let", "loop", "package", "namespace", "return", "var", "void", "while"),
)
_SUFFIXES = {"n": "1e-9", "u": "1e-6", "m": "1e-3", "": "1", "k": "1e3", "M": "1e6", "G": "1e9", "T": "1e12"}
_SUFFIXES |= {"P": "1e15", "E": "1e18"} | {f"{c}i": str(1024**i) for i, c in enumerate("KMGTPE", 1)}
_QUANTITY = re.compile(r"^([+-]?(?:\d+\.?\d*|\.\d+))(?:([eE][+-]?\d+)|([numkMGTPE]|[KMGTPE]i)?)$")


class CelCompileError(ValueError):
    """A rule that Kubernetes would refuse when the CRD is applied."""


class CelRuntimeError(ValueError):
    """A rule that failed while it was evaluated: the object is refused with this message."""


def parse_quantity(text: str) -> Decimal:
    """`250m` -> 0.250.

    Raises:
        ValueError: not a Kubernetes quantity.
    """
    match = _QUANTITY.match(text)
    if match is None:
        raise ValueError(f"{text!r} is not a quantity")
    number, exponent, suffix = match.groups()
    try:
        return Decimal(number + (exponent or "")) * Decimal(_SUFFIXES[suffix or ""])
    except InvalidOperation as error:
        raise ValueError(f"{text!r} is not a quantity") from error


def _quantity(value: Any) -> celtypes.DoubleType:
    return celtypes.DoubleType(parse_quantity(str(value)))


def _is_quantity(value: Any) -> celtypes.BoolType:
    return celtypes.BoolType(_QUANTITY.match(str(value)) is not None)


def _compare(left: Any, right: Any) -> celtypes.IntType:
    return celtypes.IntType((left > right) - (left < right))


# Kubernetes' extension libraries, as far as schemas here use them.
_FUNCTIONS: dict[str, Any] = {
    "quantity": _quantity,
    "isQuantity": _is_quantity,
    "compareTo": _compare,
    "isLessThan": lambda a, b: celtypes.BoolType(a < b),
    "isGreaterThan": lambda a, b: celtypes.BoolType(a > b),
    "asApproximateFloat": lambda q: q,
    "sign": lambda q: celtypes.IntType((q > 0) - (q < 0)),
    "isInteger": lambda q: celtypes.BoolType(float(q).is_integer()),
    "sum": lambda items: sum(items[1:], items[0]) if items else celtypes.IntType(0),
    "min": lambda items: min(items),
    "max": lambda items: max(items),
    "isSorted": lambda items: celtypes.BoolType(list(items) == sorted(items)),
    "indexOf": lambda text, part: celtypes.IntType(
        text.find(part) if isinstance(text, str) else list(text).index(part)
    ),
    "lowerAscii": lambda text: celtypes.StringType(text.lower()),
    "upperAscii": lambda text: celtypes.StringType(text.upper()),
    "trim": lambda text: celtypes.StringType(text.strip()),
    "replace": lambda text, old, new: celtypes.StringType(text.replace(old, new)),
    "split": lambda text, by: celtypes.ListType([celtypes.StringType(p) for p in text.split(by)]),
    "join": lambda items, by="": celtypes.StringType(str(by).join(items)),
    "find": lambda text, pattern: celtypes.StringType("".join(re.findall(pattern, text)[:1])),
}


@cache
def _environment() -> celpy.Environment:
    return celpy.Environment()


@cache
def _program(source: str) -> celpy.Runner:
    environment = _environment()
    try:
        return environment.program(environment.compile(source), functions=_FUNCTIONS)
    except Exception as error:
        raise CelCompileError(f"compilation failed: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return str(error.args[0] if error.args else error).strip().splitlines()[0]


class Expression:
    """A compiled CEL expression over `self` and `oldSelf`.

    Raises:
        CelCompileError: bad syntax, or a field that the schema doesn't have.
    """

    def __init__(self, source: str, schema: Json | None = None) -> None:
        self.source = source
        self._program = _program(source)
        self.is_transition = re.search(r"\boldSelf\b", source) is not None
        if schema is not None:
            _check_selections(source, schema)

    def evaluate(self, value: Any, old: Any = None) -> Any:
        """The result as a Python value.

        Raises:
            CelRuntimeError: no such key, no such overload, ...
        """
        context = {"self": to_cel(value)}
        if self.is_transition:
            context["oldSelf"] = to_cel(old)
        try:
            return self._program.evaluate(context)
        except CELEvalError as error:
            raise CelRuntimeError(_first_line(error)) from error


def to_cel(value: Any) -> Any:
    """JSON to CEL values, with the property names escaped as Kubernetes escapes them."""
    if isinstance(value, dict):
        return celtypes.MapType({celtypes.StringType(escape(k)): to_cel(v) for k, v in value.items()})
    if isinstance(value, list):
        return celtypes.ListType([to_cel(v) for v in value])
    return json_to_cel(value)


def escape(name: str) -> str:
    """The name by which CEL reaches a property."""
    if name in _KEYWORDS:
        return f"__{name}__"
    for char, word in (("__", "__underscores__"), (".", "__dot__"), ("-", "__dash__"), ("/", "__slash__")):
        name = name.replace(char, word)
    return name


def _check_selections(source: str, schema: Json) -> None:
    stripped = re.sub(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"", "''", source)
    for match in re.finditer(r"\b(?:self|oldSelf)((?:\.[A-Za-z_]\w*(?!\w|\())+)", stripped):
        _check_path(match.group(1).strip(".").split("."), schema, source)


def _check_path(names: list[str], schema: Json, source: str) -> None:
    for name in names:
        properties = schema.get("properties")
        if properties is None:
            return  # a map or a scalar: nothing that the schema can say
        known = {escape(k): v for k, v in properties.items()}
        if name not in known:
            raise CelCompileError(f"compilation failed: undefined field '{name}' in {source!r}")
        schema = known[name]
