import pytest
import torch

from erv.training.grpo import token_scores as module
from erv.training.grpo.token_scores import token_scores

TEMPERATURE = 0.7


@pytest.mark.parametrize("entropies", [False, True])
def test_scores_and_gradients_are_those_of_a_log_softmax(monkeypatch, entropies):
    monkeypatch.setattr(module, "_AT_ONCE", 40 * 16)  # three blocks
    torch.manual_seed(0)
    targets, weights = torch.randint(0, 40, (37,)), torch.randn(2, 37)
    results = []
    for ours in (True, False):
        torch.manual_seed(1)
        hidden, head = torch.randn(37, 12, requires_grad=True), torch.randn(40, 12, requires_grad=True)
        if ours:
            scores = token_scores(hidden, head, targets, TEMPERATURE)
            log_probs, entropy = scores.log_probs, scores.entropy
        else:
            each = (hidden @ head.T / TEMPERATURE).log_softmax(-1)
            log_probs = each.gather(1, targets.unsqueeze(1)).squeeze(1)
            entropy = -(each.exp() * each).sum(-1)
        ((log_probs * weights[0]).sum() + entropies * (entropy * weights[1]).sum()).backward()
        results.append((log_probs.detach(), entropy.detach(), hidden.grad, head.grad))
    for mine, plain in zip(*results, strict=True):
        torch.testing.assert_close(mine, plain, atol=1e-5, rtol=1e-5)
