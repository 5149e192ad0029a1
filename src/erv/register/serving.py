"""Answers for single clips from a bundle: emotion, explanation, and whether the two agree."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from erv.errors import RegistryError
from erv.register.serving_clips import ClipError, find_clips

CLIP_SECONDS = 30.0
CLIP_MEMORY_MB = 2000
COLUMNS = ("clip", "answer", "explanation", "agreement", "completion")


class Predictor:
    """The policy and the verifier of a bundle, ready to answer.

    Clips are decoded exactly as they were for training.

    Args:
        bundle: folder that `register` wrote.
        root: the only folder that clips are read from; None reads none.
        device: torch device.
    """

    def __init__(self, bundle: str | Path, root: Path | None, device: str = "cpu") -> None:
        from erv.media.decode import DecodeRule
        from erv.policies import load_policy
        from erv.rewards import NO_SHAPING, explanation_reward
        from erv.verifier import EmotionVerifier

        bundle = Path(bundle)
        try:
            serving = json.loads((bundle / "serving.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise RegistryError(f"{bundle}: has no serving.json, so register did not write it") from None
        self._root = root
        self._max_new_tokens = int(serving.pop("max_new_tokens"))
        self._rule = DecodeRule(**serving)
        self._policy = load_policy(bundle / "policy", device=device)
        verifier = EmotionVerifier.from_pretrained(bundle / "verifier")
        self._agreement = explanation_reward(verifier, shaping=NO_SHAPING)  # the plain share

    def predict(self, names: Sequence[str]) -> list[dict[str, Any]]:
        """Answers for clips, greedily decoded.

        Args:
            names: video files with sound, by their paths below the root.

        Returns:
            Per clip `clip` (its name), `answer`, `explanation`, `completion` and `agreement`: the share of
            the explanation's emotional sentences that speak of the answer, by the verifier; None if the
            verifier does not know the answer.

        Raises:
            ClipError: a file is not below the root, can't be decoded, or has no sound.
        """
        from erv.policies.common.generate import generate_completions
        from erv.prompts import parse_completion

        clips = self._decode(names)
        completions = generate_completions(
            self._policy,
            clips,
            batch_size=8,
            max_new_tokens=self._max_new_tokens,
            temperature=0.0,
            seed=0,
        )
        rows = []
        for index, name in enumerate(names):
            text = completions[str(index)]
            parsed = parse_completion(text)
            solution = f"<answer>{parsed.answer or ''}</answer>"
            agreement = self._agreement([text], [solution], dataset=["mafw"])[0]
            row = (name, parsed.answer, parsed.explanation, agreement, text)
            rows.append(dict(zip(COLUMNS, row, strict=True)))
        return rows

    def _decode(self, names: Sequence[str]) -> list[Any]:
        """The clips, decoded in a process of their own: a file may crash or hang its decoder."""
        from erv.media.decode import DECODED, MediaError, decode_item, decode_task, loader
        from erv.media.workers import isolated
        from erv.shards import Clip

        paths = find_clips(names, self._root)
        outcomes = isolated(
            decode_item,
            [decode_task(path, self._rule) for path in paths],
            workers=1,
            seconds=CLIP_SECONDS,
            memory_mb=CLIP_MEMORY_MB,
            expected=(MediaError,),
            prepare=loader(self._rule),
            confined=True,
            form=DECODED,
        )
        clips = []
        with contextlib.closing(outcomes):
            for index, (name, path, outcome) in enumerate(zip(names, paths, outcomes, strict=True)):
                decoded = outcome.result
                if decoded is None:
                    reason = str(outcome.failure).replace(str(path), name)
                    raise ClipError(f"clip {name!r}: {reason}")
                if decoded.audio is None:
                    raise ClipError(
                        f"clip {name!r}: no sound track; the policy was trained on clips with sound"
                    )
                clips.append(Clip(str(index), decoded.frames, decoded.audio, self._rule.sample_rate))
        return clips
