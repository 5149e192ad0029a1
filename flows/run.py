"""Runs the train flow in this process, and says in words and by its exit code how it ended.

    python -m flows.run [TARGET... | --only STAGE] [--force] [--workers N]
                        [--profile NAME] [--set NAME=VALUE]... [--placement STAGE=POOL]...

`erv run` starts it with the addresses of the stack.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prefect import tags

from erv.environment import load_environment
from erv.errors import ErvError, ExitCode
from erv.pipeline import read_stages
from erv.remote.placement import places, read_placement
from erv.stack.reach import require, unreachable
from erv.sweep.tracked import sweep_tags
from erv.tracking.origin import who
from flows import below_sweep, console
from flows.ending import ending
from flows.team import model_here, run_by, tag_of
from flows.train import WORKERS, train
from flows.wanted import Wanted


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the flow in this process.

    Returns:
        The exit code of `erv run`, see `erv.errors.EXIT_CODES`.
    """
    parser = argparse.ArgumentParser(prog="python -m flows.run", description="Runs the train flow.")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="stage or group; all by default")
    parser.add_argument("--only", metavar="STAGE", help="one stage to run alone, in place of targets")
    parser.add_argument("--force", action="store_true", help="run the targets even if nothing changed")
    parser.add_argument("--require-gates", action="store_true", help="exit with 3 unless all are passed")
    parser.add_argument("--require-lineage", action="store_true", help="exit with 4 unless it holds")
    parser.add_argument("--workers", type=int, default=WORKERS, help="stages in parallel (%(default)s)")
    parser.add_argument("--profile", metavar="NAME", help="write this profile into params.yaml first")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="write this parameter first"
    )
    parser.add_argument(
        "--placement", action="append", default=[], metavar="STAGE=POOL", help="send this stage elsewhere"
    )
    options = parser.parse_args(arguments)
    if sweep_tags():  # it proposes the best trial of a sweep
        below_sweep.ends_in_order()
    console.leave_out_what_is_printed()
    url, workspace = None, Path.cwd()
    try:
        url = require("Prefect", load_environment(workspace).prefect_api_url, workspace)
        if options.profile is None and not options.set:  # which may change what stages there are
            Wanted(options.targets or None, options.force, options.only).check()
            if options.placement:
                places(read_stages(), read_placement(options.placement))
        with tags(tag_of(model_here()), run_by(who(workspace), workspace)):
            state: Any = train(
                profile=options.profile or "",
                targets=options.targets,
                overrides=options.set,
                force=options.force,
                workers=options.workers,
                only=options.only or "",
                placement=options.placement,
                return_state=True,
            )
    except ErvError as error:
        return _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        return _fail(console.INTERRUPTED, ExitCode.CANCELLED)
    except Exception:
        # The client of Prefect raises errors of several libraries; by then it has tried for a minute.
        if url is None or (fault := unreachable("Prefect", f"{url}/health", workspace)) is None:
            raise
        return _fail(f"{fault}; it was lost in mid-run, finished work is kept: run the same command again")
    if state.is_completed():
        summary = state.result()
        print(summary.text())  # noqa: T201
        if options.require_lineage and not summary.lineage_holds:
            return _fail("the lineage of the version doesn't hold, or none was registered", ExitCode.LINEAGE)
        if options.require_gates and not summary.gates_passed:
            return _fail("not every gate is passed, or no version was registered", ExitCode.UNMET)
        return ExitCode.DONE
    return _fail(*ending(state))


def _fail(message: str, code: ExitCode = ExitCode.ERROR) -> int:
    print(f"error: {message}", file=sys.stderr)  # noqa: T201
    return code


if __name__ == "__main__":
    sys.exit(main())
