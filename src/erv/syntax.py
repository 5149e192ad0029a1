"""Python source as a syntax tree, without what can't change what runs."""

from __future__ import annotations

import ast

_WITH_DOCSTRING = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
_WITH_STATEMENTS = ast.stmt | ast.excepthandler | ast.match_case
_READS_DOCSTRINGS = frozenset(
    {
        *("__doc__", "getdoc", "render_doc", "model_json_schema"),
        *("getsource", "getsourcelines", "getcomments", "findsource"),
    }
)


def reads_docstrings(tree: ast.AST) -> bool:
    """Whether code may do something else when docstrings change, its own or those of its source."""
    return any(
        (isinstance(node, ast.Name) and node.id in _READS_DOCSTRINGS)
        or (isinstance(node, ast.Attribute) and node.attr in _READS_DOCSTRINGS)
        or (isinstance(node, ast.Constant) and node.value == "__doc__")  # getattr
        for node in ast.walk(tree)
    )


def drop_docstrings(tree: ast.AST) -> None:
    """Takes all docstrings out of a tree."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        # Expressions hold no definitions with docstrings.
        waiting += [child for child in ast.iter_child_nodes(node) if isinstance(child, _WITH_STATEMENTS)]
        if isinstance(node, _WITH_DOCSTRING) and node.body:
            first = node.body[0]
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                del node.body[0]


def what_runs(source: bytes) -> str:
    """A text that two sources share if they differ in comments, docstrings or formatting alone.

    Raises:
        SyntaxError, ValueError: it is not Python.
    """
    tree = ast.parse(source)
    if not reads_docstrings(tree):
        drop_docstrings(tree)
    return ast.dump(tree)
