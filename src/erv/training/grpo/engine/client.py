"""Starts the engine's process and has it write completions.

It is a process of its own because no vLLM can be installed beside Prefect (docs/training.md). Weights and
prompts go through files in a temporary folder (`TMPDIR`), the rest through a socket. If either process dies,
the other notices.
"""

from __future__ import annotations

import json
import logging
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from erv.errors import TrainingError

logger = logging.getLogger(__name__)

WORKER = Path(__file__).with_name("worker.py")
Weights = Iterable[tuple[str, torch.Tensor]]


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn.

    Attributes:
        temperature: above 0, or 0 for the most probable token.
        limit: most tokens of a completion.
        ends: ids that end a completion.
        suppressed: ids that are never drawn.
    """

    temperature: float
    limit: int
    ends: tuple[int, ...]
    suppressed: tuple[int, ...]


@dataclass(frozen=True)
class Written:
    """Completions, and the log-probabilities that their tokens were drawn with."""

    tokens: list[list[int]]
    log_probs: list[list[float]]


class EngineClient:
    """An engine in another process; close it, or use it in a `with` block."""

    def __init__(
        self, command: Sequence[str], write_folder: Callable[[Path], None], options: dict[str, Any]
    ) -> None:
        """Starts the process; it gets ready while the trainer goes on.

        Args:
            command: the interpreter and the worker; the number of a socket is added.
            write_folder: writes configuration and tokenizer of the language model into a folder.
            options: arguments of the engine, besides that folder.
        """
        self._scratch = tempfile.TemporaryDirectory(prefix="erv-engine-")
        self._folder = Path(self._scratch.name)
        model = self._folder / "model"
        model.mkdir()
        write_folder(model)
        ours, theirs = socket.socketpair()
        with theirs, (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [*command, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self._connection = Connection(ours.detach())
        self._send({"folder": str(model), **options})
        self._ready = False
        self._handed_over: int | None = None

    def __enter__(self) -> EngineClient:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the process and removes its files."""
        self._connection.close()
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._scratch.cleanup()

    def write(
        self,
        weights: Callable[[], Weights],
        step: int,
        prompts: Sequence[torch.Tensor],
        rows: Sequence[tuple[int, int]],
        sampling: Sampling,
    ) -> Written:
        """One completion per row.

        Args:
            weights: gives the weights by name; called only if `step` is not that of the last call.
            step: number of the weights' version.
            prompts: embeddings [length, hidden], each prompt once.
            rows: per completion, the number of its prompt and its seed.
            sampling: how tokens are drawn.

        Raises:
            TrainingError: the engine failed, or its process ended.
        """
        if not self._ready:
            logger.info("grpo: completions come from vLLM %s", self._receive()["version"])
            self._ready = True
        stored = self._folder / "weights.safetensors"
        if step != self._handed_over:
            save_file({name: value.contiguous().cpu() for name, value in weights()}, stored)
            self._handed_over = step
        embedded = self._folder / "prompts.safetensors"
        save_file({str(n): value.contiguous().cpu() for n, value in enumerate(prompts)}, embedded)
        self._send(
            {
                "weights": str(stored),
                "prompts": str(embedded),
                "rows": list(rows),
                "sampling": asdict(sampling),
            }
        )
        answer = self._receive()
        return Written(answer["tokens"], answer["log_probs"])

    def _send(self, message: dict[str, Any]) -> None:
        try:
            self._connection.send_bytes(json.dumps(message).encode())
        except OSError as error:
            raise self._ended() from error

    def _receive(self) -> dict[str, Any]:
        try:
            answer: dict[str, Any] = json.loads(self._connection.recv_bytes())
        except (EOFError, OSError) as error:
            raise self._ended() from error
        if "error" in answer:
            raise TrainingError(f"grpo.generation is vllm, and vLLM failed: {answer['error']}")
        return answer

    def _ended(self) -> TrainingError:
        code = self._process.wait()
        lines = (self._folder / "log").read_text(encoding="utf-8", errors="replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
        return TrainingError(
            f"grpo.generation is vllm, and its process ended with exit code {code}: {last[:300]}; lower"
            " machine.grpo.vllm_memory if memory ran out, or set grpo.generation: transformers"
        )
