"""One training by grpo as its stage runs it, in this process: `python -m benchmarks.gpu.training_run SPEC`.

SPEC is a JSON file: `policy`, `shards` (its name is the data set's), `output`, `checkpoints` and `metrics`
are paths; `grpo`, `lora`, `machine`, `grpo_machine` and `runtime` replace parameters; after the step
`kill_after` the process kills itself with SIGKILL. Each step's metrics become a line of JSON in `metrics`.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from erv.settings import load_settings
from erv.shards import ShardReader
from erv.training.grpo.grpo import train_grpo
from erv.training.grpo.watch import quiet_libraries


def reward(completions: list[Any], completion_ids: list[list[int]], **columns: Any) -> list[float]:
    """A reward that costs nothing and differs within a group."""
    return [float(sum(ids) % 7) for ids in completion_ids]


def main() -> None:
    """Trains as the specification says."""
    given = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    settings, shards = load_settings(), Path(given["shards"])
    lora = settings.grpo.lora.model_copy(update=given["lora"])
    grpo = settings.grpo.model_copy(update=given["grpo"] | {"lora": lora})
    passes = settings.machine.grpo.model_copy(update=given["grpo_machine"])
    machine = settings.machine.model_copy(update=given["machine"] | {"grpo": passes})
    reader = ShardReader(shards)
    content = [{"role": "user", "content": _question()}]
    rows = [{"prompt": content, "clip": f"{shards.name}/{key}"} for key in reader.clip_ids]

    def note(metrics: dict[str, float], step: int) -> None:
        with Path(given["metrics"]).open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({"step": step} | metrics) + "\n")
        if step == given["kill_after"]:
            os.kill(os.getpid(), signal.SIGKILL)

    with quiet_libraries():
        train_grpo(
            Path(given["policy"]),
            rows,
            {shards.name: reader},
            [("tokens", reward, 1.0)],
            grpo,
            output=Path(given["output"]),
            checkpoints=Path(given["checkpoints"]),
            on_metrics=note,
            seed=0,
            runtime=settings.runtime.model_copy(update=given["runtime"]),
            machine=machine,
        )


def _question() -> str:
    from erv.prompts import user_content

    return user_content()


if __name__ == "__main__":
    main()
