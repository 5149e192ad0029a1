"""Starts the engine's process and has it write completions.

It is a process of its own because no vLLM can be installed beside Prefect (docs/training.md). Weights and
prompts go through files in a temporary folder (`TMPDIR`), the rest through a socket. If either process dies,
the other notices; if this one is killed, the engine's removes the folder.
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
START_LIMIT = 30 * 60.0  # seconds until the engine must be ready
WRITE_LIMIT = 30 * 60.0  # seconds that one generation may take
END_LIMIT = 20.0  # seconds that the process may take to end after its connection has
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
        """Starts the process, without waiting until it is ready.

        Args:
            command: the interpreter and the worker; the number of a socket and the folder of the files are
                added.
            write_folder: writes configuration and tokenizer of the language model into a folder.
            options: arguments of the engine, besides that folder.

        Raises:
            TrainingError: the process can't be started, or ended at once.
        """
        self._scratch = tempfile.TemporaryDirectory(prefix="erv-engine-")
        self._folder = Path(self._scratch.name)
        model = self._folder / "model"
        model.mkdir()
        write_folder(model)
        ours, theirs = socket.socketpair()
        self._connection = Connection(ours.detach())
        self._ready = False
        self._handed_over: int | None = None
        with theirs, (self._folder / "log").open("wb") as log:
            try:
                self._process = subprocess.Popen(
                    [*command, str(theirs.fileno()), str(self._folder)],
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
            except OSError as error:
                self._connection.close()
                self._scratch.cleanup()
                raise TrainingError(
                    f"grpo.generation is vllm, and {command[0]} (machine.grpo.vllm_python) can't be started:"
                    f" {error.strerror}; correct the path, or set grpo.generation: transformers"
                ) from error
        try:
            self._send({"folder": str(model), **options})
        except TrainingError:
            self.close(at_once=True)
            raise

    def __enter__(self) -> EngineClient:
        return self

    def __exit__(self, kind: object, *exception: object) -> None:
        self.close(at_once=kind is not None)

    def close(self, *, at_once: bool = False) -> None:
        """Ends the process and removes its files.

        Args:
            at_once: kills the process instead of giving it time to end.
        """
        self._connection.close()
        if at_once:
            self._process.kill()
        self._wait()
        self._scratch.cleanup()

    def ready(self) -> None:
        """Waits until the engine can write.

        Raises:
            TrainingError: the engine failed, its process ended, or it isn't ready within `START_LIMIT`.
        """
        if not self._ready:
            logger.info("grpo: completions come from vLLM %s", self._receive(START_LIMIT)["version"])
            self._ready = True

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
            TrainingError: the engine failed, its process ended, or it gave no answer within `WRITE_LIMIT`.
        """
        self.ready()
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
        answer = self._receive(WRITE_LIMIT)
        return Written(answer["tokens"], answer["log_probs"])

    def _send(self, message: dict[str, Any]) -> None:
        try:
            self._connection.send_bytes(json.dumps(message).encode())
        except OSError as error:
            raise self._ended() from error

    def _receive(self, limit: float) -> dict[str, Any]:
        try:
            if not self._connection.poll(limit):
                self._process.kill()
                self._wait()
                raise TrainingError(
                    f"grpo.generation is vllm, and its process gave no answer for {limit / 60:g} minutes and"
                    f" was killed; its last line: {self._last_line()}; start the stage again, which"
                    " resumes from its newest checkpoint, or set grpo.generation: transformers"
                )
            received = self._connection.recv_bytes()
        except (EOFError, OSError) as error:
            raise self._ended() from error
        try:
            answer: dict[str, Any] = json.loads(received)
        except ValueError as error:
            raise TrainingError(
                f"grpo.generation is vllm, and its process sent {len(received)} bytes that are no JSON"
                f" ({error}); start the stage again, or set grpo.generation: transformers"
            ) from error
        if "error" in answer:
            raise TrainingError(f"grpo.generation is vllm, and vLLM failed: {answer['error']}")
        return answer

    def _ended(self) -> TrainingError:
        code = self._wait()
        return TrainingError(
            f"grpo.generation is vllm, and its process ended with exit code {code}: {self._last_line()};"
            " lower machine.grpo.vllm_memory if memory ran out, or set grpo.generation: transformers"
        )

    def _wait(self) -> int:
        """The exit code of the process, which is killed if it doesn't end within `END_LIMIT`."""
        try:
            return self._process.wait(timeout=END_LIMIT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def _last_line(self) -> str:
        lines = (self._folder / "log").read_text(encoding="utf-8", errors="replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
        return last[:300]
