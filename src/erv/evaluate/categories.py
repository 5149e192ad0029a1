"""What can and can't be said about the emotions of the tested data sets, before anything is generated.

A data set may have emotions that nobody was trained on, or that a judge can't hear. Its own label space
decides what counts as right; MAFW's space is what judges read in and what `overall` pools in.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from erv.errors import EvaluationError
from erv.labels import LabelSpace

MAFW = "mafw"


@dataclass(frozen=True)
class Categories:
    """A tested data set.

    Attributes:
        zero_shot: no clip of it was trained on.
        untrained: its emotions that no training set has, in the order of its space.
        unheard: its emotions that the judge can't name: clips of these never count for EEA, EPC and FCR.
        unpooled: its emotions without a name in the MAFW space: clips of these are not in `overall`.
    """

    zero_shot: bool
    untrained: tuple[str, ...] = ()
    unheard: tuple[str, ...] = ()
    unpooled: tuple[str, ...] = ()

    def said(self, dataset: str) -> list[str]:
        """What a reader of the figures has to know, in sentences."""
        found = []
        if self.zero_shot:
            found.append(f"{dataset} is zero-shot: no policy was trained on clips of it")
        if self.untrained:
            found.append(f"{dataset}: no training set has {', '.join(self.untrained)}")
        if self.unheard:
            found.append(
                f"{dataset}: the judge can't hear {', '.join(self.unheard)}, so for EEA and FCR such clips"
                " count as wrong, whatever their explanations say"
            )
        if self.unpooled:
            found.append(
                f"{dataset}: the MAFW space has no name for {', '.join(self.unpooled)}, so such clips count"
                " for the data set, but not for `overall`"
            )
        return found


def categories(test: Sequence[str], train: Sequence[str], judge: Any = None) -> dict[str, Categories]:
    """The tested data sets by name.

    Args:
        test: `roles.test`.
        train: the data sets that policies learn from.
        judge: a judge; one that has `knows(space)`, the names of a space that it can give, is asked. The
            others know MAFW's emotions.

    Raises:
        EvaluationError: no tested emotion has a name in the MAFW space.
        DataError: a data set has no label space, or one without a map to MAFW.
    """
    trained = {_pooled_name(space, name) for space in map(LabelSpace.load, train) for name in space.names}
    found = {}
    for dataset in test:
        space = LabelSpace.load(dataset)
        unpooled = tuple(name for name in space.names if space.to(MAFW)(name) is None)
        knows = getattr(judge, "knows", None)
        heard = set(space.names) - set(unpooled) if knows is None else set(knows(space))
        found[dataset] = Categories(
            zero_shot=dataset not in train,
            untrained=tuple(name for name in space.names if _pooled_name(space, name) not in trained),
            unheard=tuple(name for name in space.names if name not in heard),
            unpooled=unpooled,
        )
    if test and all(set(item.unpooled) == set(LabelSpace.load(name).names) for name, item in found.items()):
        raise EvaluationError(
            f"no emotion of {', '.join(test)} has a name in the MAFW space, in which `overall` pools; name"
            " at least one under maps.mafw in its label space, or add a mapped data set to roles.test"
        )
    return found


def noteworthy(found: Mapping[str, Categories]) -> dict[str, dict[str, Any]]:
    """For `metrics.json`: the data sets about which there is something to say."""
    return {name: asdict(item) for name, item in found.items() if item.said(name)}


def notes(document: Mapping[str, Mapping[str, Any]], scope: str) -> list[str]:
    """What `noteworthy` says of one scope; for `overall`, of all data sets.

    Args:
        document: from `noteworthy`, perhaps read back from JSON.
        scope: a data set, or `overall`.
    """
    chosen: Iterable[str] = [scope] if scope in document else document if scope == "overall" else ()
    return [f"{sentence}." for name in chosen for sentence in _read(document[name]).said(name)]


def _read(item: Mapping[str, Any]) -> Categories:
    lists = {name: tuple(item[name]) for name in ("untrained", "unheard", "unpooled")}
    return Categories(zero_shot=bool(item["zero_shot"]), **lists)


def _pooled_name(space: LabelSpace, name: str) -> str:
    """An emotion's name in the MAFW space, or else its own."""
    return space.to(MAFW)(name) or name
