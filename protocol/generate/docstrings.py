"""Docstrings, those under a class's fields and members too, which Python does not keep: read from the source."""

from __future__ import annotations

import ast
import inspect
import textwrap
from functools import cache
from itertools import pairwise


def of_class(kind: type) -> str:
    """Its own docstring on one line; empty when it has none."""
    doc = kind.__doc__
    inherited = any(doc == base.__doc__ for base in kind.__mro__[1:])
    return "" if doc is None or inherited else _line(doc)


@cache
def of_fields(kind: type) -> dict[str, str]:
    """What stands under each field or member, inherited ones too, by name; those without are left out."""
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        if base.__module__.split(".")[0] == kind.__module__.split(".")[0] or hasattr(base, "__struct_fields__"):
            found |= _under_fields(base)
    return found


def _under_fields(kind: type) -> dict[str, str]:
    try:
        source = inspect.getsource(kind)
    except (OSError, TypeError):  # a class of C code
        return {}
    (body,) = (node.body for node in ast.parse(textwrap.dedent(source)).body if isinstance(node, ast.ClassDef))
    found = {}
    for field, after in pairwise(body):
        text = after.value.value if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) else None
        if isinstance(text, str) and (name := _name(field)):
            found[name] = _line(text)
    return found


def _name(node: ast.stmt) -> str:
    match node:
        case ast.AnnAssign(target=ast.Name(id=name)) | ast.Assign(targets=[ast.Name(id=name)]):
            return name
    return ""


def _line(text: str) -> str:
    return " ".join(text.split())
