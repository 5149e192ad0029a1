"""What is in the workspace: commit, parameters, pipeline and pins."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

from erv.doctor.finding import Finding, some
from erv.environment import Environment, sample_remedy
from erv.errors import DataError, ErvError, SettingsError
from erv.tracking.origin import uncommitted

# Where servers are shared, the pins are, too; a sample of one's own would replace everybody's data.
TAKE_PINS = "take data/sources/*.lock.json from your team's commit, or pin the trees with `erv data pin`"


def git(environment: Environment) -> Iterator[Finding]:
    """The commit that runs refer to."""
    commit = _output(["git", "-C", str(environment.workspace), "rev-parse", "--short", "HEAD"])
    if commit is None:
        yield Finding(
            "git", "fail", "no commit here", "`git init && git add . && git commit`: DVC and runs refer to it"
        )
        return
    changed = uncommitted(environment.workspace)
    if changed is None:
        state = "and git can't say what differs from it"
    else:
        state = _differ(len(changed)) if changed else "clean"
    yield Finding("git", "ok", f"commit {commit}, {state}")


def _differ(count: int) -> str:
    return "1 file differs from it" if count == 1 else f"{count} files differ from it"


def _output(command: list[str]) -> str | None:
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() if result.returncode == 0 else None


def parameters(environment: Environment) -> Iterator[Finding]:
    """Faults of `params.yaml` and of label spaces."""
    from erv.labels import label_space_faults
    from erv.settings import load_settings

    try:
        settings = load_settings(environment.workspace / "params.yaml")
    except SettingsError as error:
        yield Finding("params", "fail", str(error).replace("\n", " "), "correct params.yaml")
        return
    yield Finding("params", "ok", "params.yaml has no faults")
    for fault in label_space_faults(environment.workspace, settings.datasets):
        yield Finding("params", "fail", fault, "correct the label space")


def pipeline(environment: Environment) -> Iterator[Finding]:
    """Whether `dvc.yaml` can be read."""
    from erv.pipeline import check_definitions

    check_definitions(environment.workspace)
    yield Finding("pipeline", "ok", "dvc.yaml can be read")


def sources(environment: Environment) -> Iterator[Finding]:
    """Whether every source is pinned where `params.yaml` says."""
    from erv.settings import load_settings
    from erv.sources import Lock

    try:
        sources = load_settings(environment.workspace / "params.yaml").sources.model_dump()
    except ErvError:
        return
    folder = environment.workspace / "data" / "sources"
    missing, other, damaged = [], [], []
    for name, uri in sources.items():
        path = folder / f"{name}.lock.json"
        try:
            if not path.exists():
                missing.append(name)
            elif Lock.load(path).uri != uri:
                other.append(name)
        except (DataError, OSError) as error:
            damaged.append(name)
            reason = " ".join(str(error).split())[:300]
            yield Finding("sources", "fail", reason, f"`erv data pin {name}`")
    if missing:
        sample = sample_remedy(environment.workspace)
        remedy = f"{sample}, or `erv data pin`" if sample else TAKE_PINS
        yield Finding("sources", "fail", f"not pinned: {some(missing)}", remedy)
    if other:
        yield Finding(
            "sources", "warn", f"not pinned where params.yaml says: {some(other)}", "`erv data pin`"
        )
    if not missing and not other and not damaged:
        yield Finding("sources", "ok", f"all {len(sources)} are pinned")
