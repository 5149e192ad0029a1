"""One part of the GPU proof, in this process: `python -m benchmarks.gpu.one_part grpo --out FILE`."""

from __future__ import annotations

import argparse
import importlib
import sys
import tempfile
import traceback
from pathlib import Path

from benchmarks.gpu.figures import Context, Figures, Lacks
from benchmarks.gpu.parts import BY_NAME
from benchmarks.workspace import positive

LACKS = 3  # exit code; the last line of stderr says what


def run(name: str, context: Context) -> int:
    """Runs a part: 0 if it found no fault, 1 if it did, `LACKS` if it can't run here."""
    from erv.determinism import seed_everything
    from erv.settings import load_settings
    from erv.training.grpo.watch import quiet_libraries

    module, _, function = BY_NAME[name].code.partition(":")
    seed_everything(0, load_settings().runtime.threads)
    try:
        with quiet_libraries():
            getattr(importlib.import_module(f"benchmarks.gpu.{module}"), function)(context)
    except Lacks as error:
        print(error, file=sys.stderr)
        return LACKS
    except Exception as error:
        traceback.print_exc()
        context.figures.fail(f"{type(error).__name__}: {' '.join(str(error).split())[:400]}")
    return 1 if context.figures.faults else 0


def main() -> int:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=list(BY_NAME))
    parser.add_argument("--size", required=True)
    parser.add_argument("--device", choices=["cuda", "cpu"], required=True)
    parser.add_argument("--rounds", type=positive, default=3)
    parser.add_argument("--out", type=Path, required=True)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="gpu-proof-", ignore_cleanup_errors=True) as folder:
        context = Context(
            chosen.size, chosen.device, chosen.rounds, Path(folder).resolve(), Figures(chosen.out)
        )
        return run(chosen.part, context)


if __name__ == "__main__":
    sys.exit(main())
