"""A small pipeline whose stage `sft` stands for a training: its validation loss follows from a parameter."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from erv.environment import Environment
from tests.integration.scratch import Scratch

PIPELINE = """
stages:
  first:
    cmd: python work.py --stage first --out first.txt
    deps: [work.py]
    params: [seed]
    outs: [first.txt]
  sft:
    cmd: python work.py --stage sft --out models/policy/sft --curves curves.csv
    deps: [work.py, first.txt]
    params: [sft.batch_size, sft.max_steps]
    outs: [models/policy/sft, curves.csv]
  last:
    cmd: python work.py --stage last --out last.txt
    deps: [work.py, models/policy/sft]
    outs: [last.txt]
"""
# The loss is the batch size over the step; a batch size that ends in 7 fails, and one
# that ends in 3 measures no number. A step takes PACE seconds, and
# each attempt at the training leaves a line in the file that LEDGER names. The stage
# `last`, which only the proposal runs, takes LAST seconds.
WORK = """
import logging, os, sys, time
from pathlib import Path
from erv.checkpoints import ROOT, latest_checkpoint, mark_complete
from erv.curves import Curves
from erv.errors import TrainingError
from erv.stage import Option, run_stage

name = sys.argv[2]
logger = logging.getLogger("stages.work")

def train(arguments, settings, run):
    size, steps = settings.sft.batch_size, settings.sft.max_steps
    folder = ROOT / "sft" / f"key-{size}" / "one"
    newest = latest_checkpoint(folder)
    start = int(newest.name.rpartition("-")[2]) if newest else 0
    with open(os.environ["LEDGER"], "a") as ledger:
        ledger.write(f"{size} from {start}\\n")
    if size % 10 == 7:
        raise TrainingError("the loss is not finite; lower sft.batch_size")
    curves = Curves(folder, run.log_metrics)
    for step in range(start + 1, steps + 1):
        time.sleep(float(os.environ.get("PACE", "0.1")))
        curves({"validation_loss": float("nan") if size % 10 == 3 else size / step}, step)
        logger.info("step %d", step)
        checkpoint = folder / f"checkpoint-{step}"
        checkpoint.mkdir(parents=True, exist_ok=True)
        (checkpoint / "state.txt").write_text(str(step))
        mark_complete(checkpoint)
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "weights.txt").write_text(f"{size}\\n")
    curves.write(arguments.curves)

def main(arguments, settings, run):
    if name == "sft":
        return train(arguments, settings, run)
    if name == "last":
        logger.info("begins")
        time.sleep(float(os.environ.get("LAST", "0")))
    arguments.out.write_text(f"{name} {settings.seed}\\n")

options = [Option("stage"), Option("out", Path)] + ([Option("curves", Path)] if name == "sft" else [])
run_stage(name, main, *options)
"""


class SweepClone(Scratch):
    """A clone with that pipeline, committed."""

    def __init__(self, folder: Path, stack: Environment, *, steps: int, pace: float = 0.1) -> None:
        folder.mkdir(exist_ok=True)
        self.pace, self.last, self.ledger = pace, 0.0, folder.parent / "ledger"
        super().__init__(folder, stack)
        (folder / "dvc.yaml").write_text(PIPELINE)
        (folder / "work.py").write_text(WORK)
        ignored = ["/.erv/", "/first.txt", "/models", "/curves.csv", "/last.txt", "__pycache__/"]
        (folder / ".gitignore").write_text("\n".join(ignored) + "\n")
        self.set("policy: erv", "policy: sft")
        self.set("max_steps: 400 ", f"max_steps: {steps} ")
        self.commit()

    def set(self, before: str, after: str) -> None:
        """Replaces a line's part in `params.yaml`."""
        path = self.folder / "params.yaml"
        text = path.read_text()
        assert before in text
        path.write_text(text.replace(before, after, 1))

    def commit(self) -> None:
        git = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org", "-C", str(self.folder)]
        subprocess.run([*git, "add", "-A"], check=True)
        subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "state"], check=True)

    def variables(self) -> dict[str, str]:
        more = {"LEDGER": str(self.ledger), "PACE": str(self.pace), "LAST": str(self.last)}
        return super().variables() | more

    def attempts(self) -> list[str]:
        """`BATCH_SIZE from STEP` of each attempt at the training, in their order."""
        return self.ledger.read_text().splitlines() if self.ledger.is_file() else []

    def table(self, name: str) -> list[dict[str, str]]:
        """The trials as `erv sweep table` shows them."""
        lines = self.erv("sweep", "table", name).stdout.splitlines()
        rows = [
            [cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")
        ]
        header, _, *found = rows
        return [dict(zip(header, row, strict=True)) for row in found]

    def processes_below(self) -> list[str]:
        """Command lines of what runs in the checkouts of sweeps."""
        import psutil

        inside, found = str(self.folder / ".erv" / "sweeps"), []
        for process in psutil.process_iter():
            try:
                if process.cwd().startswith(inside) and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(" ".join(process.cmdline()))
            except psutil.Error:
                continue
        return found


def size_of(row: dict[str, str]) -> int:
    """The batch size of a trial."""
    match = re.search(r"sft\.batch_size=(\d+)", row["parameters"])
    assert match
    return int(match[1])
