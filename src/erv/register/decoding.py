"""What a version records of how it is served: how clips are decoded and answered, and which are refused."""

from __future__ import annotations

from typing import Any

from erv.settings import Settings


def serving_settings(settings: Settings) -> dict[str, Any]:
    """The content of `serving.json`, see `erv.register.serving.Predictor`."""
    return {
        "frames": settings.extract.frames,
        "size": settings.extract.size,
        "geometry": settings.extract.geometry,
        "resize": settings.extract.resize,
        "sample_rate": settings.extract.sample_rate,
        "max_new_tokens": settings.evaluate.max_new_tokens,
        "limits": {  # see `erv.validate.bounds`
            "min_seconds": settings.validate_.min_seconds,
            "max_seconds": settings.validate_.max_seconds,
            "min_fps": settings.validate_.min_fps,
            "min_side": settings.validate_.min_side,
            "min_brightness": settings.validate_.min_brightness,
            "min_loudness_db": settings.validate_.min_loudness_db,
        },
    }
