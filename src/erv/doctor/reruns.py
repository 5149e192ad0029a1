"""Which stages run again when a parameter changes, read from `dvc.yaml`: there is no second list.

A stage runs again when a parameter listed under its `params` changes, or one used in its command or
dependencies (`${...}`). The stages that read its outputs follow if those outputs have changed.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from erv.parameters import flat
from erv.pipeline import PipelineStage, read_stages
from erv.settings import load_settings

_WRITTEN = re.compile(r"\$\{([^}]+)\}")
# Why a change of these parameters runs nothing again, by prefix of their names.
WITHOUT_STAGES = {
    "machine": "how the machine does the work",
    "sources": "only the content counts, once `erv data pin` has pinned it",
    "variants": "compare.train does not name the variant",
    "ingest.readers": "datasets does not name the data set",
    "rollouts": "rollouts.policies names no policy",
    "controls": "controls.policies names no policy",
    "arms": "arms names no policy",
    "study": "people are asked outside the pipeline, by `erv study`",
}


@dataclass(frozen=True)
class Reruns:
    """What a change of one parameter runs again.

    Attributes:
        name: dotted name of the parameter.
        own: stages that depend on it: `grpo@erv`, or `grpo` if every stage of that group does.
        then: stages that read their outputs, directly or through others.
        members: groups with one stage for each entry of the parameter, such as `grpo`.
        reason: why nothing depends on it; empty if something does.
    """

    name: str
    own: tuple[str, ...]
    then: tuple[str, ...]
    members: tuple[str, ...]
    reason: str

    def __str__(self) -> str:
        parts = [", ".join(self.own) or "nothing"]
        parts += [f"if these change, {', '.join(self.then)}"] if self.then else []
        parts += [f"each entry has its own {', '.join(self.members)}"] if self.members else []
        return f"{self.name}: {'; '.join(parts)}" + (f" ({self.reason})" if self.reason else "")


def all_reruns(workspace: Path = Path()) -> list[Reruns]:
    """What a change of each parameter runs again, in the order of `params.yaml`.

    Raises:
        SettingsError: `params.yaml` has faults.
        PipelineError: `dvc.yaml` has faults.
    """
    names = flat(load_settings(workspace / "params.yaml").model_dump(mode="json", by_alias=True))
    stages = read_stages(workspace)
    definitions = yaml.safe_load((workspace / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    return [_reruns(name, stages, definitions) for name in names]


def _reruns(name: str, stages: Sequence[PipelineStage], definitions: Mapping[str, Any]) -> Reruns:
    written = {group: _written(definition) for group, definition in definitions.items()}
    own = [
        stage.name
        for stage in stages
        if any(_covers(key, name) for key in (*stage.parameters, *written[stage.group]))
    ]
    members = tuple(
        group for group, definition in definitions.items() if name in _names_in(definition.get("matrix", {}))
    )
    outputs = [Path(out) for stage in stages if stage.group in members for out in stage.outputs]
    # A stage that reads a whole folder notices each new member in it.
    own = [
        stage.name
        for stage in stages
        if stage.name in own
        or any(Path(path) in out.parents for path in stage.dependencies for out in outputs)
    ]
    reason = ""
    if not own:
        reason = next((text for start, text in WITHOUT_STAGES.items() if _covers(start, name)), "")
    return Reruns(name, _short(own, stages), _short(_after(own, stages), stages), members, reason)


def _covers(key: str, name: str) -> bool:
    """Whether a parameter is the one that a key names, or is in the section that it names."""
    return name == key or name.startswith(f"{key}.")


def _written(definition: Mapping[str, Any]) -> set[str]:
    """Parameters that a stage's definition uses, as in `data/manifest/${roles.cold_start}.parquet`."""
    fixed = {key: value for key, value in definition.items() if key not in ("matrix", "params")}
    return {name for name in _names_in(fixed) if not name.startswith("item.")}


def _names_in(value: Any) -> set[str]:
    return set(_WRITTEN.findall(yaml.safe_dump(value, width=float("inf"))))


def _short(names: Sequence[str], stages: Sequence[PipelineStage]) -> tuple[str, ...]:
    """Names of stages; a group's name replaces those of all its members."""
    groups = {stage.name: stage.group for stage in stages}
    parts = Counter(groups.values())
    found = Counter(groups[name] for name in names)
    return tuple(
        dict.fromkeys(groups[name] if found[groups[name]] == parts[groups[name]] else name for name in names)
    )


def _after(own: Iterable[str], stages: Sequence[PipelineStage]) -> list[str]:
    """All downstream stages, in the order of the stages."""
    reached = set(own)
    for stage in stages:  # each comes after all its dependencies
        if reached.intersection(stage.upstream):
            reached.add(stage.name)
    return [stage.name for stage in stages if stage.name in reached.difference(own)]
