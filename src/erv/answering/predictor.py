"""Answers for single clips from a bundle: emotion, explanation, and whether the two agree.

All that answer share this: MLflow's model, `erv predict` and what streams (`erv.answering.streaming`).
"""

from __future__ import annotations

import functools
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from erv.answering.clips import MAX_CLIPS, ClipError, ClipInput, ServedClips
from erv.answering.question import Question, has_other_places
from erv.answering.spaces import spaces_of
from erv.errors import DataError, RegistryError

if TYPE_CHECKING:
    from erv.answering.agreement import Agreement
    from erv.media.decode import Decoded
    from erv.media.worker_process import Start
    from erv.policies import Policy
    from erv.shards import Clip
    from erv.verifier import EmotionVerifier

COLUMNS = ("clip", "answer", "explanation", "agreement", "completion", "error")
BATCH = 8  # clips that the policy answers together


class Predictor:
    """The policy and the verifier of a bundle, ready to answer; each is loaded when it is first needed.

    Clips are decoded exactly as they were for training, and the policy is asked what it was asked about such
    clips when it was evaluated.

    Args:
        bundle: folder that `register` wrote.
        clips: where clips may be read.
        device: torch device.
        dtype: of the policy's weights, "float32", "bfloat16" or "float16".

    Attributes:
        device: torch device; counts until the policy is loaded.
        dtype: of the policy's weights; likewise.
        max_new_tokens: a completion that has not ended by then is cut.
        rule: how clips are decoded.
        limits: see `erv.validate.bounds.bounds`.
        missing_audio: see `erv.answering.media.decoded_clips`.
        clips: where clips may be read.
        start: how a process that decodes clips is started.

    Raises:
        RegistryError: the folder holds no bundle, or one of another version of erv.
    """

    def __init__(
        self, bundle: str | Path, clips: ServedClips, device: str = "cpu", dtype: str = "float32"
    ) -> None:
        from erv.media.decode import DecodeRule
        from erv.media.worker_process import start_alone

        self.start: Start = start_alone
        self._bundle, self.clips = Path(bundle), clips
        self.device, self.dtype = device, dtype
        try:
            serving = json.loads((self._bundle / "serving.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise RegistryError(f"{bundle}: has no serving.json, so register did not write it") from None
        try:
            self.max_new_tokens = int(serving.pop("max_new_tokens"))
            self.limits = serving.pop("limits")
            # Bundles of an older erv don't say.
            self.missing_audio = serving.pop("missing_audio", None)
            datasets = serving.pop("datasets", None)
            self.rule = DecodeRule(**serving)
        except (KeyError, TypeError) as error:
            raise RegistryError(
                f"{bundle}/serving.json: not of this version of erv ({error}); run `dvc repro register` again"
            ) from None
        self._spaces = spaces_of(self._bundle, datasets)

    @property
    def datasets(self) -> tuple[str, ...]:
        """The data sets that the version was tested with, by name; empty if it doesn't say."""
        return tuple(self._spaces)

    def load(self) -> None:
        """Loads policy and verifier now."""
        _ = self.policy, self.verifier, self._question

    @functools.cached_property
    def policy(self) -> Policy:
        """What answers."""
        from erv.policies import load_policy

        return load_policy(self._bundle / "policy", device=self.device, dtype=self.dtype)

    @functools.cached_property
    def verifier(self) -> EmotionVerifier:
        """What reads the explanation."""
        from erv.verifier import EmotionVerifier

        return EmotionVerifier.from_pretrained(self._bundle / "verifier")

    @functools.cached_property
    def _question(self) -> Question:
        from erv.policies.common.policy import stored_prompt

        return Question(stored_prompt(self._bundle / "policy"), self._spaces)

    def predict(self, asked: Sequence[ClipInput]) -> list[dict[str, Any]]:
        """Answers for clips, greedily decoded.

        Args:
            asked: video files, and what is known about them.

        Returns:
            Per clip the `COLUMNS`, `clip` being its name, as asked. For agreement see
            `erv.answering.agreement`; the answer is looked up in the label space of the row's data set if the
            version was tested with it, and otherwise in those of all that it was tested with, by name. It is
            None for a policy that answers without thinking. The error says why a clip can't be answered, in a
            sentence for the client; either it or the completion is None.
        """
        pieces = (asked[start : start + MAX_CLIPS] for start in range(0, len(asked), MAX_CLIPS))
        return [row for piece in pieces for row in self._answer(piece)]

    def _answer(self, asked: Sequence[ClipInput]) -> list[dict[str, Any]]:
        """The rows of clips that are in memory together."""
        questions = [self.question_about(item) for item in asked]
        seen = self.decode(asked, questions)
        completions = self._completions(seen, questions)
        return [
            self._failed(item.name, found)
            if isinstance(found, ClipError)
            else self._answered(item, completions[str(number)])
            for number, (item, found) in enumerate(zip(asked, seen, strict=True))
        ]

    def question_about(self, item: ClipInput) -> str | ClipError | None:
        """What the policy is asked about a clip, None for what it is asked about all; or why it can't be."""
        try:
            question = self._question.about(item.dataset, item.subtitle)
        except DataError as error:
            return ClipError(str(error))
        if question is not None and has_other_places(self.policy, question):
            return ClipError(
                "the subtitle has a placeholder for frames or sound, such as <video>; take it out"
            )
        return question

    def decode(
        self, asked: Sequence[ClipInput], questions: Sequence[str | ClipError | None]
    ) -> list[Decoded | ClipError]:
        """Per clip what was decoded, or why it can't be answered."""
        from erv.answering.media import decoded_clips

        found: list[Decoded | ClipError | None] = [
            question if isinstance(question, ClipError) else None for question in questions
        ]
        paths: dict[int, Path] = {}
        with tempfile.TemporaryDirectory(prefix="erv-clips-") as temporary:
            for number, item in enumerate(asked):
                if found[number] is not None:
                    continue
                try:
                    paths[number] = self.clips.file_of(item, number, Path(temporary))
                except ClipError as error:
                    found[number] = error
            clips = decoded_clips(
                list(paths.values()), self.rule, self.limits, self.missing_audio, self.start
            )
            for number, clip in zip(paths, clips if paths else (), strict=True):
                found[number] = clip
        return [item for item in found if item is not None]

    def _completions(
        self, seen: Sequence[Decoded | ClipError], questions: Sequence[str | ClipError | None]
    ) -> dict[str, str]:
        """What the policy says about the clips that could be decoded, by their number."""
        clips = [
            self.clip(str(number), item)
            for number, item in enumerate(seen)
            if not isinstance(item, ClipError)
        ]
        if not clips:
            return {}
        from erv.policies.common.generate import generate_completions

        return generate_completions(
            self.policy,
            clips,
            batch_size=BATCH,
            max_new_tokens=self.max_new_tokens,
            temperature=0.0,
            seed=0,
            asked={str(n): question for n, question in enumerate(questions) if isinstance(question, str)},
        )

    def clip(self, name: str, seen: Decoded) -> Clip:
        """A decoded clip as a policy takes it."""
        import numpy as np

        from erv.shards import Clip

        audio = np.zeros(0, np.int16) if seen.audio is None else seen.audio  # as extract writes it
        return Clip(name, seen.frames, audio, self.rule.sample_rate, has_audio=seen.audio is not None)

    def spaces_for(self, dataset: Any) -> list[str]:
        """Label spaces in which an answer is looked up: that of a data set that the version was tested with.

        Args:
            dataset: as the row says it; for any other value, all that the version was tested with, by name.
        """
        own = self._spaces.get(dataset) if isinstance(dataset, str) else None
        # A version that doesn't say what it was tested with: the space of the verifier.
        return [own] if own is not None else [*self._spaces.values()] or ["mafw"]

    def read(self, text: str, answer: str | None, dataset: Any) -> Agreement:
        """What the verifier says of a completion; for a policy that answers without thinking, nothing."""
        from erv.answering.agreement import Agreement, read_agreement

        if self.policy.begins:  # it is given an empty explanation
            return Agreement(None, ())
        return read_agreement(self.verifier, text, answer, self.spaces_for(dataset))

    def _answered(self, item: ClipInput, text: str) -> dict[str, Any]:
        from erv.prompts import parse_completion

        parsed = parse_completion(text)
        agreeing = self.read(text, parsed.answer, item.dataset).share
        row = (_shown(item.name), parsed.answer, parsed.explanation, agreeing, text, None)
        return dict(zip(COLUMNS, row, strict=True))

    def _failed(self, name: Any, error: ClipError) -> dict[str, Any]:
        return {**dict.fromkeys(COLUMNS), "clip": _shown(name), "error": str(error)}


def _shown(name: Any) -> str | None:
    """The name of a clip as a text, which may be anything if its content was sent."""
    return name if isinstance(name, str) or name is None else str(name)
