"""The section `register`: the candidate and its gates."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from erv.settings.section import NAME_OF_A_MODEL, Section, of_form

JUDGED = ("EEA", "EPC", "FCR", "inconsistency", "inconsistency_all")
LOWER_IS_BETTER = ("inconsistency", "inconsistency_all", "repetitive")
NEITHER_IS_BETTER = ("words", "sentences")  # counts; every other metric is a share, in 0..1
INSTRUMENTS = ("verifier_f1", "judge_accuracy")  # what measures, of which no policy has its own
EVERY, MAJORITY = "every", "majority"  # what a gate may name beside a judge of the panel
PREFERENCE = "preference"  # of people, in a study


class GateSettings(Section):
    """A condition for `champion`, on an end of an interval: that which speaks against the candidate.

    With a minimum it is the lower end, with a maximum the upper one, and the metric must reach it. With
    `against` it is that of the paired difference, which must be beyond it. `preference` is of people, in a
    study: the share of their preferences for the candidate minus the share for the policy `against`.
    """

    metric: Literal[
        "WAR",
        "UAR",
        "EEA",
        "EPC",
        "FCR",
        "inconsistency",
        "inconsistency_all",
        "format",
        "repetitive",
        "words",
        "sentences",
        "verifier_f1",
        "judge_accuracy",
        "preference",
    ]
    minimum: float | None = None
    maximum: float | None = None
    against: str | None = None
    judge: str | None = None
    study: (
        Annotated[str, of_form(r"[a-z0-9][a-z0-9_-]{0,63}", "the name of a study, a folder of studies/")]
        | None
    ) = None

    @model_validator(mode="after")
    def _fits(self) -> GateSettings:
        if (self.minimum is None) == (self.maximum is None):
            raise ValueError(f"gate on {self.metric}: give either minimum or maximum")
        end, other = ("maximum", "minimum") if self.metric in LOWER_IS_BETTER else ("minimum", "maximum")
        if self.metric not in NEITHER_IS_BETTER and getattr(self, other) is not None:
            raise ValueError(
                f"gate on {self.metric}: a {other} would keep better models from champion; give a {end}"
            )
        if self.metric in INSTRUMENTS and self.against is not None:
            raise ValueError(
                f"gate on {self.metric}: all policies are measured by the same, so leave out against"
            )
        bound = self.minimum if self.maximum is None else self.maximum
        least = 0.0 if self.against is None else -1.0
        if self.metric not in NEITHER_IS_BETTER and not least <= float(bound or 0.0) <= 1.0:
            what = "a share" if self.against is None else "a difference of shares"
            raise ValueError(f"gate on {self.metric}: it is {what}, so give {end} in {least:g} to 1")
        if self.judge is not None and self.metric not in JUDGED:
            raise ValueError(
                f"gate on {self.metric}: no judge decides it, so leave out judge; judges decide"
                f" {', '.join(JUDGED)}"
            )
        if (self.metric == PREFERENCE) != (self.study is not None):
            raise ValueError(
                f"gate on {self.metric}: a study goes with {PREFERENCE}, and that needs one; name a folder of"
                " studies/"
            )
        if self.metric == PREFERENCE and self.against in (None, "champion"):
            raise ValueError(
                f"gate on {PREFERENCE}: people compared the candidate with policies of the study, so name one"
                " of them in against"
            )
        return self


class RegisterSettings(Section):
    """The candidate and its gates."""

    model_name: Annotated[str, NAME_OF_A_MODEL]
    policy: str
    confidence: Annotated[float, Field(gt=0.5, lt=1.0)]
    bootstrap_samples: Annotated[int, Field(ge=100)]
    require_lineage: bool
    gates: Annotated[tuple[GateSettings, ...], Field(min_length=1)]
