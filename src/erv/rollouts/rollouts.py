"""Explanations that the cold-start policy samples, like those the verifier has to read during GRPO."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa

from erv.manifest import write_table
from erv.prompts import parse_completion
from erv.settings import RolloutSettings, RuntimeSettings
from erv.shards import ShardReader

logger = logging.getLogger(__name__)

# One row per completion; a completion in which no explanation can be found has none.
SCHEMA = pa.schema(
    [
        pa.field("clip_id", pa.string(), nullable=False),
        pa.field("explanation", pa.string()),
    ]
)


def sample_explanations(
    policy: Path,
    clip_ids: Sequence[str],
    shards: ShardReader,
    settings: RolloutSettings,
    runtime: RuntimeSettings,
    *,
    family: str,
    seed: int,
    asked: Mapping[str, str] | None = None,
) -> list[tuple[str, str | None]]:
    """Samples a policy's explanations of clips, several per clip.

    Args:
        policy: the cold start's folder.
        clip_ids: the clips; those not in the shards are in quarantine and are left out.
        shards: their decoded frames and sound.
        settings: section `rollouts`.
        runtime: device, precision and threads.
        family: of the policy, `policy.family`.
        seed: of the sampling.
        asked: the user turn by clip id, where it differs between clips.

    Returns:
        Clip id and explanation of each completion, by clip, then by sample; None where a completion has no
        explanation.
    """
    from erv.determinism import resolve_device, seed_everything
    from erv.policies import load_policy
    from erv.policies.common.generate import generate_completions

    seed_everything(seed, runtime.threads)
    model = load_policy(policy, device=resolve_device(runtime.device), dtype=runtime.dtype, family=family)
    wanted = sorted(clip_id for clip_id in clip_ids if clip_id in shards)
    explanations: list[tuple[str, str | None]] = []
    for sample in range(settings.per_clip):
        completions = generate_completions(
            model,
            (shards.get(clip_id) for clip_id in wanted),
            batch_size=settings.batch_size,
            max_new_tokens=settings.max_new_tokens,
            temperature=settings.temperature,
            seed=seed + sample,
            asked=asked or {},
            progress=lambda done, sample=sample: logger.info(  # type: ignore[misc]
                "rollouts %d of %d: %d of %d clips", sample + 1, settings.per_clip, done, len(wanted)
            ),
        )
        explanations += [
            (clip_id, parse_completion(completion).explanation or None)
            for clip_id, completion in completions.items()
        ]
    return sorted(explanations, key=lambda item: item[0])


def write_rollouts(explanations: Sequence[tuple[str, str | None]], path: Path) -> None:
    """Writes what `sample_explanations` returned as a table with `SCHEMA`."""
    rows = [{"clip_id": clip_id, "explanation": text} for clip_id, text in explanations]
    write_table(pa.Table.from_pylist(rows, schema=SCHEMA), path)
