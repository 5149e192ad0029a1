"""What a served model needs installed, read from the code that answers: no list of it is kept by hand.

Starting from the serving model, the imports of this package's modules are followed, those inside functions
too. What they import from elsewhere belongs to distributions; these and all that they need are pinned to the
versions installed here. Imports in C code and by name (`importlib`) are not seen: of those, only the family
of the policy matters, which the caller names.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import Distribution, distributions, packages_distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import NormalizedName, canonicalize_name

import erv

_PACKAGE = Path(erv.__file__).parent


def pinned_requirements(modules: Iterable[str]) -> list[str]:
    """Lines `name==version` for all that modules of this package need, directly or not, sorted by name.

    Args:
        modules: dotted names, such as `erv.register.serving_model`.

    Raises:
        ValueError: a distribution is installed without one that it needs.
    """
    owners = packages_distributions()
    # What isn't installed here isn't needed to answer: it is imported for options that are not used.
    direct = [Requirement(name) for top in imported(modules) for name in owners.get(top, ())]
    installed = {canonicalize_name(dist.metadata["Name"]): dist for dist in distributions()}
    names = sorted(closure(direct, installed) - {canonicalize_name(erv.__name__)})
    # An index that serves a build (`+cpu`) under its plain version refuses the labelled one.
    return [f"{name}=={installed[name].version.partition('+')[0]}" for name in names]


def imported(modules: Iterable[str]) -> set[str]:
    """The top-level modules from outside this package and the standard library that modules of it import.

    A package that is only passed through on the way to a module in it is loaded, but nothing in it is called,
    so imports inside its functions don't count.
    """
    found: set[str] = set()
    used: dict[str, bool] = {}
    waiting = [(module, True) for module in modules]
    while waiting:
        module, is_used = waiting.pop()
        if used.get(module) in (True, is_used) or (file := _file_of(module)) is None:
            continue
        used[module] = is_used
        for name in _imports(ast.parse(file.read_text(encoding="utf-8")), inside=is_used):
            top = name.partition(".")[0]
            if top == _PACKAGE.name:
                waiting += [(parent, False) for parent in _parents(name)] + [(name, is_used)]
            elif top not in sys.stdlib_module_names:
                found.add(top)
    return found


def closure(
    start: Iterable[Requirement], installed: Mapping[NormalizedName, Distribution]
) -> set[NormalizedName]:
    """The canonical names of `start` and of all that they need, directly or not.

    Raises:
        ValueError: something that is needed is not installed.
    """
    waiting = [requirement for requirement in start if needed(requirement)]
    seen: set[tuple[NormalizedName, frozenset[str]]] = set()
    while waiting:
        requirement = waiting.pop()
        key = canonicalize_name(requirement.name), frozenset(requirement.extras)
        if key in seen:
            continue
        if key[0] not in installed:
            raise ValueError(f"{requirement.name} is needed but not installed; run `make install` first")
        seen.add(key)
        inner = [Requirement(line) for line in installed[key[0]].requires or []]
        waiting += [item for item in inner if needed(item, key[1])]
    return {name for name, _ in seen}


def needed(requirement: Requirement, extras: Iterable[str] = ()) -> bool:
    """Whether the marker of a requirement holds on this machine, for a package installed with `extras`."""
    marker = requirement.marker
    return marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *extras))


def _file_of(module: str) -> Path | None:
    """The source of a module of this package; None for a name that is not one."""
    path = _PACKAGE.parent.joinpath(*module.split("."))
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
