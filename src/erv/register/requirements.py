"""What a served model needs installed, read from the code that answers: no list of it is kept by hand.

What the modules that answer import from elsewhere belongs to distributions; these and all that they need are
pinned to the versions installed here. Of imports that are not seen (`erv.register.imports`), only the family
of the policy matters, which the caller names.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from importlib.metadata import Distribution, distributions, packages_distributions

from packaging.requirements import Requirement
from packaging.utils import NormalizedName, canonicalize_name

import erv
from erv.register.imports import imported


def pinned_requirements(modules: Iterable[str]) -> list[str]:
    """Lines `name==version` for all that modules of this package need, directly or not, sorted by name.

    Args:
        modules: dotted names, such as `erv.register.serving_model`.

    Raises:
        ValueError: a distribution is installed without one that it needs.
    """
    owners = packages_distributions()
    # What isn't installed here isn't needed to answer: it is imported for options that are not used.
    direct = [Requirement(name) for top in imported(modules).outside for name in owners.get(top, ())]
    installed = {canonicalize_name(dist.metadata["Name"]): dist for dist in distributions()}
    names = sorted(closure(direct, installed) - {canonicalize_name(erv.__name__)})
    # An index that serves a build (`+cpu`) under its plain version refuses the labelled one.
    return [f"{name}=={installed[name].version.partition('+')[0]}" for name in names]


def closure(
    start: Iterable[Requirement],
    installed: Mapping[NormalizedName, Distribution],
    without: Collection[NormalizedName] = (),
) -> set[NormalizedName]:
    """The canonical names of `start` and of all that they need, directly or not.

    Args:
        start: what is needed.
        installed: all distributions.
        without: those that are left out, with what only they need.

    Raises:
        ValueError: something that is needed is not installed.
    """
    waiting = [requirement for requirement in start if needed(requirement)]
    seen: set[tuple[NormalizedName, frozenset[str]]] = set()
    while waiting:
        requirement = waiting.pop()
        key = canonicalize_name(requirement.name), frozenset(requirement.extras)
        if key in seen or key[0] in without:
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
