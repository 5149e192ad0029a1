"""The items of a study: what is compared or rated, practice, and what checks a rater's attention."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, islice

from erv.errors import SettingsError
from erv.labels import LabelSpace
from erv.settings.study import StudySettings
from erv.study.candidates import Candidate
from erv.study.chance import Chance
from erv.study.contents import RATINGS, Expected, Explanation, Item, KeyItem, Kind, Role
from erv.study.drawing import stratum

# What stands for a policy in the key where no policy is behind a code. Policies' names have no colon or @.
INSTRUCTION = "erv:instruction"
WANTED_RATING = 2  # of an attention check; nobody gives it four times by accident
WRONG_AT_MOST = 2  # rating of an explanation that belongs to a clip of another emotion


@dataclass(frozen=True)
class Made:
    """An item, what is behind it, and whom it is about.

    Attributes:
        item: without its author.
        key: with it.
        policies: that a main item is about; empty for others.
        clip: its clip.
    """

    item: Item
    key: KeyItem
    policies: tuple[str, ...]
    clip: Candidate


class Maker:
    """Makes items.

    Args:
        settings: the `study` section.
        chance: of the study.
        instructions: by kind, the explanation of an attention check.
        space: the label space of the clips' emotions.
    """

    def __init__(
        self, settings: StudySettings, chance: Chance, instructions: Mapping[Kind, str], space: LabelSpace
    ) -> None:
        self._settings, self._chance, self._instructions = settings, chance, instructions
        self._space = space

    def main(self, clips: Sequence[Candidate]) -> list[Made]:
        """Every pair of policies, and every policy, on each clip."""
        made = []
        for clip in clips:
            policies = sorted(clip.said)
            if "pair" in self._settings.kinds:
                made += [self._real("pair", "main", clip, pair) for pair in combinations(policies, 2)]
            if "rating" in self._settings.kinds:
                made += [self._real("rating", "main", clip, (policy,)) for policy in policies]
        return made

    def others(self, clips: Sequence[Candidate]) -> list[Made]:
        """Practice, attention checks and gold items, which all raters are asked.

        Args:
            clips: those that were not drawn.

        Raises:
            SettingsError: there are too few clips, or too few clear explanations for gold items.
        """
        rest = iter(self._chance.shuffled(clips, "others", lambda clip: clip.name))
        gold, used = self._gold(clips)
        free = (clip for clip in rest if clip.name not in used)
        wanted = self._settings.practice + self._settings.attention
        taken = list(islice(free, wanted))
        if len(taken) < wanted:
            raise SettingsError(
                f"study.practice and study.attention ask for {wanted} clips beside the main and gold ones,"
                f" but {len(taken)} are left (a gold item takes two); lower them, or study.clips"
            )
        practice, attention = taken[: self._settings.practice], taken[self._settings.practice :]
        made = [self._practice(number, clip) for number, clip in enumerate(practice)]
        made += [self._attention(number, clip) for number, clip in enumerate(attention)]
        return made + gold

    def _kind(self, number: int) -> Kind:
        return self._settings.kinds[number % len(self._settings.kinds)]

    def _practice(self, number: int, clip: Candidate) -> Made:
        kind = self._kind(number)
        chosen = self._chance.shuffled(clip.said, f"practice/{clip.name}")[: 2 if kind == "pair" else 1]
        return self._real(kind, "practice", clip, tuple(sorted(chosen)))

    def _real(self, kind: Kind, role: Role, clip: Candidate, policies: tuple[str, ...]) -> Made:
        texts = {policy: (clip.said[policy].text, clip.said[policy].answer) for policy in policies}
        about = policies if role == "main" else ()
        return self._made(kind, role, clip, texts, None, about)

    def _attention(self, number: int, clip: Candidate) -> Made:
        kind = self._kind(number)
        policy = self._chance.shuffled(clip.said, f"attention/{clip.name}")[0]
        said = clip.said[policy]
        texts = {INSTRUCTION: (self._instructions[kind], said.answer)}
        if kind == "pair":
            return self._made(
                kind, "attention", clip, {**texts, policy: (said.text, said.answer)}, INSTRUCTION
            )
        wanted = dict.fromkeys(RATINGS, (WANTED_RATING,))
        return self._made(kind, "attention", clip, texts, wanted)

    def _gold(self, clips: Sequence[Candidate]) -> tuple[list[Made], set[str]]:
        """Gold items, and the clips that they are made of.

        Each has two clips of its own: who has read an explanation beside the clip that it belongs to would
        recognise it, without a look at the other one.
        """
        made: list[Made] = []
        used: set[str] = set()
        while len(made) < self._settings.gold:
            found = self._gold_pair([clip for clip in clips if clip.name not in used])
            if found is None:
                break
            clip, policy, other = found
            used |= {clip.name, other.name}
            foreign = f"{policy}@{other.name}"
            wrong = (other.said[policy].text, other.said[policy].answer)
            kind = self._kind(len(made))
            if kind == "pair":
                right = (clip.said[policy].text, clip.said[policy].answer)
                made.append(self._made(kind, "gold", clip, {policy: right, foreign: wrong}, policy))
            else:
                low = {"emotion": tuple(range(1, WRONG_AT_MOST + 1))}
                made.append(self._made(kind, "gold", clip, {foreign: wrong}, low))
        if len(made) < self._settings.gold:
            raise SettingsError(
                f"study.gold asks for {self._settings.gold} items, but {len(made)} are possible: they need a"
                " clip beside the main ones whose explanation by some policy is right and clear to every"
                " judge, and another such clip of another emotion each; lower study.gold or study.clips"
            )
        return made, used

    def _gold_pair(self, clips: Sequence[Candidate]) -> tuple[Candidate, str, Candidate] | None:
        """A clip, a policy, and a clip of another emotion; the policy explained both clearly and rightly.

        No part of a compound emotion is in the other clip's, or the explanation would be partly right.
        """
        mixed = self._chance.shuffled(clips, "gold", lambda clip: clip.name)
        for clip in mixed:
            for policy in self._chance.shuffled(clip.said, f"gold/{clip.name}"):
                if not clip.said[policy].clear:
                    continue
                for other in reversed(mixed):
                    apart = not self._space.share_an_emotion(clip.emotion, other.emotion)
                    if apart and other.said[policy].clear:
                        return clip, policy, other
        return None

    def _made(
        self,
        kind: Kind,
        role: Role,
        clip: Candidate,
        texts: Mapping[str, tuple[str, str]],
        expected: str | Mapping[str, tuple[int, ...]] | None,
        about: tuple[str, ...] = (),
    ) -> Made:
        """An item.

        Args:
            kind: of question.
            role: of the item.
            clip: that it is about.
            texts: who wrote it -> explanation and answer.
            expected: who is to be preferred, or the right ratings.
            about: policies that a main item is about.
        """
        what = f"{role}/{kind}/{clip.name}/{'+'.join(sorted(texts))}"
        codes = {author: self._chance.code(f"code/{what}/{author}") for author in texts}
        said = {
            codes[author]: Explanation(code=codes[author], text=text, answer=answer)
            for author, (text, answer) in texts.items()
        }
        known = None
        if isinstance(expected, str):
            known = Expected(preferred=codes[expected])
        elif expected is not None:
            known = Expected(ratings=dict(expected))
        item = Item(
            id=self._chance.identifier(f"item/{what}"),
            kind=kind,
            role=role,
            clip_id=self._chance.identifier(f"clip/{clip.name}"),
            explanations=tuple(said[code] for code in sorted(said)),
            expected=known,
        )
        key = KeyItem(
            dataset=clip.dataset,
            clip_id=clip.clip_id,
            label=clip.label,
            policies={code: author for author, code in codes.items()},
            stratum=stratum(clip),
        )
        return Made(item, key, about, clip)
