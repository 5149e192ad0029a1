"""Figures that others have published, with what they state of their setting."""

from __future__ import annotations

from importlib.resources import files

from erv.files import parse_yaml
from erv.results.result import Figure, Result


def published() -> tuple[Result, ...]:
    """The rows of `published.yaml`, in its order; they say no more of a setting than their source."""
    document = parse_yaml((files("erv.results") / "published.yaml").read_bytes())
    found = []
    for system in document["systems"]:
        for dataset, values in system["figures"].items():
            figures = {metric: Figure(round(value / 100, 6)) for metric, value in values.items()}
            found.append(
                Result(
                    system["name"],
                    dataset,
                    {key: str(text) for key, text in (system.get("stated") or {}).items()},
                    {"source": system["source"]},
                    figures,
                    published=True,
                    identity=system["source"],
                )
            )
    return tuple(found)
