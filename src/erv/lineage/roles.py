"""What a version learned from, was tuned on and was tested on, from the lock entries that were kept with it.

What a stage learns goes into its output and from there into the outputs of the stages that read it:
`models/policy/sft` into `models/policy/erv`, explanations into the sentences of the verifier. So the way
leads from `register` up through these stages. Data stages and evaluations pass nothing on
that a model learned.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from erv.lineage.entries import Locked, producers
from erv.lineage.inputs import input_links
from erv.pipeline import MANIFESTS, QUARANTINES, inputs_of, registered

LEARNED, TUNED, TESTED = ROLES = ("learned", "tuned", "tested")
# Roles that the splits of a data set or of the verifier's sentences have.
_ROLE_OF = {"train": LEARNED, "validation": TUNED, "test": TESTED}
# Stages that pass nothing on that a model learned from clips.
PASSIVE = frozenset(
    {"ingest", "validate", "extract", "leakage", "evaluate", "controls", "grounding", "report", "register"}
)
_EXCLUSIONS = "data/exclusions.json"
_LEAKAGE = "data/leakage.json"
_TRAINING_SETS = "data/training_sets.json"
BASE = "base"  # the stage of what was learned before
_BASE_LOCK = "base.lock.json"
MODELS = POLICY, ENCODER = ("policy", "encoder")  # in a base checkpoint


@dataclass(frozen=True)
class Listed:
    """The clips of a split that are neither excluded nor in quarantine; every file is named by its MD5.

    Attributes:
        manifest: of the data set.
        dataset: its name.
        split: train or validation.
        exclusions: what training left out; None if it left out nothing.
        quarantine: what `extract` could not decode of this very manifest; None if that isn't known, and then
            the clips count as used.
        training_sets: hashes that the manifest must have been trained under; None if the stage depends on the
            manifest itself.
        leakage: why these very clips are excluded; None if that isn't known.
    """

    manifest: str
    dataset: str
    split: str
    exclusions: str | None = None
    quarantine: str | None = None
    training_sets: str | None = None
    leakage: str | None = None


@dataclass(frozen=True)
class Sentences:
    """The clips whose explanations are in a split of the labelled sentences.

    Attributes:
        table: MD5 of the sentences.
        split: train, validation or test.
        rollouts: the data set that sampled explanations are about.
    """

    table: str
    split: str
    rollouts: str


@dataclass(frozen=True)
class Answers:
    """The clips of an evaluation; `table` is the MD5 of its predictions."""

    table: str


@dataclass(frozen=True)
class Base:
    """What a base checkpoint says that it learned from, see `erv.lineage.contents`.

    Attributes:
        lock: MD5 of the lock of its source.
        model: one of `MODELS`.
        path: of the lock in the workspace.
    """

    lock: str
    model: str
    path: str = field(compare=False)


Members = Listed | Sentences | Answers | Base


@dataclass(frozen=True)
class Use:
    """A stage of a version used clips in a role.

    Attributes:
        role: one of `ROLES`.
        stage: `sft`, `grpo@erv`, or `base` for what was learned before.
        members: which clips.
    """

    role: str
    stage: str
    members: Members


class Told(NamedTuple):
    """What lock entries tell.

    Attributes:
        uses: that a version made of clips.
        unknown: sentences about what was never recorded.
        lost: sentences about what the entries name and don't have: the uses are then not all.
    """

    uses: list[Use]
    unknown: list[str]
    lost: list[str]


def uses_of(lock: Locked, written: Sequence[str] | None = None) -> Told:
    """The uses that a version made of clips.

    Args:
        lock: the entries that were kept with the version.
        written: what the stages of its `dvc.yaml` write, see `erv.lineage.inputs`.
    """
    walk = _Walk(lock, written)
    register = registered(lock)
    if register is None:
        return Told([], [], ["its dvc.lock has no entry of register"])
    walk.follow(register)
    if not walk.seen:
        walk.unknown.append(
            "no stage of its dvc.lock wrote its models, so what they learned from isn't known"
        )
    walk.evaluation(register)
    return Told(walk.uses, walk.unknown, walk.lost)


def data_sets_of(lock: Locked) -> dict[str, tuple[str, str | None]]:
    """The MD5s of manifest and quarantine of each data set that a lock has, by name."""
    found = {}
    for entry in lock.values():
        for path, md5 in _items(entry, "outs").items():
            if str(PurePosixPath(path).parent) == MANIFESTS:
                name = PurePosixPath(path).stem
                found[name] = (md5, _quarantine(lock, name, md5))
    return dict(sorted(found.items()))


def parameter(entry: Mapping[str, Any], name: str) -> Any:
    """The value of a parameter in a lock entry, or None: DVC keeps sections whole, as it tracks them."""
    for values in (entry.get("params") or {}).values():
        found: Any = values or {}
        if name in found:
            return found[name]
        for part in name.split("."):
            found = found.get(part) if isinstance(found, Mapping) else None
        if found is not None:
            return found
    return None


class _Walk:
    """From `register` up to everything that its models learned from."""

    def __init__(self, lock: Locked, written: Sequence[str] | None) -> None:
        self.lock = lock
        self._written = written
        self.uses: list[Use] = []
        self.unknown: list[str] = []
        self.lost: list[str] = []
        self.seen: set[str] = set()

    def follow(self, name: str) -> None:
        """Notes what the stages that `name` reads learned from, and goes on from each of them."""
        inputs = inputs_of(self.lock, name)
        # Of data stages and evaluations, what the entries name by hash is read, whoever wrote it.
        deciding = [item for item in inputs if not item.makers or not {*map(_group, item.makers)} <= PASSIVE]
        for link in input_links(self.lock, name, deciding, self._written):
            if link.ok is False:
                self.lost.append(f"{name}: {link.what} {link.detail.rpartition('; ')[0]}")
        for item in inputs:
            for maker in item.makers:
                if maker in self.seen or _group(maker) in PASSIVE:
                    continue
                self.seen.add(maker)
                read = READERS.get(_group(maker))
                if read is None:
                    self.unknown.append(f"erv doesn't know what {maker} learns from")
                else:
                    read(self, maker)
                self.follow(maker)

    def evaluation(self, register: str) -> None:
        """Notes the clips that the registered policy was tested on."""
        policies = {
            (item.path, item.md5)
            for item in inputs_of(self.lock, register)
            if any(_group(maker) in _TRAINERS for maker in item.makers)
        }
        found = False
        for name, entry in self.lock.items():
            if _group(name) != "evaluate" or not policies & _items(entry, "deps").items():
                continue
            for path, md5 in _items(entry, "outs").items():
                if PurePosixPath(path).suffix == ".parquet":
                    self.uses.append(Use(TESTED, name, Answers(md5)))
                    found = True
        if policies and not found:
            self.unknown.append(
                "its dvc.lock has no evaluation of its policy, so what it was tested on isn't known"
            )

    def note(self, role: str, stage: str, members: Members) -> None:
        self.uses.append(Use(role, stage, members))

    def base(self, name: str, model: str) -> None:
        for path, md5 in _items(self.lock[name], "deps").items():
            if PurePosixPath(path).name == _BASE_LOCK:
                self.note(LEARNED, BASE, Base(md5, model, path))


def _sft(walk: _Walk, name: str) -> None:
    entry = walk.lock[name]
    walk.base(name, POLICY)
    if parameter(entry, "sft.max_steps") == 0:  # the base is taken as it is
        return
    deps = _items(entry, "deps")
    for path, md5 in deps.items():
        if str(PurePosixPath(path).parent) == MANIFESTS:
            dataset = PurePosixPath(path).stem
            for split in ("train", "validation"):
                quarantine = _quarantine(walk.lock, dataset, md5)
                excluded = deps.get(_EXCLUSIONS)
                leakage = _leakage(walk.lock, excluded)
                listed = Listed(md5, dataset, split, excluded, quarantine, leakage=leakage)
                walk.note(_ROLE_OF[split], name, listed)


def _grpo(walk: _Walk, name: str) -> None:
    entry = walk.lock[name]
    deps = _items(entry, "deps")
    known = data_sets_of(walk.lock)
    for dataset in parameter(entry, "roles.train") or ():
        if dataset not in known:
            walk.lost.append(f"{name} learned from {dataset}, of which its dvc.lock has no manifest")
            continue
        manifest, quarantine = known[dataset]
        listed = Listed(
            manifest,
            dataset,
            "train",
            deps.get(_EXCLUSIONS),
            quarantine,
            deps.get(_TRAINING_SETS),
            _leakage(walk.lock, deps.get(_EXCLUSIONS)),
        )
        walk.note(LEARNED, name, listed)


def _train_erv(walk: _Walk, name: str) -> None:
    entry = walk.lock[name]
    walk.base(name, ENCODER)
    for path, md5 in _items(entry, "deps").items():
        if PurePosixPath(path).suffix != ".parquet":
            continue
        rollouts = _explained_by(walk.lock, path)
        for split, role in _ROLE_OF.items():
            if role == LEARNED and parameter(entry, "train_erv.max_steps") == 0:  # taken as it is
                continue
            walk.note(role, name, Sentences(md5, split, rollouts))


def _arms(walk: _Walk, name: str) -> None:
    own = ("src/", "stages/", "requirements/")
    for path in _items(walk.lock[name], "deps"):
        if not path.startswith(own) and not producers(walk.lock, path):
            walk.unknown.append(f"{name} takes in {path}, and what that learned from isn't recorded here")


def _carries(walk: _Walk, name: str) -> None:
    """Rollouts and sentences: what they are about is in the table that `train_erv` reads."""


# What each stage whose output carries what it learned has read. A test compares these and `PASSIVE` with
# `dvc.yaml`.
READERS: Mapping[str, Callable[[_Walk, str], None]] = {
    "sft": _sft,
    "rollouts": _carries,
    "distill": _carries,
    "train_erv": _train_erv,
    "grpo": _grpo,
    "arms": _arms,
}
_TRAINERS = frozenset({"sft", "grpo", "arms"})


def _explained_by(lock: Locked, sentences: str) -> str:
    """The data set whose explanations are in the sentences; empty if the lock doesn't say."""
    for maker in sorted(producers(lock, sentences)):
        for path in _items(lock[maker], "deps"):
            if str(PurePosixPath(path).parent) == MANIFESTS:
                return PurePosixPath(path).stem
    return ""


def _quarantine(lock: Locked, dataset: str, manifest: str) -> str | None:
    """The MD5 of what `extract` could not decode of this manifest; None if it read another one."""
    for maker in sorted(producers(lock, f"{QUARANTINES}/{dataset}.parquet")):
        if _items(lock[maker], "deps").get(f"{MANIFESTS}/{dataset}.parquet") == manifest:
            return _items(lock[maker], "outs").get(f"{QUARANTINES}/{dataset}.parquet")
    return None


def _leakage(lock: Locked, exclusions: str | None) -> str | None:
    """The MD5 of the record that `leakage` wrote with these exclusions; None if it wrote others."""
    for maker in sorted(producers(lock, _EXCLUSIONS)):
        outs = _items(lock[maker], "outs")
        if outs.get(_EXCLUSIONS) == exclusions:
            return outs.get(_LEAKAGE)
    return None


def _items(entry: Mapping[str, Any], kind: str) -> dict[str, str]:
    return {str(i["path"]): str(i.get("md5")) for i in entry.get(kind) or []}


def _group(name: str) -> str:
    return name.partition("@")[0]
