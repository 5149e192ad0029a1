"""Log-probabilities of tokens from hidden states, for the tokens of completions only.

Without a GPU, TRL's fused head scores every position of a row. Here the positions are chosen first, and on a
CPU a single log-softmax gives log-probability, entropy and gradient. On a GPU the chosen positions go
through TRL's own kernel.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import torch
from torch.distributed.tensor import DTensor
from trl.kernels import ChunkedLogProbFunction
from trl.trainer.utils import maybe_gather_lm_head_ctx

_AT_ONCE = 2**19  # logits that are computed together: what a processor's cache holds
_GPU_CHUNK = 8192  # words of the vocabulary that TRL's kernel takes together


@dataclass
class TokenScores:
    """What the head gives for M tokens.

    Attributes:
        log_probs: [M].
        entropy: [M], of the distribution that the token was drawn from; None where it wasn't asked for.
    """

    log_probs: torch.Tensor
    entropy: torch.Tensor | None


def add_token_scores(model: Any, temperature: float) -> None:
    """Lets a policy take `targets`: its call then returns `TokenScores` instead of logits.

    It goes through the policy's own `forward`, so that wrappers (DDP, FSDP, DeepSpeed) see one forward pass
    per backward pass.

    Args:
        model: the policy, below wrappers and adapters.
        temperature: logits are divided by it.
    """
    plain = model.forward

    @functools.wraps(type(model).forward)  # `generate` checks its arguments against this signature
    def forward(*args: Any, targets: torch.Tensor | None = None, **kwargs: Any) -> Any:
        if targets is None:
            return plain(*args, **kwargs)
        states = model.base_model(*args, **kwargs, use_cache=False).last_hidden_state[0]
        hidden = states[len(states) - len(targets) :]
        head = model.get_output_embeddings()
        weight = head.weight.full_tensor() if isinstance(head.weight, DTensor) else head.weight
        return token_scores(hidden, weight, targets, temperature)

    model.forward = forward


def token_scores(
    hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, temperature: float
) -> TokenScores:
    """Scores of M tokens.

    Args:
        hidden: [M, H], each predicts a token.
        weight: the head, [vocabulary, H].
        targets: long [M].
        temperature: logits are divided by it.
    """
    if hidden.device.type == "cpu":
        scores: Any = CpuTokenScores.apply(hidden, weight, targets, temperature)  # type: ignore[no-untyped-call]
        return TokenScores(*scores)
    with maybe_gather_lm_head_ctx(weight, None):
        found = ChunkedLogProbFunction.apply(
            hidden, weight, None, targets, temperature, _GPU_CHUNK, None, 1.0, ("entropy",)
        )
    return TokenScores(found[0], found[1])


class CpuTokenScores(torch.autograd.Function):
    """Log-probabilities and entropies, in blocks that stay in the cache; backward computes them once more."""

    @staticmethod
    def forward(
        context: Any, hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, temperature: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-probabilities [M] and entropies [M]; see `token_scores`."""
        context.set_materialize_grads(False)  # the entropy is mostly for the metrics: it has no gradient
        log_probs, entropy = hidden.new_empty(len(hidden)), hidden.new_empty(len(hidden))
        with maybe_gather_lm_head_ctx(weight, None):
            for block in _blocks(len(hidden), len(weight)):
                each = _log_softmax(hidden[block], weight, temperature)
                log_probs[block] = each.gather(1, targets[block].unsqueeze(1)).squeeze(1)
                entropy[block] = -torch.linalg.vecdot(each.exp(), each)
        context.save_for_backward(hidden, weight, targets, entropy)
        context.temperature = temperature
        return log_probs, entropy

    @staticmethod
    def backward(context: Any, to_log_probs: torch.Tensor | None, to_entropy: torch.Tensor | None) -> Any:
        """Gradients of hidden states and head.

        Of log p(target), by a logit: 1 at the target, minus p. Of the entropy: -p (log p + entropy).
        """
        hidden, weight, targets, entropy = context.saved_tensors
        to_hidden = torch.empty_like(hidden) if context.needs_input_grad[0] else None
        to_weight = torch.zeros_like(weight) if context.needs_input_grad[1] else None
        with maybe_gather_lm_head_ctx(weight, None):
            for block in _blocks(len(hidden), len(weight)):
                each = _log_softmax(hidden[block], weight, context.temperature)
                factor = torch.zeros_like(each[:, :1]) if to_log_probs is None else -to_log_probs[block, None]
                if to_entropy is not None:
                    factor = factor - to_entropy[block, None] * (each + entropy[block, None])
                to_logits = each.exp_().mul_(factor / context.temperature)
                if to_log_probs is not None:
                    at_target = to_log_probs[block, None] / context.temperature
                    to_logits.scatter_add_(1, targets[block, None], at_target)
                if to_hidden is not None:
                    torch.mm(to_logits, weight, out=to_hidden[block])
                if to_weight is not None:
                    to_weight.addmm_(to_logits.T, hidden[block])
        return to_hidden, to_weight, None, None


def _blocks(tokens: int, vocabulary: int) -> list[slice]:
    size = max(16, _AT_ONCE // vocabulary)
    return [slice(start, min(start + size, tokens)) for start in range(0, tokens, size)]


def _log_softmax(hidden: torch.Tensor, weight: torch.Tensor, temperature: float) -> torch.Tensor:
    return torch.mm(hidden / temperature, weight.T).log_softmax(-1)
