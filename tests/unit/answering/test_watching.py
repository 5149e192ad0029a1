"""Which rows of a batch stop, and what is said of them."""

from __future__ import annotations

import torch

from erv.answering.watching import Watcher

END = 9


def run(
    limits: list[int], written: list[list[int]], cancelled: dict[int, int]
) -> tuple[Watcher, list[object]]:
    """Plays what transformers does: `cancelled` has the step at which a row is cancelled."""
    said: list[object] = []
    watcher = Watcher(limits, END, lambda row: cancelled.get(row, 99) <= len(said), said.append)
    watcher.put(torch.zeros(len(limits), 4, dtype=torch.long))
    going = [True] * len(limits)
    ids = torch.zeros(len(limits), 4, dtype=torch.long)
    for tokens in written:
        row = torch.tensor([token if on else 0 for token, on in zip(tokens, going, strict=True)])
        ids = torch.cat([ids, row[:, None]], dim=1)
        stops = watcher(ids, None)
        going = [
            on and not stop and token != END
            for on, stop, token in zip(going, stops.tolist(), tokens, strict=True)
        ]
        watcher.put(row)
    watcher.end()
    return watcher, said


def test_each_row_stops_by_itself() -> None:
    watcher, said = run([5, 2, 5, 5], [[1, 1, 1, 9], [2, 2, 2, 2], [3, 3, 3, 3], [9, 4, 4, 4]], {2: 1})
    assert watcher.tokens == [[1, 2, 3, 9], [1, 2], [1, 2], [9]]
    assert said == [
        [(0, None), (1, None), (2, None), (3, "stop")],
        [(0, None), (1, "length"), (2, "cancelled")],
        [(0, None)],
        [(0, "stop")],
    ]
