"""One of several processes that train the smallest cold start: `tests.support.sft_process CLIPS BASE OUT`."""

import sys
from pathlib import Path

from tests.support.sft_policy import SETTINGS, read_clips, train


def main(clips: Path, base: Path, out: Path) -> None:
    train(
        base,
        read_clips(clips),
        out / "checkpoints",
        SETTINGS,
        output=out / "policy",
        on_metrics=lambda metrics, step: print(step, metrics, flush=True),
    )


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
