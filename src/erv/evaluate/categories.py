"""What can and can't be said about the emotions of the tested data sets, before anything is generated.

A data set may have emotions that nobody was trained on, or that a judge can't hear. Its own label space
decides what counts as right; MAFW's space is what judges read in and what `overall` pools in.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from erv.errors import EvaluationError
from erv.evaluate.judges.protocol import Judge
from erv.labels import LabelSpace
from erv.manifest import ClipRow

MAFW = "mafw"


@dataclass(frozen=True)
class Categories:
    """A tested data set.

    Attributes:
        zero_shot: no clip of it was trained on.
        untrained: its emotions that no training set has, in the order of its space.
        unheard: its emotions that a judge can't name, by the judge's name. By that judge, such clips never
            count for EEA and FCR, nor do right answers to them for EPC.
        unpooled: its emotions without a name in the MAFW space: clips of these are not in `overall`.
    """

    zero_shot: bool
    untrained: tuple[str, ...] = ()
    unheard: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    unpooled: tuple[str, ...] = ()

    def said(self, dataset: str) -> list[str]:
        """What a reader of the figures has to know, in sentences."""
        found = []
        if self.zero_shot:
            found.append(f"{dataset} is zero-shot: this run trained no policy on clips of it")
        if self.untrained:
            found.append(f"{dataset}: no training set has {', '.join(self.untrained)}")
        for judge, names in self.unheard.items():
            found.append(
                f"{dataset}: the judge {judge} can't hear {', '.join(names)}, so by it such clips count as"
                " wrong for EEA and FCR, and right answers to them for EPC, whatever their explanations say"
            )
        if self.unpooled:
            found.append(
                f"{dataset}: the MAFW space has no name for {', '.join(self.unpooled)}, so such clips count"
                " for the data set, but not for `overall`"
            )
        return found


def categories(
    test: Sequence[str], train: Sequence[str], judges: Sequence[Judge] = ()
) -> dict[str, Categories]:
    """The tested data sets by name.

    Args:
        test: `roles.test`.
        train: the data sets that policies learn from.
        judges: the panel; each is asked which names of a space it can give.

    Raises:
        EvaluationError: no tested emotion has a name in the MAFW space.
        DataError: a data set has no label space, or one without a map to MAFW.
    """
    trained = {_pooled_name(space, name) for space in map(LabelSpace.load, train) for name in space.names}
    found = {}
    for dataset in test:
        space = LabelSpace.load(dataset)
        unpooled = tuple(name for name in space.names if space.to(MAFW)(name) is None)
        missed = {judge.name: _unheard(judge, space) for judge in judges}
        found[dataset] = Categories(
            zero_shot=dataset not in train,
            untrained=tuple(name for name in space.names if _pooled_name(space, name) not in trained),
            unheard={judge: names for judge, names in missed.items() if names},
            unpooled=unpooled,
        )
    if test and all(set(item.unpooled) == set(LabelSpace.load(name).names) for name, item in found.items()):
        raise EvaluationError(
            f"no emotion of {', '.join(test)} has a name in the MAFW space, in which `overall` pools; name"
            " at least one under maps.mafw in its label space, or add a mapped data set to roles.test"
        )
    return found


def require_pooled(clips: Sequence[ClipRow], split: str) -> None:
    """Refuses clips of which none would be in `overall`.

    Args:
        clips: all that are tested.
        split: theirs, `evaluate.split`.

    Raises:
        EvaluationError: no clip has a label with a name in the MAFW space.
    """
    labels: dict[str, set[str]] = {}
    for row in clips:
        labels.setdefault(row.dataset, set()).add(row.label)
    to_mafw = {dataset: LabelSpace.load(dataset).to(MAFW) for dataset in labels}
    if any(to_mafw[dataset](label) is not None for dataset, found in labels.items() for label in found):
        return
    found = "; ".join(f"{dataset} has {', '.join(sorted(found))}" for dataset, found in labels.items())
    raise EvaluationError(
        f"no clip in the {split} split has an emotion with a name in the MAFW space, in which `overall` pools"
        f" ({found}); name at least one under maps.mafw in its label space, or add a mapped data set to"
        " roles.test"
    )


def noteworthy(found: Mapping[str, Categories]) -> dict[str, dict[str, Any]]:
    """For `metrics.json`: the data sets about which there is something to say."""
    return {name: asdict(item) for name, item in found.items() if item.said(name)}


def unheard_by(found: Mapping[str, Categories], judge: str) -> dict[str, list[str]]:
    """The emotions that a judge can't name, by data set; empty if it can name all."""
    return {name: list(item.unheard[judge]) for name, item in found.items() if judge in item.unheard}


def notes(document: Mapping[str, Mapping[str, Any]], scope: str) -> list[str]:
    """What `noteworthy` says of one scope; for `overall`, of all data sets.

    Args:
        document: from `noteworthy`, perhaps read back from JSON.
        scope: a data set, or `overall`.
    """
    chosen: Iterable[str] = [scope] if scope in document else document if scope == "overall" else ()
    return [f"{sentence}." for name in chosen for sentence in _read(document[name]).said(name)]


def _read(item: Mapping[str, Any]) -> Categories:
    lists = {name: tuple(item[name]) for name in ("untrained", "unpooled")}
    return Categories(zero_shot=bool(item["zero_shot"]), unheard=item["unheard"], **lists)


def _unheard(judge: Judge, space: LabelSpace) -> tuple[str, ...]:
    known = judge.knows(space)
    return tuple(name for name in space.names if name not in known)


def _pooled_name(space: LabelSpace, name: str) -> str:
    """An emotion's name in the MAFW space, or else its own."""
    return space.to(MAFW)(name) or name
