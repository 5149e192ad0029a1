"""The answers with what they are about: which policy was preferred or rated, on which clip, by whom."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from erv.study.answers.table import Answer
from erv.study.plan import TIE, Key, Study

Clip = tuple[str, str]  # data set and clip id


@dataclass(frozen=True)
class Preference:
    """An answer to a pair of explanations of one clip.

    Attributes:
        rater: the pseudonym.
        item: id of the item.
        clip: data set and id.
        earlier, later: the two policies, in the order of the study's policies.
        outcome: 1 if the later one was preferred, -1 if the earlier one was, 0 for a tie.
        first_shown: 1 if the later one was shown first, -1 if the earlier one was; 0 if nobody knows, as the
            answer was given in another program.
    """

    rater: str
    item: str
    clip: Clip
    earlier: str
    later: str
    outcome: int
    first_shown: int


@dataclass(frozen=True)
class Rating:
    """An answer to one explanation of a clip.

    Attributes:
        rater: the pseudonym.
        item: id of the item.
        clip: data set and id.
        policy: who wrote it.
        values: 1..5 by what is rated.
    """

    rater: str
    item: str
    clip: Clip
    policy: str
    values: dict[str, int]


@dataclass(frozen=True)
class Seen:
    """The emotion that a rater sees in a clip, asked before any explanation is shown.

    Attributes:
        rater: the pseudonym.
        item: id of the item.
        clip: data set and id.
        emotion: in the label space of the study.
    """

    rater: str
    item: str
    clip: Clip
    emotion: str


@dataclass(frozen=True)
class Check:
    """An answer to an item whose answer is known.

    Attributes:
        rater: the pseudonym.
        role: `attention` or `gold`.
        passed: whether it is the expected one.
    """

    rater: str
    role: str
    passed: bool


@dataclass(frozen=True)
class Timed:
    """How long an item was shown.

    Attributes:
        rater: the pseudonym.
        kind: `pair` or `rating`.
        seconds: how long.
    """

    rater: str
    kind: str
    seconds: float


@dataclass(frozen=True)
class People:
    """What people said. Preferences, ratings and emotions are those of main items.

    Attributes:
        raters: all, sorted.
        policies: those that the study compares, in its order.
        checked: the raters who have answered an item whose answer is known; all, if the study has none.
    """

    raters: tuple[str, ...]
    policies: tuple[str, ...]
    preferences: tuple[Preference, ...]
    ratings: tuple[Rating, ...]
    seen: tuple[Seen, ...]
    checks: tuple[Check, ...]
    times: tuple[Timed, ...]
    checked: frozenset[str]

    @property
    def clips(self) -> list[Clip]:
        """The clips that somebody said something about, sorted."""
        return sorted({answer.clip for answer in self.seen})

    def without(self, raters: Collection[str]) -> People:
        """The same without some of the raters."""
        gone = set(raters)
        return replace(
            self,
            raters=tuple(rater for rater in self.raters if rater not in gone),
            preferences=tuple(one for one in self.preferences if one.rater not in gone),
            ratings=tuple(one for one in self.ratings if one.rater not in gone),
            seen=tuple(one for one in self.seen if one.rater not in gone),
            checks=tuple(one for one in self.checks if one.rater not in gone),
            times=tuple(one for one in self.times if one.rater not in gone),
            checked=self.checked - gone,
        )


def people_of(study: Study, key: Key, answers: Sequence[Answer], slots: dict[str, str | None]) -> People:
    """Puts answers and key together.

    Args:
        study: the plan.
        key: which policy wrote what.
        answers: those that count.
        slots: of each rater; None of one who answered in another program.

    Raises:
        DataError: the key belongs to another study, or a slot is in no file of the study.
    """
    order = {policy: place for place, policy in enumerate(key.policies)}
    preferences: list[Preference] = []
    ratings: list[Rating] = []
    seen: list[Seen] = []
    checks: list[Check] = []
    times: list[Timed] = []
    for answer in answers:
        item, about = study.item(answer.item), key.items[answer.item]
        if (slot := slots[answer.rater]) is not None:
            study.asked(slot)  # else nobody knows what was shown first
        passed = item.passes(answer.value)
        if passed is not None:
            checks.append(Check(answer.rater, item.role, passed))
        if item.role != "main":
            continue
        clip = (about.dataset, about.clip_id)
        if answer.shown_seconds or slot is not None:  # else another program didn't say
            times.append(Timed(answer.rater, item.kind, answer.shown_seconds))
        seen.append(Seen(answer.rater, item.id, clip, answer.value["emotion"]))
        if item.kind == "rating":
            policy = key.policy_of(item.id, item.explanations[0].code)
            ratings.append(Rating(answer.rater, item.id, clip, policy, dict(answer.value["ratings"])))
            continue
        by_policy = {key.policy_of(item.id, said.code): said.code for said in item.explanations}
        earlier, later = sorted(by_policy, key=order.__getitem__)
        preferred = answer.value["preferred"]
        outcome = 0 if preferred == TIE else 1 if preferred == by_policy[later] else -1
        shown = 0 if slot is None else 1 if study.shown(slot, item.id)[0].code == by_policy[later] else -1
        preferences.append(Preference(answer.rater, item.id, clip, earlier, later, outcome, shown))
    raters = {answer.rater for answer in answers}
    has_checks = any(item.expected is not None for item in study.items)
    return People(
        tuple(sorted(raters)),
        tuple(key.policies),
        tuple(preferences),
        tuple(ratings),
        tuple(seen),
        tuple(checks),
        tuple(times),
        frozenset({one.rater for one in checks} if has_checks else raters),
    )
