"""What a version records of how it is served: how clips are decoded and answered, and which are refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, ValidationError

from erv.settings import Settings
from erv.settings.extract import DecodingSettings, MissingAudio
from erv.settings.faults import describe
from erv.settings.ingest import DatasetName
from erv.settings.section import PositiveInt
from erv.settings.validate import ClipLimits

_OLDER = {"resize": "pillow"}  # older versions don't say so, nor what is None below


class ServingSettings(DecodingSettings):
    """`serving.json`, by the rules of `params.yaml`."""

    max_new_tokens: PositiveInt
    limits: ClipLimits
    missing_audio: MissingAudio | None = None
    # The data sets that the policy was tested with; of each its label space, see `erv.register.tested`.
    datasets: Annotated[dict[DatasetName, str | None], Field(min_length=1)] | None = None


def fault_of(serving: Mapping[str, Any]) -> str | None:
    """The first fault of the content of a `serving.json` from elsewhere, in one line; None if it has none."""
    try:
        ServingSettings.model_validate({**_OLDER, **serving}, strict=True)
    except ValidationError as error:
        return describe(error.errors()[0], ServingSettings)
    return None


def serving_settings(settings: Settings) -> dict[str, Any]:
    """The content of `serving.json` but for `datasets`, see `erv.answering.predictor.Predictor`."""
    return {
        "frames": settings.extract.frames,
        "size": settings.extract.size,
        "geometry": settings.extract.geometry,
        "resize": settings.extract.resize,
        "sample_rate": settings.extract.sample_rate,
        "missing_audio": settings.extract.missing_audio,
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
