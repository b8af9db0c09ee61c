"""The messages' classes -> TypeScript declarations, docstrings and all."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any

import msgspec
from msgspec.inspect import Field, StructType, type_info

from protocol.generate import docstrings
from protocol.generate.schema import structs

PRIMITIVES = {
    msgspec.inspect.StrType: "string",
    msgspec.inspect.IntType: "number",
    msgspec.inspect.FloatType: "number",
    msgspec.inspect.BoolType: "boolean",
    msgspec.inspect.NoneType: "null",
    msgspec.inspect.AnyType: "unknown",
    msgspec.inspect.DateTimeType: "Time",
}
TIME = "/** A time, ISO 8601 with its zone. */\nexport type Time = string;\n"


def declarations(unions: Mapping[str, Any], kinds: Iterable[type] = ()) -> str:
    """The `unions` under their names, `kinds`, and all that they consist of."""
    info = {name: type_info(union) for name, union in unions.items()}
    names = {_members(union): name for name, union in info.items()}
    found = structs([*unions.values(), *kinds])
    parts = [TIME]
    parts += [f"export type {name} =\n  | {' | '.join(_members(union))};\n" for name, union in info.items()]
    parts += [_interface(kind, names) for kind in found]
    parts += [_enumeration(kind) for kind in _enumerations(found)]
    return "\n".join(parts)


def _members(info: msgspec.inspect.Type) -> tuple[str, ...]:
    """The names of a union's Structs; none for anything else."""
    if not isinstance(info, msgspec.inspect.UnionType):
        return ()
    return tuple(part.cls.__name__ for part in info.types if isinstance(part, StructType))


def _interface(kind: type, names: Mapping[tuple[str, ...], str]) -> str:
    info = type_info(kind)
    assert isinstance(info, StructType)
    docs = docstrings.of_fields(kind)
    lines = [*_comment(docstrings.of_class(kind)), f"export interface {kind.__name__} {{"]
    if info.tag is not None:
        lines.append(f"  {info.tag_field}: {json.dumps(info.tag)};")
    for field in info.fields:
        lines += _comment(_with_default(docs.get(field.name, ""), field), "  ")
        lines.append(f"  {field.encode_name}{'' if field.required else '?'}: {_type(field.type, names)};")
    return "\n".join([*lines, "}\n"])


def _with_default(doc: str, field: Field) -> str:
    """A field that is left out has its default: who reads one has to know which."""
    if field.default in (msgspec.NODEFAULT, msgspec.UNSET):
        return doc
    return f"{doc} @default {msgspec.json.encode(field.default).decode()}".strip()


def _type(info: msgspec.inspect.Type, names: Mapping[tuple[str, ...], str]) -> str:
    match info:
        case StructType(cls=cls) | msgspec.inspect.EnumType(cls=cls):
            return cls.__name__
        case msgspec.inspect.UnionType(types=types):
            return names.get(_members(info)) or " | ".join(_type(part, names) for part in types)
        case msgspec.inspect.VarTupleType(item_type=item) | msgspec.inspect.ListType(item_type=item):
            inner = _type(item, names)
            return f"({inner})[]" if "|" in inner else f"{inner}[]"
        case msgspec.inspect.DictType(value_type=item):
            return f"Record<string, {_type(item, names)}>"
        case msgspec.inspect.LiteralType(values=values):
            return " | ".join(json.dumps(value) for value in values)
    return PRIMITIVES[type(info)]


def _enumerations(found: Iterable[type]) -> list[type[Enum]]:
    seen: dict[type[Enum], None] = {}
    for kind in found:
        for field in msgspec.structs.fields(kind):
            info = type_info(field.type)
            if isinstance(info, msgspec.inspect.EnumType):
                seen[info.cls] = None
    return list(seen)


def _enumeration(kind: type[Enum]) -> str:
    docs = docstrings.of_fields(kind)
    lines = [*_comment(docstrings.of_class(kind)), f"export type {kind.__name__} ="]
    for member in kind:
        lines += _comment(docs.get(member.name, ""), "  ")
        lines.append(f"  | {json.dumps(member.value)}")
    return "\n".join(lines) + ";\n"


def _comment(text: str, indent: str = "") -> list[str]:
    return [f"{indent}/** {text} */"] if text else []
