"""Bounds for what is measured of a clip: of a whole data set, and of a single clip that a model answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from erv.validate.probes import Probe

REPLACE = (
    "put intact copies in the source and pin it again, or raise validate.max_failed_share:"
    " extraction quarantines what it can't decode"
)


@dataclass(frozen=True)
class Bound:
    """A bound.

    Attributes:
        name: of its expectation.
        measure: the field of `Probe`, and the column of the table of clips.
        expected: in words, with the required values.
        remedy: what to do about clips that miss it.
        low: the least that is taken.
        high: the most that is taken.
        of_folders: whether folders of frames have the measure, too.
    """

    name: str
    measure: str
    expected: str
    remedy: str
    low: float
    high: float | None = None
    of_folders: bool = False


def bounds(limits: Mapping[str, Any]) -> list[Bound]:
    """The bounds that these limits set, in the order in which they are reported.

    Args:
        limits: `min_seconds`, `max_seconds`, `min_fps`, `min_side`, `min_brightness` and `min_loudness_db`,
            as the `validate` section has them.

    Raises:
        KeyError: one is missing.
    """
    return [
        Bound(
            "frames_present",
            "frames",
            "at least 1 frame",
            REPLACE,
            1,
            of_folders=True,
        ),
        Bound(
            "size_plausible",
            "shorter_side",
            f"frames of at least {limits['min_side']} pixels a side",
            "check that these are the clips themselves and not thumbnails, or lower validate.min_side",
            limits["min_side"],
            of_folders=True,
        ),
        Bound(
            "not_black",
            "brightness",
            f"a frame with a mean luma of at least {limits['min_brightness']:g} of 255",
            "look at these clips; lower validate.min_brightness if they are only dark",
            limits["min_brightness"],
            of_folders=True,
        ),
        Bound(
            "length_plausible",
            "seconds",
            f"{limits['min_seconds']:g} to {limits['max_seconds']:g} s",
            "check that these are whole clips, or change validate.min_seconds and max_seconds",
            limits["min_seconds"],
            limits["max_seconds"],
        ),
        Bound(
            "fps_plausible",
            "fps",
            f"at least {limits['min_fps']:g} frames a second",
            "check how these clips were converted, or lower validate.min_fps",
            limits["min_fps"],
        ),
        Bound(
            "not_silent",
            "loudness_db",
            f"sound of at least {limits['min_loudness_db']:g} dB of full scale (RMS)",
            "listen to these clips; lower validate.min_loudness_db if they are only quiet",
            limits["min_loudness_db"],
        ),
    ]


def missed_bound(probe: Probe, limits: Mapping[str, Any]) -> str | None:
    """The first bound that a decodable video misses, in words; None if it misses none.

    What is not known of a clip misses no bound.
    """
    for bound in bounds(limits):
        value: float | None = getattr(probe, bound.measure)
        if value is not None and not bound.low <= value <= (value if bound.high is None else bound.high):
            return f"expected {bound.expected}, found {value:.4g} ({bound.name})"
    return None
