"""How far an engine's log-probabilities are from the policy's, for the metrics.

TRL computes the correction itself: the loss of a token is multiplied by the ratio of its probability under
the policy to that under the engine, truncated at a cap (https://fengyao.notion.site/off-policy-rl). These
figures show whether the two models are the same one.
"""

from __future__ import annotations

import torch

from erv.errors import TrainingError

PREFIX = "engine/"


def agreement(policy: torch.Tensor, engine: torch.Tensor, mask: torch.Tensor, cap: float) -> dict[str, float]:
    """Means over the tokens that the engine has sampled.

    Args:
        policy: log-probabilities under the policy that was handed over, [rows, tokens].
        engine: log-probabilities that the engine sampled them with, [rows, tokens].
        mask: [rows, tokens]; 0 marks padding.
        cap: where the ratio is truncated.

    Returns:
        `engine/ratio`, mean of the ratio before truncation, 1 in expectation; `engine/truncated_share`, share
        of tokens whose ratio is above the cap; `engine/kl`, estimate of KL(engine || policy) per token in
        nats, as ratio - log(ratio) - 1. They leave out tokens for which the engine gave no finite number,
        whose loss TRL doesn't correct; `engine/without_log_prob` is their share. Empty without tokens.

    Raises:
        TrainingError: the engine gave no finite number for any token.
    """
    given = engine[mask.bool()].isfinite()
    if not len(given):
        return {}
    if not given.any():
        raise TrainingError(
            f"grpo.generation is vllm, and vLLM gave no finite log-probability for any of the {len(given)}"
            " tokens that it sampled, so the loss can't be corrected; set grpo.generation: transformers"
        )
    difference = (policy - engine)[mask.bool()][given].double()
    ratio = difference.exp()
    return {
        f"{PREFIX}without_log_prob": float((~given).double().mean()),
        f"{PREFIX}ratio": float(ratio.mean()),
        f"{PREFIX}truncated_share": float((ratio > cap).double().mean()),
        f"{PREFIX}kl": float((ratio - difference - 1).mean()),
    }
