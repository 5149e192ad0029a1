"""The load of the machine during a run, as MLflow measures it: processors, memory, disk, network and GPUs.

MLflow's own loop is left out: it ends at the first outage of the server, while a `StageRun` keeps what it is
given for later.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from erv.tracking.run import StageRun

logger = logging.getLogger(__name__)

PREFIX = "system/"  # MLflow shows metrics of this name on a page of their own
_BETWEEN_SECONDS = 10.0


@contextmanager
def system_metrics(run: StageRun, seconds: float = _BETWEEN_SECONDS) -> Iterator[None]:
    """Logs what the machine is busy with to `run` while the block runs; nothing without a tracking server.

    Args:
        run: receives a point per measurement, its step the number of the measurement.
        seconds: between two measurements.
    """
    if not run.active:
        yield
        return
    stop = threading.Event()
    thread = threading.Thread(target=_measure, args=(run, seconds, stop), name="system-metrics", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _measure(run: StageRun, seconds: float, stop: threading.Event) -> None:
    monitors = _monitors()  # here, because importing MLflow takes seconds
    step = 0
    while not stop.wait(seconds):
        try:
            for monitor in monitors:
                monitor.collect_metrics()
            found = {name: value for m in monitors for name, value in m.aggregate_metrics().items()}
        except Exception as error:  # of psutil or of the GPU's driver: no reason to disturb the run
            logger.warning("the machine's load is not measured any more: %s", error)
            return
        run.log_metrics({f"{PREFIX}{name}": value for name, value in found.items()}, step=step)
        step += 1
        for monitor in monitors:
            monitor.clear_metrics()


def _monitors() -> list[Any]:
    from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
    from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
    from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
    from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor

    monitors: list[Any] = [CPUMonitor(), DiskMonitor(), NetworkMonitor()]
    try:
        monitors.append(GPUMonitor())
    except (ImportError, RuntimeError):  # without the extra `gpu`, or without a GPU
        logger.debug("no GPU is measured")
    return monitors
