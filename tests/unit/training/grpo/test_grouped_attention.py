"""Attention by groups equals attention of rows with their whole prompt: outputs, gradients, dropped rows."""

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from erv.training.grpo import partial_attention
from erv.training.grpo.continuation import Continuation
from erv.training.grpo.grouped_attention import PackedAttention
from erv.training.grpo.packing import Layout, pack
from erv.training.grpo.partial_attention import attend

HEADS, KEY_HEADS, SIZE, SCALE = 4, 2, 8, 0.3
# Groups of 3, 1 and 2 completions, prompts of 5, 3 and 7 tokens.
PROMPTS, COMPLETIONS = [5, 3, 7], [[4, 1, 6], [2], [3, 3]]


@pytest.fixture(params=["kernel", "plain"])
def kernel(request, monkeypatch):
    """The CPU's kernel, and the matrix products that every other device takes."""
    if request.param == "plain":
        monkeypatch.setattr(partial_attention, "_has_kernel", lambda query, key: False)


def parts(length):
    torch.manual_seed(1)
    return (
        torch.randn(length, HEADS, SIZE, requires_grad=True),
        torch.randn(length, KEY_HEADS, SIZE, requires_grad=True),
        torch.randn(length, KEY_HEADS, SIZE, requires_grad=True),
    )


def row_by_row(query, key, value, completions):
    """Every completion with a prompt of its own, one at a time."""
    found = torch.zeros_like(query)
    place, start = 0, sum(PROMPTS)
    for prompt, lengths in zip(PROMPTS, completions, strict=True):
        own = torch.arange(place, place + prompt)
        for length in [0, *lengths]:
            tokens = torch.cat([own, torch.arange(start, start + length)])
            q, k, v = (part[tokens].transpose(0, 1) for part in (query, key, value))
            output = scaled_dot_product_attention(q, k, v, is_causal=True, scale=SCALE, enable_gqa=True)
            shown = tokens[prompt:] if length else own
            found = found.index_put((shown,), output.transpose(0, 1)[prompt if length else 0 :])
            start += length
        place += prompt
    return found


@pytest.mark.parametrize(
    "completions", [COMPLETIONS, [[4, 0, 6], [0], [3, 3]], [[0], [0, 0], [0]]], ids=["full", "gaps", "empty"]
)
def test_a_packed_row_is_every_completion_with_its_prompt(kernel, completions):
    length = sum(PROMPTS) + sum(map(sum, completions))
    layout = Layout(PROMPTS, completions, torch.device("cpu"))
    weights = torch.randn(length, HEADS, SIZE)
    results = []
    for attention in (
        lambda *p: PackedAttention.apply(*p, layout, SCALE),
        lambda *p: row_by_row(*p, completions),
    ):
        inputs = parts(length)
        output = attention(*inputs)
        (output * weights).sum().backward()
        results.append((output.detach(), *(part.grad for part in inputs)))
    for ours, plain in zip(*results, strict=True):
        torch.testing.assert_close(ours, plain, atol=2e-6, rtol=1e-5)


def test_rows_that_are_dropped_leave_the_others_their_prompt_and_mask(kernel):
    group_of_row = torch.tensor([0, 0, 0, 1, 2, 2])
    prompts = [torch.randn(3, KEY_HEADS, 7, SIZE) for _ in range(2)]
    mask = torch.tensor([[0, 0, 1, 1, 1, 1, 1], [0, 0, 0, 0, 1, 1, 1], [1] * 7])
    continuation = Continuation([tuple(prompts)], mask, group_of_row)
    rows = torch.arange(6)
    for kept in (
        rows,
        torch.tensor([0, 2, 4, 5]),
        torch.tensor([1, 2]),
    ):  # then without group 1, then group 2 alone
        rows = rows[kept]
        continuation.keep(kept)
        query = torch.randn(len(rows), HEADS, 1, SIZE)
        own = [torch.randn(len(rows), KEY_HEADS, 4, SIZE) for _ in range(2)]
        found = continuation.attend(0, query, *own, SCALE)
        groups = group_of_row[rows]
        key, value = (torch.cat([part[groups], mine], dim=2) for part, mine in zip(prompts, own, strict=True))
        seen = torch.cat([mask[groups].bool(), torch.ones(len(rows), 4, dtype=torch.bool)], dim=1)
        plain = scaled_dot_product_attention(
            query, key, value, attn_mask=seen[:, None, None], scale=SCALE, enable_gqa=True
        )
        torch.testing.assert_close(found, plain.transpose(1, 2), atol=2e-6, rtol=1e-5)


def test_a_causal_part_hides_what_follows(kernel):
    query, key, value = (torch.randn(1, 2, 5, SIZE) for _ in range(3))
    output, log_sum = attend(query, key, value, SCALE, causal=True)
    scores = (query @ key.mT * SCALE).masked_fill(torch.ones(5, 5).triu(1).bool(), -torch.inf)
    torch.testing.assert_close(log_sum, scores.logsumexp(-1))
    torch.testing.assert_close(output, scores.softmax(-1) @ value)


@pytest.mark.parametrize("spread", [1.0, 5.0])
def test_half_precision_costs_no_more_than_in_the_stock_attention(monkeypatch, spread):
    monkeypatch.setattr(partial_attention, "_has_kernel", lambda query, key: False)
    torch.manual_seed(2)
    exact = [spread * torch.randn(1, 4, 64, 32) for _ in range(2)] + [torch.randn(1, 4, 64, 32)]
    half = [part.bfloat16() for part in exact]
    truth = scaled_dot_product_attention(*(part.double() for part in half), scale=SCALE)
    with torch.autocast("cpu", torch.bfloat16):
        ours = attend(*half, SCALE)[0]
        stock = scaled_dot_product_attention(*half, scale=SCALE)
    error, usual = ((part.double() - truth).square().mean().sqrt() for part in (ours, stock))
    assert error < 1.5 * usual


def test_a_prompt_of_one_token_is_refused():
    ids, mask = torch.tensor([[0, 1, 7, 8]]), torch.tensor([[0, 1, 1, 1]])
    with pytest.raises(ValueError, match="fewer than two tokens"):
        pack(ids, mask, torch.arange(4).unsqueeze(0), torch.tensor([0]), keep=2)


def test_a_packed_pass_holds_each_prompt_once_and_no_padding():
    ids = torch.tensor([[0, 1, 2, 7, 8, 0], [3, 1, 2, 5, 0, 0], [0, 1, 2, 9, 9, 9], [0, 1, 2, 4, 0, 0]])
    mask = torch.tensor([[0, 1, 1, 1, 1, 0], [1, 1, 1, 1, 0, 0], [0, 1, 1, 1, 1, 1], [0, 1, 1, 1, 0, 0]])
    clips = torch.tensor([1, 0, 1, 0])
    packed = pack(ids, mask, torch.arange(6).expand(4, 6) + 10, clips, keep=3)
    lengths = [(prompt.stop - prompt.start, rows.stop - rows.start) for prompt, rows in packed.layout.groups]
    assert sorted(lengths) == [(1, 1), (1, 5), (2, 1)]  # [1] of clip 0, [1] of clip 1, [3, 1] of clip 0
    assert packed.input_ids.shape == (1, 4 + 7)
    assert sorted(packed.targets.tolist()) == [4, 5, 7, 8, 9, 9, 9]
    scores = packed.unpack(packed.targets.float(), 4, 3)
    assert scores.tolist() == [[7, 8, 0], [5, 0, 0], [9, 9, 9], [4, 0, 0]]
    # The input of a target is the token before it; a row's first one is the last token of its prompt.
    inputs = packed.unpack(packed.input_ids[0, -7:].float(), 4, 3)
    assert inputs.tolist() == [[2, 7, 0], [2, 0, 0], [2, 9, 9], [2, 0, 0]]
    assert packed.unpack(packed.position_ids[0, -7:].float(), 4, 3)[2].tolist() == [12, 13, 14]
    assert packed.unpack(packed.clip_index[0, -7:].float(), 4, 3)[:, 0].tolist() == [1, 0, 1, 0]
