"""The setting under which an evaluation ran, from the lock entries of all that it came from.

An entry has the parameters that its stage ran with, and the hash of each file that it read. What
`params.yaml` says now decides nothing here. A stage whose output is no longer what the evaluation read says
nothing either: what it would say is unknown.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from erv.accept.accept import is_code
from erv.files import sha256_of_text
from erv.parameters import PARAMETERS, as_texts, flat
from erv.pipeline import reader_of
from erv.results.result import UNKNOWN

Locked = Mapping[str, Mapping[str, Any]]
Listing = Callable[[str], Mapping[str, str] | None]

UNTRAINED = "base as it is"
CODE = "code of "  # and a step, as a key
DIGITS = 12  # of a hash, where one is shown
_LOCK = ".lock.json"
_SOURCES = "data/sources/"
_LIBRARIES = "requirements/"
# Sections that say how figures are shown, or have items of their own.
_LEFT_OUT = ("report.", "machine.", "variants.", "sources.", "arms", "compare.", "register.")


@dataclass(frozen=True)
class Origin:
    """What an evaluation came from.

    Attributes:
        stages: the entries of the stages, the evaluation first.
        lost: the stages of which only another result is recorded.
        unchecked: those of which it can't be told, as the list of a folder is gone.
    """

    stages: Mapping[str, Mapping[str, Any]]
    lost: tuple[str, ...]
    unchecked: tuple[str, ...]

    def remarks(self) -> Iterator[str]:
        """What is unknown, in sentences."""
        if self.lost:
            yield (
                f"{', '.join(self.lost)}: has run again since, so with what it made this result's part is"
                " unknown"
            )
        if self.unchecked:
            yield (
                f"{', '.join(self.unchecked)}: that this result read what it wrote can't be checked, as the"
                " list of that folder is gone"
            )


def origin_of(lock: Locked, name: str, listing: Listing) -> Origin:
    """The entries that an evaluation came from, as far as they still say what it read.

    Args:
        lock: the lock entries.
        name: of the evaluation, `evaluate@erv`.
        listing: hash by path in a folder of this hash; None if it can't be read.
    """
    found, lost, unchecked = {name: lock[name]}, dict[str, None](), dict[str, None]()
    pending, inputs = [name], reader_of(lock, listing)
    while pending:
        for item in inputs(pending.pop(0)):
            for maker in item.makers:
                if item.as_written is False:
                    lost[maker] = None
                elif maker not in found:
                    found[maker] = lock[maker]
                    pending.append(maker)
                    if item.as_written is None:
                        unchecked[maker] = None
    for maker in lost:
        found.pop(maker, None)
    return Origin(found, tuple(lost), tuple(name for name in unchecked if name in found))


def setting_of(origin: Origin, policy: str, dataset: str) -> dict[str, str]:
    """The setting, by the keys of `erv.results.items`.

    Args:
        origin: what the evaluation came from.
        policy: its name.
        dataset: of the figures; `overall` for all of them.
    """
    raw = {name: _parameters(entry) for name, entry in origin.stages.items()}
    merged = _merged(raw)
    found = {key: text for key, text in merged.items() if not key.startswith(_LEFT_OUT)}
    found |= dict(_sources(origin, merged))
    found |= dict(_frames(raw, dataset))
    found |= dict(_method(origin, raw, policy))
    evaluated = next(iter(raw.values()))
    if "evaluate" in evaluated or any(key.startswith("evaluate.") for key in evaluated):
        found["decoding"] = _decoding(evaluated)
        found.pop("evaluate.temperature", None)
    verifier = _read(origin, "models/verifier", first=True)
    if verifier is not None:
        found["verifier"] = verifier[:DIGITS]
    return found | _code(origin)


def _parameters(entry: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters that an entry keeps, by dotted name."""
    found: dict[str, Any] = {}
    for name, values in (entry.get("params") or {}).items():
        if name == PARAMETERS:
            found |= flat(values or {})
    return found


def tested_by(entry: Mapping[str, Any]) -> list[str]:
    """The data sets that an evaluation tested on, by name; none if its entry doesn't say."""
    return sorted(_parameters(entry).get("roles.test") or [])


def _merged(raw: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Each parameter once; where stages ran with different values, which ran with which."""
    by_key: dict[str, dict[str, list[str]]] = {}
    for stage, values in raw.items():
        for key, text in as_texts(values).items():
            by_key.setdefault(key, {}).setdefault(text, []).append(stage)
    return {key: _told(values) for key, values in by_key.items()}


def _told(values: Mapping[str, list[str]]) -> str:
    if len(values) == 1:
        return next(iter(values))
    return "; ".join(f"{text} ({', '.join(sorted(stages))})" for text, stages in values.items())


def _sources(origin: Origin, merged: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """`source.mafw`: where it lies, and the version that is pinned."""
    for entry in origin.stages.values():
        for item in entry.get("deps") or []:
            path = str(item["path"])
            if path.startswith(_SOURCES) and path.endswith(_LOCK):
                name = PurePosixPath(path).name.removesuffix(_LOCK)
                version = f"version {str(item.get('md5'))[:DIGITS]}"
                place = merged.get(f"sources.{name}")
                yield f"source.{name}", f"{place}, {version}" if place else version


def _frames(raw: Mapping[str, Mapping[str, Any]], dataset: str) -> Iterator[tuple[str, str]]:
    """From which pictures the frames come, and which are taken. No stage looks for faces."""
    if any(stage.startswith("extract@") for stage in raw):
        yield "frames.rule", "evenly spread"
    tested = next(iter(raw.values())).get("roles.test") or []
    names = sorted(tested) if dataset == "overall" else [dataset]
    kinds = {name: _media(raw[f"ingest@{name}"], name) for name in names if f"ingest@{name}" in raw}
    if len(kinds) == len(names) and names:
        told = ", ".join(f"{kind} of {name}" for name, kind in kinds.items())
        text = told if len(names) > 1 else kinds[names[0]]
        yield "dataset.frames", f"{text}; whole frames, no face is cut out"


def _media(ingest: Mapping[str, Any], dataset: str) -> str:
    media = ingest.get(f"ingest.readers.{dataset}.media")
    kind = "frame folders" if str(media).startswith("frames") else "videos"
    return f"{kind} as distributed ({media})" if media else f"{kind} as distributed"


def _method(origin: Origin, raw: Mapping[str, Mapping[str, Any]], policy: str) -> Iterator[tuple[str, str]]:
    """How the policy was trained, with which rewards and adapter, from which prompt."""
    trained = f"grpo@{policy}"
    if trained in raw:
        own = {
            key.removeprefix(f"variants.{policy}."): value
            for key, value in raw[trained].items()
            if key.startswith(f"variants.{policy}.")
        }
        yield "method", f"{own.pop('method', 'grpo')} after sft"
        rewards = {key.removeprefix("rewards."): own.pop(key) for key in sorted(own) if "rewards." in key}
        if rewards:
            yield "rewards", " + ".join(f"{name} {weight}" for name, weight in rewards.items())
        yield from ((f"variant.{key}", text) for key, text in as_texts(own).items())
        yield "adapter", _adapter(raw[trained], "grpo")
    elif f"arms@{policy}" in origin.stages:
        yield "method", f"from elsewhere: {_folders(origin.stages[f'arms@{policy}'])}"
    elif "sft" in raw and policy == "sft":
        untrained = raw["sft"].get("sft.max_steps") == 0
        yield "method", UNTRAINED if untrained else "sft"
        yield "adapter", _adapter(raw["sft"], "sft")
    elif trained in origin.lost or policy in origin.lost:
        yield "method", UNKNOWN
    if "sft" in raw:
        prompt = raw["sft"].get("policy.prompt")
        md5 = _read(origin, str(prompt)) if prompt else None
        if prompt and md5:
            yield "prompt", f"{prompt}, version {md5[:DIGITS]}"


def _folders(entry: Mapping[str, Any]) -> str:
    """What a stage read that is no code: the folder of a policy, and its hash."""
    read = [item for item in entry.get("deps") or [] if not is_code(item["path"])]
    return ", ".join(f"{item['path']}, version {str(item.get('md5'))[:DIGITS]}" for item in read) or UNKNOWN


def _adapter(values: Mapping[str, Any], stage: str) -> str:
    section = f"{stage}.lora."
    lora = {key.removeprefix(section): value for key, value in values.items() if key.startswith(section)}
    if not lora:
        return UNKNOWN
    if not lora.get("enabled"):
        return "none"
    bits = "" if lora.get("quantize", "none") == "none" else f", base in {lora['quantize']}"
    return f"LoRA, rank {lora.get('rank')}, alpha {lora.get('alpha')}{bits}"


def _decoding(values: Mapping[str, Any]) -> str:
    temperature = values.get("evaluate.temperature")
    if temperature is None:
        return UNKNOWN
    return "greedy" if not temperature else f"sampled at temperature {temperature}"


def _read(origin: Origin, path: str, *, first: bool = False) -> str | None:
    """The hash of a file that a stage read; of the evaluation alone if `first`."""
    entries = list(origin.stages.values())[: 1 if first else None]
    for entry in entries:
        for item in entry.get("deps") or []:
            if item["path"] == path and item.get("md5"):
                return str(item["md5"])
    return None


def _code(origin: Origin) -> dict[str, str]:
    """A digest of the code of each step that it came from, without the lists of libraries."""
    read: dict[str, set[tuple[str, str]]] = {}
    for name, entry in origin.stages.items():
        read.setdefault(name.partition("@")[0], set()).update(
            (str(item["path"]), str(item.get("md5")))
            for item in entry.get("deps") or []
            if is_code(item["path"]) and not item["path"].startswith(_LIBRARIES)
        )
    return {
        f"{CODE}{step}": sha256_of_text(json.dumps(sorted(files)))[:DIGITS]
        for step, files in read.items()
        if files
    }


def libraries_of(origin: Origin) -> str | None:
    """The list of libraries that the evaluation is recorded with, and its hash."""
    for item in next(iter(origin.stages.values())).get("deps") or []:
        if item["path"].startswith(f"{_LIBRARIES}results-"):
            return f"{item['path']}, version {str(item.get('md5'))[:DIGITS]}"
    return None
