"""Raters who answer a study by a known model, to see whether the report finds what was planted.

They go through the database like people: with invitations, item by item, to the completion code. What each
says depends on the seed and on the slot alone, so that equal studies and seeds give equal answers.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np

from erv.errors import SettingsError
from erv.study.analysis.said import labels_of
from erv.study.answers.connection import Answerbase
from erv.study.answers.database import Database
from erv.study.plan import HIGHEST, LOWEST, RATINGS, TIE, Item, Key, Study
from erv.study.wording import counted

_BEGAN_MS = 1_700_000_000_000  # any time will do
_GOLD_RIGHT = 0.95  # of those who pay attention
_SPREAD = 0.8  # of ratings around their mean, in points
_NODES = 64


@dataclass(frozen=True)
class Model:
    """What raters prefer and see.

    Attributes:
        strengths: by policy, in natural logarithms of odds: of two explanations, the one whose policy is
            stronger by d is preferred with probability 1 / (1 + exp(-d)).
        ties: probability of a tie, whatever is shown; 0..1.
        alpha: Krippendorff's alpha of the emotions that raters see.
        clip_effect: standard deviation of what a clip adds to d.
        rater_effect: standard deviation of what a rater adds to d.
        careless: share of the raters who answer at random.
    """

    strengths: Mapping[str, float]
    ties: float = 0.1
    alpha: float = 0.6
    clip_effect: float = 0.3
    rater_effect: float = 0.3
    careless: float = 0.0

    def check(self, policies: Sequence[str]) -> None:
        """Raises SettingsError unless it is about these policies and its numbers are possible."""
        if set(self.strengths) != set(policies):
            raise SettingsError(
                f"strengths are given for {', '.join(sorted(self.strengths)) or 'no policy'}, expected one"
                f" for each policy of the study: {', '.join(policies)}"
            )
        shares = {"ties": self.ties, "alpha": self.alpha, "careless": self.careless}
        if odd := [name for name, value in shares.items() if not 0 <= value <= 1]:
            raise SettingsError(f"{odd[0]} is {shares[odd[0]]}, expected 0 to 1")

    def share(self, later: str, earlier: str) -> float:
        """The share of preferences for `later`, a tie as half, over all clips and raters.

        The mean of the logistic function of a normal variable (Gauss-Hermite quadrature).
        """
        nodes, weights = np.polynomial.hermite_e.hermegauss(_NODES)
        spread = np.hypot(self.clip_effect, self.rater_effect)
        odds = self.strengths[later] - self.strengths[earlier] + spread * nodes
        preferred = float((weights / weights.sum()) @ (1 / (1 + np.exp(-odds))))
        return self.ties / 2 + (1 - self.ties) * preferred


def simulate(base: Answerbase, study: Study, key: Key, model: Model, *, raters: int, seed: int) -> None:
    """Lets raters answer a study.

    Args:
        base: a database of its own, never that of people.
        study: the plan.
        key: which policy wrote what.
        model: what raters prefer.
        raters: how many; each takes a slot.
        seed: of everything random.

    Raises:
        SettingsError: the model doesn't fit the study, or it has fewer slots.
    """
    model.check(list(key.policies))
    if raters > len(study.assignments):
        raise SettingsError(
            f"study {study.name} has {counted(len(study.assignments), 'place')}, which is fewer than"
            f" {counted(raters, 'rater')}; simulate fewer"
        )
    numbers, clock = count(1), count(_BEGAN_MS, 1000)
    database = Database(base, study, name_rater=lambda: f"r{next(numbers):010d}", clock=lambda: next(clock))
    world = _World(study, key, model, seed)
    for invitation in database.invite(raters, days=10_000):
        rater = database.enter(invitation.token)
        person = _Person(world, str(rater.slot))
        database.consent(rater, study.languages[0])
        for item in rater.items:
            value, seconds = person.answers(study.item(item))
            database.add(rater, item, value, seconds, f"{rater.id}-{item}")
        database.complete(rater)


class _World:
    """What is the same for all raters."""

    def __init__(self, study: Study, key: Key, model: Model, seed: int) -> None:
        self.study, self.key, self.model, self.seed = study, key, model, seed
        chance, labels = _chance(seed, "clips"), labels_of(study, key)
        clips = sorted({(about.dataset, about.clip_id) for about in key.items.values()})
        self.of_clip = {clip: chance.normal(0, model.clip_effect) for clip in clips}
        # Where a label has no name among the emotions, raters still see something, all the same thing.
        self.true = {
            clip: label if (label := labels[clip]) in study.emotions else str(chance.choice(study.emotions))
            for clip in clips
        }
        # Who doesn't see it, sees an emotion as often as it is there. With probability p of seeing it, two
        # raters then agree by p * p more than by chance: alpha is p * p.
        self.emotions = [self.true[self.clip_of(item)] for item in study.items if item.role == "main"]

    def clip_of(self, item: Item) -> tuple[str, str]:
        about = self.key.items[item.id]
        return about.dataset, about.clip_id


class _Person:
    """A rater in a slot."""

    def __init__(self, world: _World, slot: str) -> None:
        self._world, self._chance = world, _chance(world.seed, f"slot {slot}")
        self._careless = self._chance.random() < world.model.careless
        # What a rater likes about a policy's explanations, whatever they are compared with. Two of these
        # differ by as much as the model says.
        spread = world.model.rater_effect / np.sqrt(2)
        self._likes = {policy: self._chance.normal(0, spread) for policy in world.model.strengths}
        self._pace = self._chance.lognormal(0, 0.3)

    def answers(self, item: Item) -> tuple[dict[str, Any], float]:
        """An answer, and the seconds that it took."""
        seconds = round(float(self._pace * self._chance.lognormal(np.log(18), 0.4)), 3)
        if self._careless:
            return self._random(item), round(seconds / 6, 3)
        value: dict[str, Any] = {"emotion": self._emotion(item)}
        if item.expected is not None and (item.role == "attention" or self._chance.random() < _GOLD_RIGHT):
            return value | self._expected(item), seconds
        return value | (self._pair(item) if item.kind == "pair" else self._rating(item)), seconds

    def _emotion(self, item: Item) -> str:
        if self._chance.random() < np.sqrt(self._world.model.alpha):
            return self._world.true[self._world.clip_of(item)]
        return str(self._chance.choice(self._world.emotions))

    def _pair(self, item: Item) -> dict[str, Any]:
        if self._chance.random() < self._world.model.ties:
            return {"preferred": TIE}
        first, second = item.explanations
        above = self._strength(item, first.code) - self._strength(item, second.code)
        # A clip's effect is for the policy that comes first in the key, as the codes mean nothing.
        policies = list(self._world.model.strengths)
        names = [self._world.key.items[item.id].policies[said.code] for said in (first, second)]
        known = [policies.index(name) if name in policies else -1 for name in names]
        above += self._world.of_clip[self._world.clip_of(item)] * (1 if known[0] > known[1] else -1)
        preferred = first if self._chance.random() < 1 / (1 + np.exp(-above)) else second
        return {"preferred": preferred.code}

    def _rating(self, item: Item) -> dict[str, Any]:
        middle = (LOWEST + HIGHEST) / 2
        mean = middle + self._strength(item, item.explanations[0].code)
        mean += self._world.of_clip[self._world.clip_of(item)]
        values = np.clip(np.rint(mean + self._chance.normal(0, _SPREAD, len(RATINGS))), LOWEST, HIGHEST)
        return {"ratings": {name: int(value) for name, value in zip(RATINGS, values, strict=True)}}

    def _strength(self, item: Item, code: str) -> float:
        """Of who wrote an explanation; 0 for what no policy wrote about this clip."""
        policy = self._world.key.policy_of(item.id, code)
        return float(self._world.model.strengths.get(policy, 0.0) + self._likes.get(policy, 0.0))

    def _expected(self, item: Item) -> dict[str, Any]:
        if item.kind == "pair":
            return {"preferred": item.expected.preferred if item.expected else TIE}
        wanted = (item.expected.ratings if item.expected else None) or {}
        rated = self._rating(item)["ratings"]
        return {"ratings": {name: wanted.get(name, (rated[name],))[0] for name in RATINGS}}

    def _random(self, item: Item) -> dict[str, Any]:
        value: dict[str, Any] = {"emotion": str(self._chance.choice(self._world.study.emotions))}
        if item.kind == "pair":
            return value | {
                "preferred": str(self._chance.choice([*(e.code for e in item.explanations), TIE]))
            }
        return value | {
            "ratings": {name: int(self._chance.integers(LOWEST, HIGHEST + 1)) for name in RATINGS}
        }


def _chance(seed: int, name: str) -> np.random.Generator:
    return np.random.default_rng([seed, zlib.crc32(name.encode())])
