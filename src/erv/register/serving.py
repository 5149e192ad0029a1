"""Answers for single clips from a bundle: emotion, explanation, and whether the two agree."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from erv.errors import DataError, RegistryError

COLUMNS = ("clip", "answer", "explanation", "agreement", "completion")


class Predictor:
    """The policy and the verifier of a bundle, ready to answer.

    Clips are decoded exactly as they were for training.
    """

    def __init__(self, bundle: str | Path, device: str = "cpu") -> None:
        from erv.media.decode import DecodeRule
        from erv.policies import load_policy
        from erv.rewards import NO_SHAPING, explanation_reward
        from erv.verifier import EmotionVerifier

        bundle = Path(bundle)
        try:
            serving = json.loads((bundle / "serving.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise RegistryError(f"{bundle}: has no serving.json, so register did not write it") from None
        self._max_new_tokens = int(serving.pop("max_new_tokens"))
        self._rule = DecodeRule(**serving)
        self._policy = load_policy(bundle / "policy", device=device)
        verifier = EmotionVerifier.from_pretrained(bundle / "verifier")
        self._agreement = explanation_reward(verifier, shaping=NO_SHAPING)  # the plain share

    def predict(self, paths: Sequence[str | Path]) -> list[dict[str, Any]]:
        """Answers for clips, greedily decoded.

        Args:
            paths: video files with sound.

        Returns:
            Per clip `clip`, `answer`, `explanation`, `completion` and `agreement`: the share of the
            explanation's emotional sentences that speak of the answer, by the verifier; None if the verifier
            does not know the answer.

        Raises:
            DataError: a file is missing, can't be decoded, or has no sound.
        """
        from erv.policies.common.generate import generate_completions
        from erv.prompts import parse_completion

        clips = [self._decode(Path(path), str(index)) for index, path in enumerate(paths)]
        completions = generate_completions(
            self._policy,
            clips,
            batch_size=8,
            max_new_tokens=self._max_new_tokens,
            temperature=0.0,
            seed=0,
        )
        rows = []
        for index, path in enumerate(paths):
            text = completions[str(index)]
            parsed = parse_completion(text)
            solution = f"<answer>{parsed.answer or ''}</answer>"
            agreement = self._agreement([text], [solution], dataset=["mafw"])[0]
            row = (str(path), parsed.answer, parsed.explanation, agreement, text)
            rows.append(dict(zip(COLUMNS, row, strict=True)))
        return rows

    def _decode(self, path: Path, clip_id: str) -> Any:
        from erv.media.decode import MediaError, decode
        from erv.shards import Clip

        if not path.is_file():
            raise DataError(f"{path}: no such clip")
        try:
            decoded = decode(path, self._rule)
        except MediaError as error:
            raise DataError(f"{path}: {error}") from error
        if decoded.audio is None:
            raise DataError(f"{path}: has no sound track; the policy was trained on clips with sound")
        return Clip(clip_id, decoded.frames, decoded.audio, self._rule.sample_rate)
