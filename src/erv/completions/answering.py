"""One process that answers pieces: it loads the policy when the first piece needs it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from erv.checkpoints import LIBRARIES
from erv.completions.draws import DrawnTokens, draws_of
from erv.completions.features import ROOT, FeatureStore, towers_key
from erv.completions.kept import KeptPieces, generating_code
from erv.completions.pieces import Asked, Completed, Decoding, Piece
from erv.determinism import code_version, seed_everything
from erv.errors import DataError
from erv.policies import Policy, load_policy
from erv.policies.common.generate import encode, generate
from erv.shards import ShardReader


@dataclass(frozen=True)
class Task:
    """What it takes to answer the pieces of a data set; it travels to other processes.

    Attributes:
        dataset: name of the data set.
        policy: folder of the policy.
        family: `policy.family`.
        shards: folder of the data set's shards.
        shards_digest: their hash.
        decoding: how completions are generated.
        device: `cpu`, `cuda`, or one of several GPUs such as `cuda:1`.
        dtype: `runtime.dtype`.
        threads: CPU threads of each process.
        kept: where finished pieces go.
        feature_bytes: size of the store of features, 0 for none.
        features: its folder.
    """

    dataset: str
    policy: Path
    family: str | None
    shards: Path
    shards_digest: str
    decoding: Decoding
    device: str
    dtype: str
    threads: int
    kept: KeptPieces
    feature_bytes: int = 0
    features: Path = ROOT


class Answering:
    """Answers the pieces of one task, one after the other."""

    def __init__(self, task: Task) -> None:
        """Takes the task; loads nothing yet."""
        self._task = task

    def __call__(self, piece: Piece) -> list[Completed]:
        """Completions in the order of the clips; they are kept before this returns.

        Raises:
            DataError: a clip is not in the shards, or has no sound where the prompt has a place for it.
            EvaluationError: the policy's probabilities are not finite.
        """
        clip_ids = [clip.clip_id for clip in piece.clips]
        kept = self._store.get(clip_ids, lambda: self._encoded(piece.clips))
        policy = self._policy
        features = {name: value.to(policy.device) for name, value in kept.items()}
        processor, decoding = policy.processor, self._task.decoding
        prompts = [self._prompt(clip.sound, clip.instruction) for clip in piece.clips]
        question = processor.question_inputs()

        def say(sample: int, temperature: float) -> list[str]:
            drawn = None if temperature == 0.0 else self._draws(clip_ids, prompts, sample, temperature)
            return generate(
                policy, features, prompts, question, max_new_tokens=decoding.max_new_tokens, drawn=drawn
            )

        texts = say(0, decoding.temperature)
        samples = [say(1 + number, decoding.sample_temperature) for number in range(decoding.samples)]
        completed = [
            Completed(clip_id, texts[row], tuple(sample[row] for sample in samples))
            for row, clip_id in enumerate(clip_ids)
        ]
        self._task.kept.write(piece, completed)
        return completed

    def load(self) -> None:
        """Loads what the first piece would load."""
        _ = self._policy, self._reader, self._store

    @cached_property
    def _policy(self) -> Policy:
        task = self._task
        seed_everything(task.decoding.seed, task.threads)
        return load_policy(task.policy, device=task.device, dtype=task.dtype, family=task.family)

    @cached_property
    def _reader(self) -> ShardReader:
        return ShardReader(self._task.shards)

    @cached_property
    def _store(self) -> FeatureStore:
        task = self._task
        if task.feature_bytes <= 0:
            return FeatureStore("", task.shards_digest, 0)
        towers = towers_key(self._policy, code_version(generating_code(), LIBRARIES))
        return FeatureStore(towers, task.shards_digest, task.feature_bytes, task.features)

    def _encoded(self, asked: Sequence[Asked]) -> dict[str, torch.Tensor]:
        clips = [self._reader.get(item.clip_id) for item in asked]
        for item, clip in zip(asked, clips, strict=True):
            if item.sound != (clip.audio.size > 0):
                found = "has no" if item.sound else "has"
                raise DataError(
                    f"{self._task.shards}: clip {clip.clip_id!r} {found} sound, but the prompt would say"
                    " otherwise; run extract again"
                )
        return encode(self._policy, clips)

    def _prompt(self, sound: bool, instruction: str | None) -> list[int]:
        given: dict[str, Any] = {} if instruction is None else {"instruction": instruction}
        prompt: list[int] = self._policy.processor.prompt_ids(audio=sound, **given)
        return prompt

    def _draws(
        self, clip_ids: Sequence[str], prompts: Sequence[Sequence[int]], sample: int, temperature: float
    ) -> DrawnTokens:
        decoding = self._task.decoding
        return draws_of(
            decoding.seed,
            self._task.dataset,
            clip_ids,
            sample,
            tokens=decoding.max_new_tokens,
            temperature=temperature,
            prompt=max(map(len, prompts)),
            suppressed=self._policy.model.placeholder_ids,
        )
