"""The section `study`: what `erv study prepare` makes of evaluated policies."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from erv.settings.section import PositiveInt, Section, of_form

Count = Annotated[int, Field(ge=0)]
Language = Annotated[str, of_form(r"[a-z]{2}", "a language code of two letters, such as en")]
Correlation = Annotated[float, Field(ge=0.0, lt=1.0)]


class PanelSettings(Section):
    """A panel of paid raters.

    Attributes:
        completion_code: what a rater hands in when everything is answered.
        return_link: https address that a rater is then sent back to, or None.
    """

    completion_code: Annotated[str, Field(min_length=4, max_length=64)]
    return_link: (
        Annotated[str, of_form(r"https://[^\s]+", "an address that begins with https://, or null")] | None
    )


class PowerSettings(Section):
    """How sure the study must be; from these the raters per pair follow, see `erv.study.power`.

    Attributes:
        preference: the share of preferences to tell from a half.
        confidence: 1 - the probability of seeing a difference that isn't there, for one pair of policies.
        power: the probability of seeing a preference as large as `preference`.
        clip_correlation: of two raters' answers about one clip.
        rater_correlation: of one rater's answers about two clips.
    """

    preference: Annotated[float, Field(gt=0.5, lt=1.0)]
    confidence: Annotated[float, Field(gt=0.5, lt=1.0)]
    power: Annotated[float, Field(gt=0.5, lt=1.0)]
    clip_correlation: Correlation
    rater_correlation: Correlation


class RulesSettings(Section):
    """Whose answers a report leaves out. Gates count a report by these rules only.

    Attributes:
        failed_attention: attention checks that a rater may fail.
        gold_share: share of the gold items that a rater must answer as expected.
        without: raters who don't count whatever they answered, by their pseudonyms, of any study.
    """

    failed_attention: Count
    gold_share: Annotated[float, Field(ge=0.0, le=1.0)]
    without: tuple[
        Annotated[str, of_form(r"r[0-9a-f]{10}", "a rater's pseudonym, as in erv study status")], ...
    ]


class StudySettings(Section):
    """A study with people.

    Attributes:
        policies: that are compared; empty for all of `compare.policies` that explain.
        clips: how many main clips are drawn.
        draw: `stratified` by emotion and by whether judges disagree, or `random`.
        disagreement_share: of a stratified draw, the share of clips on which judges disagree.
        kinds: of questions: `pair` compares two explanations, `rating` rates one.
        items_per_rater: main items that a rater is asked, practice and checks not counted.
        overlap: raters per pair; None to compute it from `power`.
        rating_overlap: raters per rated explanation.
        power: how sure the study must be.
        practice: items before the first one that counts.
        attention: items that say what to choose.
        gold: items whose right answer is known.
        rules: whose answers a report leaves out.
        languages: of the pages, the first is the default.
        texts: folder of texts of your own (`LANGUAGE.yaml`); None for those of erv.
        panel: where raters come from; None for no panel.
    """

    policies: tuple[str, ...]
    clips: PositiveInt
    draw: Literal["stratified", "random"]
    disagreement_share: Annotated[float, Field(ge=0.0, le=1.0)]
    kinds: Annotated[tuple[Literal["pair", "rating"], ...], Field(min_length=1)]
    items_per_rater: PositiveInt
    overlap: PositiveInt | None
    rating_overlap: PositiveInt
    power: PowerSettings
    practice: Count
    attention: Count
    gold: Count
    rules: RulesSettings
    languages: Annotated[tuple[Language, ...], Field(min_length=1)]
    texts: str | None
    panel: PanelSettings | None

    @model_validator(mode="after")
    def _nothing_twice(self) -> StudySettings:
        for name in ("policies", "kinds", "languages"):
            values = getattr(self, name)
            if len(set(values)) != len(values):
                raise ValueError(f"{name} names one twice: {', '.join(values)}")
        return self

    @model_validator(mode="after")
    def _pairs_need_two(self) -> StudySettings:
        if "pair" in self.kinds and len(self.policies) == 1:
            raise ValueError("kinds has pair, but policies names only one; name two, or leave pair out")
        return self
