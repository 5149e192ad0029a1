"""Writes completions with a cache of fixed size, on a GPU as one replayed CUDA graph per token.

A small model's step is over before Python has started the next kernel: at 0.5B the GPU waits most of a
generation. With fixed shapes a step can be recorded once, and one call then starts all its kernels. The same
code runs without a graph where there is no GPU. The price is attention to the free places of the cache,
which a mask hides, and rows that stay in the batch when they have ended.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import torch
from transformers.cache_utils import Cache, DynamicLayer

from erv.training.grpo.shared_prompts import SharedPrompt

# Logits [rows, vocabulary], rows, and the number of the token, from 0 -> the tokens drawn, long [rows].
Draw = Callable[[torch.Tensor, torch.Tensor, int], torch.Tensor]

_ALIGNMENT = 8  # masks whose rows are not a multiple of this long are copied by the GPU's kernels
_WARM_UP = 2  # runs before recording: they set up libraries, and fill autocast's cache of weights
_LOOK_EVERY = 16  # tokens between looks, on a GPU, at whether all rows have ended: looking waits for the GPU


class Slots(DynamicLayer):
    """Keys and values of one layer in buffers of fixed size; the next token goes to place `slot`."""

    def __init__(self, keys: torch.Tensor, values: torch.Tensor, size: int, slot: torch.Tensor) -> None:
        """Copies the prompts' keys and values.

        Args:
            keys: [rows, heads, P, D].
            values: [rows, heads, P, D].
            size: tokens that the buffers hold.
            slot: long [1], shared by all layers; whoever runs the model advances it.
        """
        super().__init__()
        self.lazy_initialization(keys, values)
        dtype = _computed_in(keys)
        self.keys, self.values = (
            # Zeros, because a masked place still counts as 0 times its value.
            torch.nn.functional.pad(known.to(dtype), (0, 0, 0, size - known.shape[-2]))
            for known in (keys, values)
        )
        self._slot = slot

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Stores one token per row, [rows, heads, 1, D]; returns the whole buffers."""
        for buffer, new in ((self.keys, key_states), (self.values, value_states)):
            assert buffer is not None
            buffer.index_copy_(2, self._slot, new.to(buffer.dtype))
        assert self.keys is not None
        assert self.values is not None
        return self.keys, self.values


def _computed_in(values: torch.Tensor) -> torch.dtype:
    """What attention computes in: rotated keys are float32, and autocast would cast them in every step."""
    device = values.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else values.dtype


class StaticStep:
    """One token for every row: a call takes the tokens drawn last and returns logits for the next ones."""

    def __init__(
        self,
        policy: Any,
        layers: list[tuple[torch.Tensor, torch.Tensor]],
        mask: torch.Tensor,
        positions: torch.Tensor,
        room: int,
        graph: bool,
    ) -> None:
        """Copies the prompts into buffers, and records the step if there is to be a graph.

        Args:
            policy: the policy, without wrappers around it; adapters may be inside.
            layers: per layer, keys and values of the rows' prompts, [rows, heads, P, D] each.
            mask: [rows, P]; 0 marks padding.
            positions: long [rows, 1] or [axes, rows, 1], of the last prompt token.
            room: tokens that follow the prompt at most.
            graph: whether to record a CUDA graph.
        """
        rows, length = mask.shape
        size = -(-(length + room) // _ALIGNMENT) * _ALIGNMENT
        self._embed, self._decoder = policy.get_input_embeddings(), policy.get_decoder()
        # Rounded once, as autocast would in every step. The head is not a weight that the trainer may round.
        head = policy.lm_head
        self._head = head.weight.detach().to(_computed_in(head.weight))
        self._token = torch.zeros(rows, 1, dtype=torch.long, device=mask.device)
        self._slot = torch.full((1,), length, device=mask.device)
        self._positions = positions.clone()
        self._mask = torch.zeros(rows, 1, 1, size, dtype=torch.bool, device=mask.device)
        self._mask[:, 0, 0, :length] = mask.bool()
        self._cache = Cache(layers=[Slots(keys, values, size, self._slot) for keys, values in layers])
        self._masks = dict.fromkeys(self._decoder.config.layer_types, self._mask)
        self._logits = torch.zeros(rows, len(self._head), dtype=torch.float32, device=mask.device)
        self._graph = self._record() if graph else None

    def __call__(self, tokens: torch.Tensor) -> torch.Tensor:
        """Logits after these tokens, float32 [rows, vocabulary]; the next call overwrites them.

        Args:
            tokens: long [rows].
        """
        self._token.copy_(tokens.unsqueeze(1))
        if self._graph is None:
            self._run()
        else:
            self._graph.replay()
        return self._logits

    def _run(self) -> None:
        """The step itself: no result may depend on a number that Python reads from a tensor."""
        self._positions.add_(1)
        self._mask.index_fill_(3, self._slot, True)
        hidden = self._decoder(
            inputs_embeds=self._embed(self._token),
            attention_mask=self._masks,
            position_ids=self._positions,
            past_key_values=self._cache,
            use_cache=True,
        ).last_hidden_state[:, -1]
        self._logits.copy_(torch.nn.functional.linear(hidden.to(self._head.dtype), self._head))
        self._slot.add_(1)

    def _record(self) -> torch.cuda.CUDAGraph:
        """Records `_run`. What its earlier runs leave in the cache is overwritten before it is seen."""
        state = (self._positions, self._mask, self._slot)
        start = [value.clone() for value in state]
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UP):
                self._run()
                for value, first in zip(state, start, strict=True):
                    value.copy_(first)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._run()
        return graph


@torch.no_grad()
def write_with_static_cache(
    model: Any,
    policy: Any,
    prompt: SharedPrompt,
    draw: Draw,
    *,
    ends: Collection[int],
    limit: int,
    graph: bool | None = None,
) -> list[list[int]]:
    """One completion per row.

    Args:
        model: the policy with its wrappers, which runs the prompts. Its weights must not be sharded.
        policy: the same without wrappers.
        prompt: whole prompts, padded on the left, with `attention_mask` and `position_ids`.
        draw: draws the tokens; it is also called for rows that have ended.
        ends: ids that end a completion.
        limit: most tokens of a completion.
        graph: whether to replay a CUDA graph; by default, on a GPU.

    Returns:
        Per row, the tokens up to and including the first end.
    """
    outputs = model(**prompt.inputs, use_cache=True, logits_to_keep=1)
    groups = prompt.group_of_row
    on_gpu = groups.device.type == "cuda"
    rows = torch.arange(len(groups), device=groups.device)
    logits = outputs.logits[:, -1].float()[groups]
    step = StaticStep(
        policy,
        [(layer.keys[groups], layer.values[groups]) for layer in outputs.past_key_values.layers],
        prompt.inputs["attention_mask"][groups],
        prompt.inputs["position_ids"][..., -1:].index_select(-2, groups),
        limit - 1,  # the last token is drawn, but not read
        on_gpu if graph is None else graph,
    )
    del outputs
    ending = torch.tensor(sorted(ends), device=groups.device)
    written = torch.zeros(len(groups), limit, dtype=torch.long, device=groups.device)
    length = torch.full_like(rows, limit)
    live = torch.ones_like(rows, dtype=torch.bool)
    for token in range(limit):
        drawn = draw(logits, rows, token)
        written[:, token] = drawn
        ended = live & torch.isin(drawn, ending)
        length.masked_fill_(ended, token + 1)
        live = live & ~ended
        looks = not on_gpu or token % _LOOK_EVERY == _LOOK_EVERY - 1
        if token + 1 == limit or (looks and not bool(live.any())):
            break
        logits = step(drawn)
    return [row[:end] for row, end in zip(written.tolist(), length.tolist(), strict=True)]
