"""`python -m tests.chaos.one_stage NAME [--force]`: runs one stage as the flow does, without Prefect."""

from __future__ import annotations

import sys

from erv import pipeline
from erv.environment import child_environment, load_environment
from erv.errors import ErvError


def main() -> int:
    environment = load_environment()
    try:
        result = pipeline.repro(
            sys.argv[1],
            on_line=lambda line: print(line, flush=True),
            pull="--force" not in sys.argv and environment.has_storage,
            force="--force" in sys.argv,
            environment=child_environment(environment),
        )
    except ErvError as error:
        print(f"error: {error}", flush=True)
        return error.exit_code
    print(f"{result.name} {result.outcome}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
