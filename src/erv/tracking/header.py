"""What is known of a run before MLflow is reached, and which process feeds it."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class RunHeader:
    """What is needed to open a run, now or later.

    Attributes:
        key: a random name of this run; a repeated opening finds the run by it.
        address: the stage with its matrix value, `grpo@erv`; under it the run is recorded.
        started: milliseconds since 1970.
        name: of the run in MLflow; the address if empty.
        experiment: the run of the experiment of DVC that this stage belongs to; it ends with its last stage.
        pid, created: the process that feeds the run; while it lives, no other process delivers for it.
    """

    key: str
    address: str
    started: int
    tags: dict[str, str] = field(default_factory=dict)
    run_id: str | None = None
    pid: int = 0
    created: float = 0.0
    name: str = ""
    experiment: str | None = None

    def owner_lives(self) -> bool:
        """Whether the process that feeds this run is still alive."""
        import psutil

        try:
            process = psutil.Process(self.pid)
            return (
                abs(process.create_time() - self.created) < 1.0 and process.status() != psutil.STATUS_ZOMBIE
            )
        except psutil.NoSuchProcess:
            return False
