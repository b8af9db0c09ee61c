"""What the scripted `repair` tries."""

from __future__ import annotations

from agents.models.scripted.scenarios.mutations import functions, mutations

CODE = '''
def f(a, b=2, *, c: int = 3):
    """Doc: x < y."""
    if a < b and not c:
        return a + 1
    if a is not None and b not in (1,):
        return
    while a == b:
        a += 1
    return a * b
'''


def changed(code: str) -> dict[str, str]:
    return {code.replace(one.before, one.after): one.what for one in mutations(code, functions(code)[0])}


def test_each_change_is_one_place_and_can_be_taken_back_by_another_change() -> None:
    for mutant, what in changed(CODE).items():
        assert CODE in changed(mutant), what


def test_a_change_names_lines_that_occur_once_before_and_after() -> None:
    code = "def f(a):\n    if a:\n        a += 1\n    else:\n        a += 1\n    a -= 1\n    return a\n"
    for one in mutations(code, functions(code)[0]):
        assert code.count(one.before) == 1
        assert code.replace(one.before, one.after).count(one.after) == 1


def test_source_that_is_no_python_has_no_functions() -> None:
    assert functions("def f(:\n") == []
