"""How fast a training step is, and how much of the GPU it uses.

A `Throughput` belongs to one process and its device, but counts the tokens of all processes.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from types import TracebackType

import torch

logger = logging.getLogger(__name__)

OnMetrics = Callable[[dict[str, float], int], None]  # takes the metrics of a step and the step, from 1

# Metrics that differ between two runs with the same inputs.
TIMED = frozenset(
    {
        "step_seconds",
        "tokens_per_second",
        "trained_tokens_per_second",
        "gpu_memory_gb",
        "gpu_memory_reserved_gb",
        "gpu_use",
    }
)
_SAMPLE_SECONDS = 0.25


class Throughput:
    """A meter for one or more steps: call `start`, `stop` and `count` in each step, then `read`.

    Within its `with` block a thread samples the GPU's utilisation: a single look at the end of a step would
    always miss the generation.
    """

    def __init__(self, device: torch.device | str) -> None:
        """Takes the device of this process; on a CPU only the time is measured."""
        self._device = torch.device(device)
        self._use = _GpuUse(self._device) if self._device.type == "cuda" else None
        self._began: float | None = None
        self._clear()

    def _clear(self) -> None:
        self._seconds = 0.0
        self._generated = self._trained = 0
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)

    def start(self) -> None:
        """Marks the beginning of a step."""
        self._began = time.perf_counter()

    def stop(self) -> None:
        """Marks the end of a step; what happens until the next `start`, like a checkpoint, doesn't count."""
        if self._began is not None:
            if self._device.type == "cuda":
                torch.cuda.synchronize(self._device)
            self._seconds += time.perf_counter() - self._began
            self._began = None

    def count(self, *, trained: int, generated: int = 0) -> None:
        """Adds the tokens of a step, over all processes.

        Args:
            trained: tokens that the update was computed on: prompts and completions without padding.
            generated: tokens that were sampled.
        """
        self._trained += trained
        self._generated += generated

    def read(self) -> dict[str, float]:
        """The metrics of the steps since the last call.

        Returns:
            `tokens_per_second`: sampled tokens per second of the whole step, if any were sampled;
            `trained_tokens_per_second`; and on a GPU `gpu_memory_gb` and `gpu_memory_reserved_gb` (peaks of
            what tensors use and of what PyTorch reserves, in 10^9 bytes) and `gpu_use` (share of time in
            which the GPU is busy, 0 to 1; on NVIDIA it needs nvidia-ml-py). GPU metrics describe this
            process's device only.
        """
        found: dict[str, float] = {}
        if self._seconds > 0:
            if self._generated:
                found["tokens_per_second"] = self._generated / self._seconds
            if self._trained:
                found["trained_tokens_per_second"] = self._trained / self._seconds
        if self._use is not None:
            found["gpu_memory_gb"] = torch.cuda.max_memory_allocated(self._device) / 1e9
            found["gpu_memory_reserved_gb"] = torch.cuda.max_memory_reserved(self._device) / 1e9
            use = self._use.read()
            if use is not None:
                found["gpu_use"] = use
        self._clear()
        return found

    def __enter__(self) -> Throughput:
        if self._use is not None:
            self._use.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._use is not None:
            self._use.stop()


class _GpuUse:
    """Regularly asks the driver how busy a GPU is; if that fails, logs the reason once and stops."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._lock = threading.Lock()
        self._samples: list[int] = []
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        if not self._ask():
            return
        self._thread = threading.Thread(target=self._work, name="gpu-use", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()
        if self._thread is not None:
            self._thread.join(5.0)

    def read(self) -> float | None:
        """The mean share since the last call; None if there were no samples."""
        with self._lock:
            samples, self._samples = self._samples, []
        return sum(samples) / len(samples) / 100 if samples else None

    def _work(self) -> None:
        while not self._ended.wait(_SAMPLE_SECONDS):
            if not self._ask():
                return

    def _ask(self) -> bool:
        try:
            percent = torch.cuda.utilization(self._device)
        except Exception as error:  # the driver's library has its own errors, and may not be installed
            said = " ".join(str(error).split())[:200]
            logger.warning("gpu_use is not logged: %s: %s", type(error).__name__, said)
            return False
        with self._lock:
            self._samples.append(percent)
        return True
