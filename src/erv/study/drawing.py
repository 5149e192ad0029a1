"""Which clips a study is about."""

from __future__ import annotations

from collections.abc import Sequence

from erv.errors import SettingsError
from erv.settings.study import StudySettings
from erv.study.candidates import Candidate
from erv.study.chance import Chance


def draw(candidates: Sequence[Candidate], settings: StudySettings, chance: Chance) -> list[Candidate]:
    """Draws the main clips.

    `random` takes any. `stratified` takes the emotions in turn, as far as they have clips, and within each
    emotion clips on which judges disagree, until their share is reached, or what is left.

    Raises:
        SettingsError: there are fewer clips than asked for.
    """
    if len(candidates) < settings.clips:
        raise SettingsError(
            f"study.clips is {settings.clips}, but only {len(candidates)} clips were explained by all"
            " policies; lower it, or name fewer policies in study.policies"
        )
    mixed = chance.shuffled(candidates, "draw", lambda clip: clip.name)
    if settings.draw == "random":
        return mixed[: settings.clips]
    waiting: dict[str, dict[bool, list[Candidate]]] = {}
    for clip in mixed:
        waiting.setdefault(clip.emotion, {True: [], False: []})[clip.disagree].append(clip)
    # Emotions that come first in the last, incomplete turn get one clip more than the others.
    emotions = chance.shuffled(waiting, "emotions")
    drawn: list[Candidate] = []
    taken = {emotion: {True: 0, False: 0} for emotion in emotions}
    while len(drawn) < settings.clips:
        for emotion in emotions:
            kinds, counts = waiting[emotion], taken[emotion]
            if len(drawn) == settings.clips or not any(kinds.values()):
                continue
            wants = counts[True] < settings.disagreement_share * (counts[True] + counts[False] + 1)
            kind = wants if kinds[wants] else not wants
            counts[kind] += 1
            drawn.append(kinds[kind].pop(0))
    return drawn


def stratum(clip: Candidate) -> str:
    """What a clip was drawn as: `anger/disagree`."""
    return f"{clip.emotion}/{'disagree' if clip.disagree else 'agree'}"
