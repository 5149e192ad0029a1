"""The section `report`: the paired comparison and its page."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from erv.settings.section import Section


class ReportSettings(Section):
    """The paired comparison and its page."""

    bootstrap_samples: Annotated[int, Field(ge=100)]
    confidence: Annotated[float, Field(gt=0.5, lt=1.0)]
    show_media: tuple[str, ...]
