"""Frozen dataclasses to JSON values and back; what does not fit is refused with its path in the document."""

import dataclasses
import types
import typing
from typing import Any, TypeVar

from predecode.pipelines.errors import PredecodeError

Record = TypeVar("Record")


class RecordError(PredecodeError):
    """A JSON value that does not fit the dataclass it was read for."""


def encode(value: Any) -> Any:
    """A dataclass (or a container of them) -> JSON value; tuples become lists."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: encode(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {key: encode(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [encode(item) for item in value]
    return value


def decode(kind: type[Record], value: Any, path: str = "") -> Record:
    """JSON value -> ``kind``: a dataclass, a dict (of str), tuple or list of such, ``X | None`` or a plain type.

    Raises `RecordError` naming the path of a missing or unknown key or of a value of another type.
    """
    if dataclasses.is_dataclass(kind):
        return _decode_dataclass(kind, value, path)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        if value is None:
            return None
        return decode(next(a for a in arguments if a is not type(None)), value, path)
    if origin in (tuple, list):
        _require(value, list, path)
        return origin(decode(arguments[0], item, f"{path}[{i}]") for i, item in enumerate(value))
    if origin is dict:
        _require(value, dict, path)
        return {key: decode(arguments[1], item, f"{path}.{key}") for key, item in value.items()}
    if kind is Any:
        return value
    if kind is float and type(value) is int:
        return float(value)
    _require(value, kind, path)
    return value


def _decode_dataclass(kind: type, value: Any, path: str) -> Any:
    _require(value, dict, path)
    hints = typing.get_type_hints(kind)
    fields = {f.name: f for f in dataclasses.fields(kind)}
    unknown = sorted(set(value) - set(fields))
    if unknown:
        raise RecordError(f"unknown key {_join(path, unknown[0])!r}")
    items = {}
    for name, field in fields.items():
        if name in value:
            items[name] = decode(hints[name], value[name], _join(path, name))
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise RecordError(f"key {_join(path, name)!r} is missing")
    return kind(**items)


def _require(value: Any, kind: type, path: str) -> None:
    if type(value) is not kind:
        raise RecordError(f"{path or 'the document'} is a {type(value).__name__}, expected a {kind.__name__}")


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
