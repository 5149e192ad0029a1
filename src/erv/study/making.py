"""Plan and key of a study, and the clips that it shows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from erv.files import sha256_of_text
from erv.labels import LabelSpace
from erv.settings import Settings
from erv.settings.study import StudySettings
from erv.study.candidates import Candidate, Candidates, find_candidates
from erv.study.chance import Chance
from erv.study.contents import Design, Item, Key, Kind, Panel, Plan, Seats, Texts, document
from erv.study.drawing import draw
from erv.study.evaluated import Evaluations
from erv.study.items import Made, Maker
from erv.study.media import Clips
from erv.study.power import Overlap, overlap, sentence
from erv.study.seats import assign
from erv.study.texts import read_texts


@dataclass(frozen=True)
class Documents:
    """A study that was made.

    Attributes:
        plan: text of `study.json`.
        key: text of `key.json`.
        media: SHA-256 by blinded name of the clips.
        said: what to tell about it, a sentence each.
    """

    plan: str
    key: str
    media: Mapping[str, str]
    said: Sequence[str]


@dataclass(frozen=True)
class Making:
    """What a study is made of.

    Attributes:
        name: of the study.
        settings: all of them.
        evaluations: of the policies that are compared.
        candidates: what people can be asked about.
        overlap: raters per pair.
    """

    name: str
    settings: Settings
    evaluations: Evaluations
    candidates: Candidates
    overlap: Overlap

    @classmethod
    def of(cls, name: str, settings: Settings, evaluations: Evaluations) -> Making:
        """Looks for the clips, and computes the raters per pair.

        Raises:
            SettingsError: there are too few clips for the power that is asked for.
            EvaluationError, DataError: as `find_candidates`.
        """
        found = _overlap(settings.study, len(evaluations.rows))
        return cls(name, settings, evaluations, find_candidates(evaluations.rows), found)

    def make(self, media: Path) -> Documents:
        """Draws clips, writes them to a folder, and makes plan and key of them.

        Args:
            media: an empty folder.

        Raises:
            SettingsError: the section `study` asks for what the evaluations can't give.
            DataError, StorageError: a clip can't be fetched.
        """
        study, space = self.settings.study, self.candidates.space
        chance = Chance.of(self.settings.seed, self.name, self.evaluations.digests)
        texts, checks = read_texts(study.languages, study.texts, space.names)
        clips = Clips(
            sorted({clip.dataset for clip in self.candidates.clips}), self.settings.machine.extract.workers
        )
        faults = {clip.name: clips.fault(clip) for clip in self.candidates.clips}
        left_out = dict(self.candidates.left_out)
        usable = [clip for clip in self.candidates.clips if faults[clip.name] is None]
        if len(usable) < len(faults):
            left_out["folders of frames, which have neither sound nor pace"] = len(faults) - len(usable)
        written: dict[str, str] = {}
        while True:  # until every clip that is drawn can be shown
            made = _items(usable, study, chance, checks, space)
            names = {item.clip.name: item.item.clip_id for item in made}
            missing = [clip for clip in usable if clip.name in names and names[clip.name] not in written]
            fresh, failed = clips.write(missing, media, names)
            written |= fresh
            if not failed:
                break
            usable = [clip for clip in usable if clip.name not in failed]
            for name, reason in sorted(failed.items()):
                left_out[f"{name} can't be shown: {reason}"] = 1
        for path in media.iterdir():  # of clips that are no longer drawn
            if path.stem not in names.values():
                path.unlink()
                del written[path.stem]
        items = sorted((item.item for item in made), key=lambda item: item.id)
        seats = assign(items, _wanted(made, study, self.overlap), study.items_per_rater, chance)
        plan = document(self._plan(items, texts, written, seats))
        key = Key(
            version=1,
            study=sha256_of_text(plan),
            seed=self.settings.seed,
            policies=dict(self.evaluations.digests),
            left_out=dict(sorted(left_out.items())),
            items={item.item.id: item.key for item in made},
        )
        return Documents(plan, document(key), written, list(self._said(made, seats, left_out)))

    def _plan(
        self, items: Sequence[Item], texts: Mapping[str, Texts], media: Mapping[str, str], seats: Seats
    ) -> Plan:
        study, power, panel = self.settings.study, self.settings.study.power, self.settings.study.panel
        return Plan(
            version=1,
            name=self.name,
            space=self.candidates.space.name,
            emotions=self.candidates.space.names,
            languages=study.languages,
            kinds=study.kinds,
            texts=dict(texts),
            panel=None if panel is None else Panel(**panel.model_dump()),
            design=Design(
                overlap=self.overlap.raters,
                rating_overlap=study.rating_overlap,
                items_per_rater=study.items_per_rater,
                pairs=sum(item.role == "main" and item.kind == "pair" for item in items),
                preference=power.preference,
                confidence=power.confidence,
                power=power.power,
                clip_correlation=power.clip_correlation,
                rater_correlation=power.rater_correlation,
                expected_power=round(self.overlap.power, 6),
            ),
            items=tuple(items),
            media=dict(media),
            seats=seats,
        )

    def _said(self, made: Sequence[Made], seats: Seats, left_out: Mapping[str, int]) -> Iterator[str]:
        study = self.settings.study
        policies = ", ".join(self.evaluations.rows)
        main = [item for item in made if item.item.role == "main"]
        drawn, all_clips = len({item.clip.name for item in main}), len(self.candidates.clips)
        yield f"policies: {policies}; {drawn} of {all_clips} clips"
        for reason, count in left_out.items():
            yield f"left out: {count} x {reason}"
        if "pair" in study.kinds:
            yield sentence(self.overlap, study.power, chosen=study.overlap is not None)
        others = len(made) - len(main)
        most = max(map(len, seats.assignments.values()))
        yield (
            f"{len(main)} main items, {others} for practice and checks; {len(seats.assignments)} raters with"
            f" at most {most} items each"
        )


def _items(
    usable: Sequence[Candidate],
    study: StudySettings,
    chance: Chance,
    checks: Mapping[Kind, str],
    space: LabelSpace,
) -> list[Made]:
    maker = Maker(study, chance, checks, space)
    drawn = draw(usable, study, chance)
    names = {clip.name for clip in drawn}
    return [*maker.main(drawn), *maker.others([clip for clip in usable if clip.name not in names])]


def _wanted(made: Sequence[Made], study: StudySettings, found: Overlap) -> dict[str, int]:
    """How many raters each main item needs."""
    raters = {"pair": found.raters, "rating": study.rating_overlap}
    return {item.item.id: raters[item.item.kind] for item in made if item.item.role == "main"}


def _overlap(settings: StudySettings, policies: int) -> Overlap:
    """The raters per pair of this many policies."""
    comparisons = max(1, policies * (policies - 1) // 2)
    # As if a rater were asked nothing but pairs, which is the most that the answers can depend on each other.
    per_rater = settings.items_per_rater / comparisons
    # Without pairs there is no preference to tell, for which clips could be too few.
    raters = settings.overlap if "pair" in settings.kinds else settings.overlap or 1
    return overlap(settings.power, settings.clips, per_rater, raters)
