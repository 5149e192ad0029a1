"""The items of a setting, their titles and their order; other parameters have their own names."""

from __future__ import annotations

from collections.abc import Iterable

# Key -> title, in the order of the page. A key with a dot is a parameter of `params.yaml`.
TITLES = {
    "dataset.frames": "Frame source",
    "ingest.fold": "Fold",
    "evaluate.split": "Split",
    "extract.frames": "Frames per clip",
    "frames.rule": "Which frames",
    "extract.short_folders": "Clips with too few frames",
    "extract.size": "Frame size",
    "extract.geometry": "Frame geometry",
    "extract.resize": "Resizing",
    "extract.sample_rate": "Sample rate",
    "sound.features": "Sound features",
    "extract.missing_audio": "Clips without sound",
    "prompt": "Prompt",
    "policy.family": "Model family",
    "model.parameters": "Parameters",
    "model.trained": "Trained parameters",
    "method": "Method",
    "rewards": "Rewards",
    "adapter": "Adapter",
    "roles.train": "Trained on",
    "roles.cold_start": "Cold start from",
    "seed": "Seed",
    "precision": "Precision",
    "training.precision": "Precision of training",
    "decoding": "Decoding",
    "evaluate.max_new_tokens": "Most new tokens",
    "judge": "Judge",
    "verifier": "Verifier",
    "libraries": "Libraries",
    "hardware": "Hardware",
    "training.hardware": "Hardware of training",
    "processes": "Processes of training",
    "intervals": "Intervals",
}
RECORD_TITLES = {
    "source": "Published in",
    "date": "Evaluated",
    "commit": "Commit",
    "uncommitted changes": "Uncommitted changes",
    "started by": "Started by",
    "lock entry": "Lock entry",
    "policy hash": "Policy (MD5)",
    "MLflow run": "MLflow run",
    "found in": "Found in",
}
_SOURCE = "source."


def title(key: str) -> str:
    """What an item is called on the page."""
    if key.startswith(_SOURCE):
        return f"Source {key.removeprefix(_SOURCE)}"
    return TITLES.get(key, key)


def named(key: str) -> bool:
    """Whether an item has a title of its own; the others are parameters by their own names."""
    return key in TITLES or key.startswith(_SOURCE)


def in_order(keys: Iterable[str]) -> list[str]:
    """Keys in the order of the page: those with titles, the sources, then parameters by name."""
    places = {key: place for place, key in enumerate(TITLES)}
    return sorted(set(keys), key=lambda key: (places.get(key, len(places)), not named(key), key))
