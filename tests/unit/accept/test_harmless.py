"""Which changes of a file can change what runs."""

import pytest

from erv.accept.harmless import CODE, HARMLESS, OTHER, UNREADABLE, VALUES, change_of

CODE_BEFORE = '''"""A module."""

import json


class Thing:
    """A thing."""

    size = 3


def total(values):
    """Adds."""
    # one by one
    return sum([value for value in values], 0)
'''


def change(before: str, after: str, name: str = "code.py") -> str:
    return change_of(name, before.encode(), after.encode())


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"""A module."""\n', ""),
        ('"""A thing."""', '"""Something else."""'),
        ('    """Adds."""\n', ""),
        ("# one by one", "# all at once"),
        ("[value for value in values], 0", "[\n        value\n        for value in values\n    ],\n    0,\n"),
        ("import json\n\n\n", "import json\n\n"),
    ],
)
def test_comments_docstrings_and_formatting_are_harmless(old: str, new: str) -> None:
    assert old in CODE_BEFORE
    assert change(CODE_BEFORE, CODE_BEFORE.replace(old, new)) == HARMLESS


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("size = 3", "size = 3.0"),
        ("size = 3", "size = '3'"),
        (", 0)", ", 1)"),
        ("import json", "import json as js"),
        ("values):", "values=()):"),
        ("    return sum", "    'a string that is no docstring'\n    return sum"),
        ("size = 3\n", "size = 3\n    '''a note below it'''\n"),
    ],
)
def test_what_runs_is_code(old: str, new: str) -> None:
    assert old in CODE_BEFORE
    assert change(CODE_BEFORE, CODE_BEFORE.replace(old, new)) == CODE


@pytest.mark.parametrize("read", ["__doc__", 'getattr(f, "__doc__")', "pydoc.render_doc(f)"])
def test_docstrings_count_where_they_are_read(read: str) -> None:
    """A question to a model could be built from one."""
    before = f'"""Say what you see."""\nPROMPT = {read}\n'
    assert change(before, before.replace("see", "hear")) == CODE
    assert change(before, before + "# a comment\n") == HARMLESS


def test_docstrings_count_in_a_schema() -> None:
    schema = 'class Answer(Base):\n    """How sure."""\n\n\nFORM = Answer.model_json_schema()\n'
    assert change(schema, schema.replace("sure", "certain")) == CODE


@pytest.mark.parametrize("name", ["a.yaml", "a.yml", "a.json"])
def test_values_are_compared_with_their_types_and_order(name: str) -> None:
    before = '{"a": 1, "b": [1, 2]}'
    assert change(before, '{ "a": 1,\n  "b": [1, 2] }', name) == HARMLESS
    for after in ('{"a": 1.0, "b": [1, 2]}', '{"a": true, "b": [1, 2]}', '{"b": [1, 2], "a": 1}'):
        assert change(before, after, name) == VALUES


def test_a_comment_in_yaml_is_harmless() -> None:
    assert change("a: 1\n", "a: 1  # one\n", "labels.yaml") == HARMLESS


def test_everything_else_needs_a_reason() -> None:
    assert change("{# a #}", "{# b #}", "page.html.j2") == OTHER
    assert change("let a", "let  a", "page.js") == OTHER
    assert change("a = 1", "a = (", "code.py") == UNREADABLE
    assert change("a: 1", "a: [", "a.yaml") == UNREADABLE
    assert change("a = 1", "a = 1\0", "code.py") == UNREADABLE
