"""The section `distill`: the sentences, and who labels them."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from erv.settings.section import Section, Share
from erv.settings.teachers import TeacherSettings


class DistillSettings(Section):
    """Sentence labels for the verifier."""

    teachers: tuple[TeacherSettings, ...]  # length is checked below, so that the error does not print it
    max_quarantine_share: Share
    validation_share: Annotated[float, Field(gt=0.0, lt=0.5)]
    test_share: Annotated[float, Field(gt=0.0, lt=0.5)]

    @model_validator(mode="after")
    def _teachers_fit(self) -> DistillSettings:
        if not self.teachers:
            raise ValueError("teachers is empty; name at least one, e.g. {kind: reference}")
        names = [teacher.name for teacher in self.teachers]
        if len(set(names)) != len(names):
            raise ValueError(f"teachers names one twice: {', '.join(names)}")
        return self
