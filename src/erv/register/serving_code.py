"""Which code answers when a version is served, and a digest of it.

A version is served by the code that was stored with it, so another code makes another version, even of the
same bundle. Comments, docstrings and formatting don't count, and neither does code that is stored with it but
that no answer passes through, such as commands and stages.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import erv
from erv.files import sha256_of_file, sha256_of_text
from erv.policies.common.families import family_of, read_config
from erv.syntax import what_runs

# What mlflow runs, and what decides which files and packages it stores.
_STARTS = ("erv.register.serving_model", "erv.register.model_content")
_PACKAGE = Path(erv.__file__).parent


def serving_code(bundle: Path) -> str:
    """SHA-256 over the code that answers for a bundle.

    Args:
        bundle: its folder; the configuration of its policy names the family that reads it.

    Raises:
        TrainingError: no family reads the policy.
    """
    digests = {path.relative_to(_PACKAGE).as_posix(): _digest(path) for path in serving_files(bundle)}
    return sha256_of_text("".join(f"{digest}  {name}\n" for name, digest in sorted(digests.items())))


def serving_files(bundle: Path) -> set[Path]:
    """The modules that answering imports, and the files of data beside them."""
    folder = bundle / "policy"
    # The only module that is imported by a name that isn't in the code.
    family = f"erv.policies.{family_of(read_config(folder), folder)}"
    found: dict[str, Path] = {}
    pending = [*_STARTS, family]
    while pending:
        name = pending.pop()
        path = _path_of(name)
        if path is None or name in found:
            continue
        found[name] = path
        pending += _imports(path)
        pending += [name.rpartition(".")[0]] if "." in name else []  # packages run before their modules
    modules = set(found.values())
    folders = {path.parent for path in modules} - {_PACKAGE}
    beside = {path for folder in folders for path in folder.rglob("*") if path.is_file() and _is_data(path)}
    return modules | beside


def _is_data(path: Path) -> bool:
    return path.suffix not in (".py", ".pyc")


def _digest(path: Path) -> str:
    return sha256_of_text(what_runs(path.read_bytes())) if path.suffix == ".py" else sha256_of_file(path)


def _path_of(name: str) -> Path | None:
    """The file of a module of this package; None for any other name."""
    top, *parts = name.split(".")
    if top != "erv":
        return None
    base = _PACKAGE.joinpath(*parts)
    return next((p for p in (base / "__init__.py", base.with_suffix(".py")) if p.is_file()), None)


def _imports(path: Path) -> Iterator[str]:
    """Everything that a module imports anywhere, or might: `from a import b` may mean the module `a.b`."""
    pending: list[ast.AST] = [ast.parse(path.read_bytes())]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.If) and _is_for_types(node.test):
            pending += node.orelse
        else:
            pending += ast.iter_child_nodes(node)


def _is_for_types(test: ast.expr) -> bool:
    return isinstance(test, ast.Name) and test.id == "TYPE_CHECKING"
