"""Answers for single clips from a bundle: emotion, explanation, and whether the two agree."""

from __future__ import annotations

import functools
import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from erv.errors import RegistryError
from erv.register.serving_clips import MAX_CLIPS, ClipError, ClipInput, ServedClips

if TYPE_CHECKING:
    from erv.media.decode import Decoded
    from erv.policies import Policy

COLUMNS = ("clip", "answer", "explanation", "agreement", "completion", "error")
BATCH = 8  # clips that the policy answers together


class Predictor:
    """The policy and the verifier of a bundle, ready to answer; each is loaded when it is first needed.

    Clips are decoded exactly as they were for training.

    Args:
        bundle: folder that `register` wrote.
        clips: where clips may be read.
        device: torch device.

    Raises:
        RegistryError: the folder holds no bundle, or one of an older version.
    """

    def __init__(self, bundle: str | Path, clips: ServedClips, device: str = "cpu") -> None:
        from erv.media.decode import DecodeRule

        self._bundle, self._clips, self._device = Path(bundle), clips, device
        try:
            serving = json.loads((self._bundle / "serving.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise RegistryError(f"{bundle}: has no serving.json, so register did not write it") from None
        try:
            self._max_new_tokens = int(serving.pop("max_new_tokens"))
            self._limits = serving.pop("limits")
            self._rule = DecodeRule(**serving)
        except (KeyError, TypeError) as error:
            raise RegistryError(
                f"{bundle}/serving.json: not of this version of erv ({error}); run `dvc repro register` again"
            ) from None

    def load(self) -> None:
        """Loads policy and verifier now."""
        _ = self._policy, self._agreement

    @functools.cached_property
    def _policy(self) -> Policy:
        from erv.policies import load_policy

        return load_policy(self._bundle / "policy", device=self._device)

    @functools.cached_property
    def _agreement(self) -> Callable[..., list[float | None]]:
        from erv.rewards import NO_SHAPING, explanation_reward
        from erv.verifier import EmotionVerifier

        verifier = EmotionVerifier.from_pretrained(self._bundle / "verifier")
        return explanation_reward(verifier, shaping=NO_SHAPING)  # the plain share

    def predict(self, asked: Sequence[ClipInput]) -> list[dict[str, Any]]:
        """Answers for clips, greedily decoded.

        Args:
            asked: video files with sound.

        Returns:
            Per clip the `COLUMNS`, `clip` being its name, as asked. Agreement is the share of the
            explanation's emotional sentences that speak of the answer, by the verifier; None if the verifier
            does not know the answer. The error says why a clip can't be answered, in a sentence for the
            client; either it or the completion is None.
        """
        pieces = (asked[start : start + MAX_CLIPS] for start in range(0, len(asked), MAX_CLIPS))
        return [row for piece in pieces for row in self._answer(piece)]

    def _answer(self, asked: Sequence[ClipInput]) -> list[dict[str, Any]]:
        """The rows of clips that are in memory together."""
        seen = self._decode(asked)
        completions = self._completions(seen)
        return [
            self._failed(item.name, found)
            if isinstance(found, ClipError)
            else self._answered(item.name, completions[str(number)])
            for number, (item, found) in enumerate(zip(asked, seen, strict=True))
        ]

    def _decode(self, asked: Sequence[ClipInput]) -> list[Decoded | ClipError]:
        """Per clip what was decoded, or why it can't be."""
        from erv.register.serving_media import decoded_clips

        found: list[Decoded | ClipError | None] = [None] * len(asked)
        paths: dict[int, Path] = {}
        with tempfile.TemporaryDirectory(prefix="erv-clips-") as temporary:
            for number, item in enumerate(asked):
                try:
                    paths[number] = self._clips.file_of(item, number, Path(temporary))
                except ClipError as error:
                    found[number] = error
            clips = decoded_clips(list(paths.values()), self._rule, self._limits) if paths else ()
            for number, clip in zip(paths, clips, strict=True):
                found[number] = clip
        return [item for item in found if item is not None]

    def _completions(self, seen: Sequence[Decoded | ClipError]) -> dict[str, str]:
        """What the policy says about the clips that could be decoded, by their number."""
        from erv.shards import Clip

        clips = [
            Clip(str(number), item.frames, item.audio, self._rule.sample_rate)
            for number, item in enumerate(seen)
            if not isinstance(item, ClipError) and item.audio is not None
        ]
        if not clips:
            return {}
        from erv.policies.common.generate import generate_completions

        return generate_completions(
            self._policy,
            clips,
            batch_size=BATCH,
            max_new_tokens=self._max_new_tokens,
            temperature=0.0,
            seed=0,
        )

    def _answered(self, name: Any, text: str) -> dict[str, Any]:
        from erv.prompts import parse_completion

        parsed = parse_completion(text)
        solution = f"<answer>{parsed.answer or ''}</answer>"
        agreement = self._agreement([text], [solution], dataset=["mafw"])[0]
        row = (_shown(name), parsed.answer, parsed.explanation, agreement, text, None)
        return dict(zip(COLUMNS, row, strict=True))

    def _failed(self, name: Any, error: ClipError) -> dict[str, Any]:
        return {**dict.fromkeys(COLUMNS), "clip": _shown(name), "error": str(error)}


def _shown(name: Any) -> str | None:
    """The name of a clip as a text, which may be anything if its content was sent."""
    return name if isinstance(name, str) or name is None else str(name)
