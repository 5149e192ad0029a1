"""What the files of a study contain, and how they are written: plan, key and extensions."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from erv.errors import DataError

VERSION = 1
KEY = "key.json"
# What a rating item asks, each from 1 (not at all) to 5 (fully).
RATINGS = ("emotion", "own_answer", "true", "fluent")
LOWEST, HIGHEST = 1, 5
# Words on the pages, beside questions and emotions.
PAGE_WORDS = (
    "title",
    "consent",
    "agree",
    "decline",
    "declined",
    "instructions",
    "begin",
    "practice",
    "progress",
    "play_first",
    "cannot_play",
    "chosen",
    "continue",
    "next",
    "first",
    "second",
    "tie",
    "explanation",
    "answer",
    "no_answer",
    "scale",
    "undo",
    "keys",
    "sending",
    "finished",
    "finished_how",
    "finish",
    "thanks",
    "thanks_how",
    "code",
    "back",
    "number",
    "needs_script",
)
# That plans of before lack: they stay readable, and their pages leave these out.
LATER_WORDS = frozenset({"number", "needs_script"})

Kind = Literal["pair", "rating"]
Role = Literal["main", "practice", "attention", "gold"]
NAME = r"[a-z0-9][a-z0-9_-]{0,63}"
Name = Annotated[str, Field(pattern=f"^{NAME}$")]
Code = Annotated[str, Field(pattern=r"^[0-9A-Z]{4,16}$")]
Id = Annotated[str, Field(pattern=r"^[0-9a-z]{4,32}$")]
Slot = Annotated[str, Field(pattern=r"^[0-9a-z]{2,16}$")]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Part(BaseModel):
    """Immutable, strict about types, and without unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=True)


class Explanation(Part):
    """An explanation without its author.

    Attributes:
        code: stands for the policy, in this item only.
        text: the explanation, without tags.
        answer: the emotion that was answered with it, as written; empty if there was none.
    """

    code: Code
    text: Annotated[str, Field(min_length=1)]
    answer: str


class Expected(Part):
    """What an attentive rater says to an item whose answer is known; None where anything will do.

    Attributes:
        preferred: code of the explanation to prefer.
        ratings: the values that are right, by what is rated.
    """

    preferred: Code | None = None
    ratings: dict[str, tuple[int, ...]] | None = None


class Item(Part):
    """One page of questions about a clip.

    Attributes:
        id: names the item, and says nothing about it.
        kind: `pair` compares two explanations, `rating` rates one.
        role: `practice` and `attention` items never count for a result; `gold` items have a known answer.
        clip_id: the blinded name of the clip; its file is `media/CLIP_ID.mp4`.
        explanations: two of a pair, in an order that means nothing (`Study.shown` gives the rater's), or one.
        expected: of `attention` and `gold` items only.
    """

    id: Id
    kind: Kind
    role: Role
    clip_id: Id
    explanations: tuple[Explanation, ...]
    expected: Expected | None = None

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Item:
        wanted = 2 if self.kind == "pair" else 1
        codes = {explanation.code for explanation in self.explanations}
        if len(self.explanations) != wanted or len(codes) != wanted:
            raise ValueError(
                f"item {self.id}: a {self.kind} has {wanted} explanations with codes of their own"
            )
        known = self.role in ("attention", "gold")
        if known != (self.expected is not None):
            raise ValueError(f"item {self.id}: {self.role} and what is expected don't go together")
        if self.expected is not None:
            self._check(self.expected, codes)
        return self

    def _check(self, expected: Expected, codes: set[str]) -> None:
        if self.kind == "pair":
            if expected.ratings is not None or expected.preferred not in codes:
                raise ValueError(f"item {self.id}: expects what nobody can prefer")
            return
        ratings = expected.ratings or {}
        values = {value for allowed in ratings.values() for value in allowed}
        if expected.preferred is not None or not ratings or not set(ratings) <= set(RATINGS):
            raise ValueError(f"item {self.id}: expects ratings of something that is not asked")
        if not all(ratings.values()) or not values <= set(range(LOWEST, HIGHEST + 1)):
            raise ValueError(f"item {self.id}: expects ratings outside {LOWEST}..{HIGHEST}")

    def passes(self, value: Mapping[str, Any]) -> bool | None:
        """Whether an answer is the expected one; None for items that expect nothing.

        Args:
            value: of `Study.check`.
        """
        if self.expected is None:
            return None
        if self.expected.preferred is not None:
            return bool(value["preferred"] == self.expected.preferred)
        wanted = self.expected.ratings or {}
        return all(value["ratings"][name] in allowed for name, allowed in wanted.items())


class Texts(Part):
    """What raters read in one language.

    Attributes:
        consent: paragraphs that a rater agrees to before anything is asked.
        instructions: paragraphs before the first item.
        emotions: shown name by label.
        questions: wording by question: `emotion`, `preferred` and, as `ratings.NAME`, what is rated.
        page: the other words on the pages, `PAGE_WORDS`.
    """

    consent: Annotated[tuple[str, ...], Field(min_length=1)]
    instructions: Annotated[tuple[str, ...], Field(min_length=1)]
    emotions: dict[str, str]
    questions: dict[str, str]
    page: dict[str, str]

    def answer(self, written: str) -> str:
        """An answer as raters read it: if it is one of the study's emotions, as that is called here.

        Args:
            written: by the policy.
        """
        names = {label.casefold(): name for label, name in self.emotions.items()}
        return names.get(written.strip().casefold(), written)


class Panel(Part):
    """What a panel of paid raters needs to know that somebody finished.

    Attributes:
        completion_code: the code that a rater hands in.
        return_link: the address that a rater is sent back to, or None.
    """

    completion_code: Annotated[str, Field(min_length=4, max_length=64)]
    return_link: Annotated[str, Field(pattern=r"^https://[^\s]+$")] | None = None


class Design(Part):
    """How the number of raters per item came about; see `erv.study.power`.

    Attributes:
        overlap: how many raters are asked about each main pair; means nothing in a study without pairs.
        rating_overlap: how many raters are asked about each main rating.
        items_per_rater: main items of a rater, at most.
        pairs: distinct main pairs, between all policies.
        preference: the share of preferences to tell from a half.
        confidence: 1 - the probability of seeing a difference that isn't there.
        power: the probability of seeing a preference as large as `preference`.
        clip_correlation: of two raters' answers about one clip, as assumed.
        rater_correlation: of one rater's answers about two clips, as assumed.
        expected_power: the power that this overlap has, by the same formula.
    """

    overlap: Annotated[int, Field(ge=1)]
    rating_overlap: Annotated[int, Field(ge=1)]
    items_per_rater: Annotated[int, Field(ge=1)]
    pairs: int
    preference: float
    confidence: float
    power: float
    clip_correlation: float
    rater_correlation: float
    expected_power: float


class Seats(Part):
    """Slots for raters, each with the items that it is asked.

    Attributes:
        assignments: slot -> ids of its items, in the order in which they are asked.
        swapped: slot -> those of its pairs whose second explanation is shown first.
    """

    assignments: dict[Slot, tuple[Id, ...]]
    swapped: dict[Slot, tuple[Id, ...]]


class Plan(Part):
    """The content of `study.json`."""

    version: Literal[1]
    name: Name
    space: str
    emotions: Annotated[tuple[str, ...], Field(min_length=2)]
    languages: Annotated[tuple[str, ...], Field(min_length=1)]
    kinds: Annotated[tuple[Kind, ...], Field(min_length=1)]
    texts: dict[str, Texts]
    panel: Panel | None
    design: Design
    items: Annotated[tuple[Item, ...], Field(min_length=1)]
    media: dict[Id, Digest]
    seats: Seats

    @model_validator(mode="after")
    def _belongs_together(self) -> Plan:
        ids = Counter(item.id for item in self.items)
        if twice := [name for name, count in ids.items() if count > 1]:
            raise ValueError(f"item {twice[0]} is there twice")
        if foreign := [item.id for item in self.items if item.clip_id not in self.media]:
            raise ValueError(f"item {foreign[0]} is about a clip that has no file")
        if set(self.texts) != set(self.languages):
            raise ValueError("languages and texts don't belong together")
        asked = {"emotion", *(["preferred"] if "pair" in self.kinds else [])}
        if "rating" in self.kinds:
            asked |= {f"ratings.{name}" for name in RATINGS}
        for language, texts in self.texts.items():
            words = set(PAGE_WORDS) - LATER_WORDS - set(texts.page)
            if lacking := sorted(
                {*self.emotions} - set(texts.emotions) | asked - set(texts.questions) | words
            ):
                raise ValueError(f"the texts in {language!r} have no words for {lacking[0]!r}")
        return self


class Extension(Part):
    """The content of `extension-N.json`."""

    study: Digest
    seats: Seats


class KeyItem(Part):
    """What an item is about.

    Attributes:
        dataset: data set of the clip.
        clip_id: the clip's own id.
        label: its label, in the data set's space.
        policies: code -> policy; of an attention check or a gold item also what is no policy's:
            `erv:instruction`, or `POLICY@DATASET/CLIP` for an explanation of another clip.
        stratum: how the clip was drawn, such as `anger/disagree`.
    """

    dataset: str
    clip_id: str
    label: str
    policies: dict[Code, str]
    stratum: str


class Key(Part):
    """Which policy wrote what; never served.

    Attributes:
        version: of the format.
        study: SHA-256 of the plan that it belongs to.
        seed: of everything random in the plan.
        policies: those that are compared, each with the SHA-256 of its predictions.
        left_out: how many clips were left out, by reason.
        items: by item id.
    """

    version: Literal[1]
    study: Digest
    seed: int
    policies: dict[str, Digest]
    left_out: dict[str, int]
    items: dict[Id, KeyItem]

    def policy_of(self, item_id: str, code: str) -> str:
        """The policy behind a code.

        Raises:
            DataError: the key has no such item or code.
        """
        if item_id not in self.items or code not in self.items[item_id].policies:
            raise DataError(f"{KEY}: has no code {code!r} of item {item_id!r}; it belongs to another study")
        return self.items[item_id].policies[code]


def document(content: BaseModel) -> str:
    """The text of a plan, key or extension: the same content gives the same bytes."""
    return json.dumps(content.model_dump(mode="json"), indent=1, ensure_ascii=False, sort_keys=True) + "\n"
