"""One-token faults: what `repair` tries in a function. The inverse of each is among them."""

from __future__ import annotations

import ast
import io
import tokenize
from collections.abc import Iterator
from functools import lru_cache

from msgspec import Struct

SWAPS: dict[str, tuple[str, ...]] = {
    "==": ("!=",),
    "!=": ("==",),
    "<": ("<=", ">", ">="),
    "<=": ("<", ">=", ">"),
    ">": (">=", "<", "<="),
    ">=": (">", "<=", "<"),
    "+": ("-", "*"),
    "-": ("+",),
    "*": ("/", "//", "+", "**"),
    "/": ("*", "//"),
    "//": ("/", "*", "%"),
    "%": ("//",),
    "**": ("*",),
    "+=": ("-=",),
    "-=": ("+=",),
    "*=": ("/=", "//="),
    "/=": ("*=",),
    "//=": ("*=",),
    "<<": (">>",),
    ">>": ("<<",),
    "&": ("|",),
    "|": ("&",),
    "and": ("or", "and not"),
    "or": ("and", "or not"),
    "is": ("is not",),
    "in": ("not in",),
    "not": ("",),
    "if": ("if not",),
    "elif": ("elif not",),
    "while": ("while not",),
    "return": ("return not",),
    "True": ("False",),
    "False": ("True",),
    "break": ("continue",),
    "continue": ("break",),
    "min": ("max",),
    "max": ("min",),
    "any": ("all",),
    "all": ("any",),
    "lower": ("upper",),
    "upper": ("lower",),
    "append": ("extend",),
    "extend": ("append",),
    "startswith": ("endswith",),
    "endswith": ("startswith",),
    "lstrip": ("rstrip",),
    "rstrip": ("lstrip",),
}
LIKELY = ("==", "!=", "<", "<=", ">", ">=", "+", "-", "and", "or", "not", "is", "in", "True", "False")
"""Tried before the others."""


class Mutation(Struct, frozen=True):
    """A change of one place; `before` and `after` are whole lines, the only ones of their kind in the file."""

    line: int
    before: str
    after: str
    what: str


class Function(Struct, frozen=True):
    name: str
    first: int
    last: int
    """Lines, from 1."""
    calls: tuple[str, ...]
    """Names that it calls, in order."""


@lru_cache(64)
def functions(source: str) -> list[Function]:
    """Every function and method; none when the source is no Python."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return []
    return [
        Function(node.name, node.lineno, node.end_lineno or node.lineno, tuple(dict.fromkeys(_called(node))))
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]


@lru_cache(256)  # a script is played again for every request
def mutations(source: str, function: Function) -> list[Mutation]:
    """Every one-token change within the function that leaves it valid Python, the likeliest first."""
    found = [
        (
            token.string not in LIKELY,
            Mutation(token.start[0], *_unique(source, token, new), f"`{token.string}` → `{new}`"),
        )
        for token, new in _replacements(source, function)
        if _is_valid(source, function, token, new)
    ]
    return [mutation for _, mutation in sorted(found, key=lambda pair: pair[0])]


def _replacements(source: str, function: Function) -> Iterator[tuple[tokenize.TokenInfo, str]]:
    tokens = [
        token
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if function.first <= token.start[0] <= function.last and token.start[0] == token.end[0]
    ]
    signature = True
    depth = 0
    for token, after in zip(tokens, [*tokens[1:], None], strict=True):
        depth += {"(": 1, "[": 1, "{": 1, ")": -1, "]": -1, "}": -1}.get(token.string, 0)
        if signature and not (token.type == tokenize.NUMBER or token.string in ("True", "False")):
            signature = not (token.string == ":" and depth == 0)
            continue  # of a signature only the defaults
        if token.type == tokenize.NUMBER and token.string.isdigit():
            number = int(token.string)
            yield from ((token, str(one)) for one in (number + 1, number - 1) if one >= 0)
        elif token.string == "is" and after is not None and after.string == "not":
            yield after, ""
        elif after is not None and (
            after.string == "not" or (token.string == "return" and after.type == tokenize.NEWLINE)
        ):
            pass  # the `not` itself is tried
        elif token.type in (tokenize.OP, tokenize.NAME):
            yield from ((token, new) for new in SWAPS.get(token.string, ()))


def _is_valid(source: str, function: Function, token: tokenize.TokenInfo, new: str) -> bool:
    lines = source.splitlines(keepends=True)
    row, start, end = token.start[0] - 1, token.start[1], token.end[1]
    lines[row] = lines[row][:start] + new + lines[row][end:]
    try:
        ast.parse("if True:\n" + "".join(lines[function.first - 1 : function.last]))
    except SyntaxError:
        try:
            ast.parse("".join(lines[function.first - 1 : function.last]))
        except SyntaxError:
            return False
    return True


def _unique(source: str, token: tokenize.TokenInfo, new: str) -> tuple[str, str]:
    """The changed line with as many lines before it as make it the only one of its kind, both before and after."""
    lines = source.splitlines(keepends=True)
    row, start, end = token.start[0] - 1, token.start[1], token.end[1]
    old_line = lines[row]
    rest = old_line[end:].lstrip(" ") if not new else old_line[end:]
    new_line = old_line[:start] + new + rest
    changed = [*lines[:row], new_line, *lines[row + 1 :]]
    for above in range(row + 1):
        before, after = "".join(lines[row - above : row + 1]), "".join(changed[row - above : row + 1])
        if source.count(before) == 1 and "".join(changed).count(after) == 1:
            return before, after
    return source, "".join(changed)


def _called(node: ast.AST) -> Iterator[str]:
    for part in ast.walk(node):
        if isinstance(part, ast.Call):
            if isinstance(part.func, ast.Name):
                yield part.func.id
            elif isinstance(part.func, ast.Attribute):
                yield part.func.attr
        elif isinstance(part, ast.Attribute):
            yield part.attr
