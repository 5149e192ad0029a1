"""Explanations that the cold-start policy samples, like those the verifier has to read during GRPO."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from erv.prompts import parse_completion
from erv.settings import RolloutSettings, RuntimeSettings
from erv.shards import ShardReader

logger = logging.getLogger(__name__)


def sample_explanations(
    policy: Path,
    clip_ids: Sequence[str],
    shards: ShardReader,
    settings: RolloutSettings,
    runtime: RuntimeSettings,
    *,
    family: str,
    seed: int,
) -> tuple[list[tuple[str, str]], int]:
    """Samples a policy's explanations of clips, several per clip.

    Args:
        policy: the cold start's folder.
        clip_ids: the clips; those not in the shards are in quarantine and are left out.
        shards: their decoded frames and sound.
        settings: section `distill.rollouts`.
        runtime: device, precision and threads.
        family: of the policy, `policy.family`.
        seed: of the sampling.

    Returns:
        (clip id, explanation) by clip and sample, and the number of completions without an explanation.
    """
    from erv.determinism import resolve_device, seed_everything
    from erv.policies import load_policy
    from erv.policies.common.generate import generate_completions

    seed_everything(seed, runtime.threads)
    model = load_policy(policy, device=resolve_device(runtime.device), dtype=runtime.dtype, family=family)
    wanted = sorted(clip_id for clip_id in clip_ids if clip_id in shards)
    explanations: list[tuple[str, str]] = []
    empty = 0
    for sample in range(settings.per_clip):
        completions = generate_completions(
            model,
            (shards.get(clip_id) for clip_id in wanted),
            batch_size=settings.batch_size,
            max_new_tokens=settings.max_new_tokens,
            temperature=settings.temperature,
            seed=seed + sample,
            progress=lambda done, sample=sample: logger.info(  # type: ignore[misc]
                "rollouts %d of %d: %d of %d clips", sample + 1, settings.per_clip, done, len(wanted)
            ),
        )
        for clip_id, completion in completions.items():
            explanation = parse_completion(completion).explanation
            if explanation:
                explanations.append((clip_id, explanation))
            else:
                empty += 1
    return sorted(explanations), empty
