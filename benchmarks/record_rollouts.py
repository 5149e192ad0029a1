"""Records what a policy writes during GRPO, for `benchmarks/verifier.py`.

    python benchmarks/record_rollouts.py

Run it in the workspace after `make demo`. It trains the variant `erv` again, as the stage does, and keeps the
first 64 completions of every step (8 clips, 8 each) with their truths.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for `benchmarks`

from benchmarks.workspace import demanded, settings_demanded

RECORDED = Path(__file__).with_name("rollouts.parquet")
KEPT = 64


class Recorder:
    """A reward of zero that records what it is asked about."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self._step = 0

    def __call__(self, completions: list[Any], **columns: Any) -> list[float]:
        """Records a step."""
        from erv.prompts import completion_text

        for text, truth, dataset in zip(
            completions[:KEPT], columns["solution"], columns["dataset"], strict=False
        ):
            row = {
                "step": self._step,
                "completion": completion_text(text),
                "truth": truth,
                "dataset": dataset,
            }
            self.rows.append(row)
        self._step += 1
        return [0.0] * len(completions)


def main() -> None:
    """Trains and writes the completions."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--variant", default="erv")
    parser.add_argument("--out", type=Path, default=RECORDED)
    arguments = parser.parse_args()
    demanded(Path(), "params.yaml", "models/policy/sft", "models/verifier", "data/shards", "data/manifest")

    import pyarrow as pa

    from erv.manifest import read_manifest, write_table
    from erv.rewards import Shaping, build_rewards
    from erv.shards import ShardReader
    from erv.training.grpo.grpo import build_rows, train_grpo, variant_settings
    from erv.verifier import EmotionVerifier

    settings = settings_demanded(Path())
    names = settings.roles.train
    shards = {name: ShardReader(Path("data/shards") / name) for name in names}
    rewards = build_rewards(
        variant_settings(settings.variants, arguments.variant).rewards,
        EmotionVerifier.from_pretrained("models/verifier"),
        settings.grpo.semantics,
        shaping=Shaping(**settings.grpo.shaping.model_dump()),
    )
    recorder = Recorder()
    with tempfile.TemporaryDirectory() as folder:
        train_grpo(
            Path("models/policy/sft"),
            build_rows([read_manifest(Path(f"data/manifest/{name}.parquet")) for name in names], shards),
            shards,
            [*rewards, ("recorder", recorder, 0.0)],
            settings.grpo,
            output=Path(folder) / "policy",
            checkpoints=Path(folder) / "checkpoints",
            on_metrics=lambda metrics, step: print(f"step {step} of {settings.grpo.max_steps}", flush=True),
            seed=settings.seed,
            runtime=settings.runtime,
            machine=settings.machine,
        )
    write_table(pa.Table.from_pylist(recorder.rows), arguments.out)
    print(f"{arguments.out}: {len(recorder.rows)} completions")


if __name__ == "__main__":
    main()
