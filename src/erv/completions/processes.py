"""Several processes that share the pieces of a data set, each with the policy on a device of its own.

A piece is answered the same by whichever process takes it, so their number changes no completion.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from typing import Any

from erv.completions.pieces import Completed, Piece
from erv.errors import EvaluationError

_answering: Any = None  # of this process, once it is one of several


def shared(task: Any, pieces: Sequence[Piece], processes: int) -> Iterator[tuple[Piece, list[Completed]]]:
    """Answers pieces in several processes; yields each piece when it is kept, in any order.

    Args:
        task: an `erv.completions.answering.Task`.
        pieces: the pieces to answer.
        processes: how many processes.

    Raises:
        EvaluationError: a process was killed.
        ErvError: from the process that failed first.
    """
    context = multiprocessing.get_context("spawn")
    ranks = context.Value("i", 0)
    before = set(multiprocessing.active_children())
    executor = ProcessPoolExecutor(
        min(processes, len(pieces)), mp_context=context, initializer=_begin, initargs=(task, ranks)
    )
    try:
        answers = {executor.submit(_answer, piece): piece for piece in pieces}
        for future in as_completed(answers):
            yield answers[future], future.result()
        executor.shutdown()
    except BrokenProcessPool:
        raise EvaluationError(
            f"a process that generates for {task.dataset} was killed, probably for want of memory; lower"
            " machine.evaluate.processes or evaluate.batch_size and run it again: finished pieces are kept"
        ) from None
    finally:
        # After a failure or a signal, nobody waits for the pieces that are under way.
        for child in set(multiprocessing.active_children()) - before:
            child.kill()
        executor.shutdown(cancel_futures=True)


def _begin(task: Any, ranks: Any) -> None:
    from erv.completions.answering import Answering
    from erv.determinism import prepare_process
    from erv.pipeline.process import set_parent_death_signal

    global _answering
    set_parent_death_signal()
    prepare_process(task.decoding.seed, task.threads)
    with ranks.get_lock():
        rank = ranks.value
        ranks.value += 1
    _answering = Answering(replace(task, device=_device(task.device, rank)))


def _device(device: str, rank: int) -> str:
    """The device of one process: the GPUs take turns."""
    import torch

    gpus = torch.cuda.device_count() if device == "cuda" else 0
    return f"cuda:{rank % gpus}" if gpus else device


def _answer(piece: Piece) -> list[Completed]:
    completed: list[Completed] = _answering(piece)
    return completed
