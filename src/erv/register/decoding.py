"""What a version records of how it is served: how clips are decoded and answered, and which are refused."""

from __future__ import annotations

from typing import Any

from erv.settings import Settings

# Of the section `validate`, see `erv.validate.bounds`.
_LIMITS = ("min_seconds", "max_seconds", "min_fps", "min_side", "min_brightness", "min_loudness_db")


def serving_settings(settings: Settings) -> dict[str, Any]:
    """The content of `serving.json`, see `erv.register.serving.Predictor`."""
    return {
        "frames": settings.extract.frames,
        "size": settings.extract.size,
        "geometry": settings.extract.geometry,
        "resize": settings.extract.resize,
        "sample_rate": settings.extract.sample_rate,
        "max_new_tokens": settings.evaluate.max_new_tokens,
        "limits": settings.validate_.model_dump(include=set(_LIMITS)),
    }
