"""The modules of this package that run when some of them are used, by following imports in their code."""

from __future__ import annotations

import ast
import sys
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import erv

PACKAGE = Path(erv.__file__).parent


@dataclass(frozen=True)
class Imported:
    """What modules import, directly or not.

    Attributes:
        files: the modules of this package, by dotted name.
        outside: top-level modules from elsewhere, but for the standard library.
    """

    files: dict[str, Path] = field(default_factory=dict)
    outside: set[str] = field(default_factory=set)


def imported(modules: Iterable[str], within: Collection[Path] | None = None) -> Imported:
    """Follows the imports of modules of this package, those inside functions too.

    A package that is only passed through on the way to a module in it is loaded, but nothing in it is called,
    so imports inside its functions don't count. Imports in C code and by name (`importlib`) are not seen.

    Args:
        modules: dotted names, such as `erv.register.serving_model`.
        within: files and folders; what others import doesn't count. By default the whole package counts.
    """
    found = Imported()
    used: dict[str, bool] = {}
    waiting = [(module, True) for module in modules]
    while waiting:
        module, is_used = waiting.pop()
        if used.get(module) in (True, is_used) or (file := _file_of(module)) is None:
            continue
        if within is not None and not any(place in (file, *file.parents) for place in within):
            continue
        used[module] = is_used
        found.files[module] = file
        for name in _imports(ast.parse(file.read_bytes()), inside=is_used):
            top = name.partition(".")[0]
            if top == PACKAGE.name:
                waiting += [(parent, False) for parent in _parents(name)] + [(name, is_used)]
            elif top not in sys.stdlib_module_names:
                found.outside.add(top)
    return found


def modules_of(script: Path) -> set[str]:
    """The modules of this package that a script imports, in functions too."""
    names = set(_imports(ast.parse(script.read_bytes()), inside=True))
    return {name for name in names if name.partition(".")[0] == PACKAGE.name}


def _file_of(module: str) -> Path | None:
    """The source of a module of this package; None for a name that is not one."""
    path = PACKAGE.parent.joinpath(*module.split("."))
    candidates = (path / "__init__.py", path.with_name(f"{path.name}.py"))
    return next((file for file in candidates if file.is_file()), None)


def _parents(module: str) -> list[str]:
    parts = module.split(".")
    return [".".join(parts[:end]) for end in range(1, len(parts))]


def _imports(tree: ast.AST, *, inside: bool) -> Iterator[str]:
    """Dotted names that a module imports, those of `from` imports with and without the name.

    Args:
        tree: of the module.
        inside: whether imports inside functions count. Imports for type checking never do.
    """
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            submodules = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from submodules
            if any(_file_of(name) is None for name in submodules):
                yield node.module
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            for other in node.orelse:
                yield from _imports(ast.Module([other], []), inside=inside)
        elif inside or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _imports(node, inside=inside)
