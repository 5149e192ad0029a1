"""docs/daily.md, run from top to bottom in one shell, as a reader would."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.e2e.workspace import Listener, Workspace, clone
from tests.support.paths import ROOT
from tests.support.receiver import Receiver

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(3000)]

PAGE = ROOT / "docs/daily.md"
# What ends otherwise than with 0: tiny policies learn nothing, so they pass no gate; a version used the clip.
ENDS = {"erv promote challenger": 1, "erv lineage --withdrawn": 3}
# Blocks in these languages aren't run here, for these reasons.
NOT_RUN = {"python": "answers a paused flow run by its id; tests/integration/test_promotion.py answers one"}
# Without completions that earn something, another weight of a reward would give the same policy.
ENOUGH = {
    "sft": {"max_steps": 200},
    "train_erv": {"max_steps": 300, "eval_steps": 100},
    "grpo": {"max_completion_length": 80},
    "evaluate": {"max_new_tokens": 80},
}
EDIT = """python - <<'END'
import re
from pathlib import Path
path = Path("params.yaml")
head, erv, rest = re.split(r"(?m)^(  erv:\\n)", path.read_text(), maxsplit=1)
path.write_text(head + erv + rest.replace("explanation: 1.0", "explanation: 0.5", 1))
END"""


def commands() -> list[str]:
    """The page's commands in their order, with the edit that its text asks for."""
    found: list[str] = []
    language: str | None = None  # of the block that the line is in
    for line in PAGE.read_text().replace("\\\n", " ").split("\n"):
        if line.lstrip().startswith("```"):
            language = line.strip().removeprefix("```") if language is None else None
            assert language in (None, "bash", *NOT_RUN), f"a block that nobody runs: {line}"
        elif language is None:
            found += [EDIT] if line == "## Change" else []
        elif language == "bash" and line.strip():
            found.append(line.strip())
    return found


def named(command: str) -> str:
    """What a command is called in what the session says and notes."""
    return re.sub(r"\s+#.*", "", command).split("\n")[0]


def expected_ends() -> list[tuple[str, int]]:
    """The page's commands and how each ends."""
    names = [named(command) for command in commands()]
    assert all(any(name.startswith(start) for name in names) for start in ENDS), "a command is gone"
    return [
        (name, next((code for start, code in ENDS.items() if name.startswith(start)), 0)) for name in names
    ]


def script(lines: list[str], hook: str) -> str:
    """One shell session: each command, and how it ended. What serves goes on in the background."""
    parts = ["trap 'kill $(jobs -p) 2>/dev/null' EXIT"]
    for line in lines:
        name = named(line)
        line = line.replace("https://hooks.example/T0/B0", hook)
        parts.append(f"printf '%s\\n' {_quoted('$ ' + name)}")
        if line.startswith("mlflow models serve"):
            line += " &\ncurl -sf --retry 120 --retry-connrefused --retry-delay 1 http://127.0.0.1:5001/ping"
        parts.append(f"{line}\nprintf '[%s] %s\\n' $? {_quoted(name)} >> ../ended.txt")
    return "\n".join(parts)


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    found = Receiver()
    yield found
    found.shutdown()


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory, foreign: Listener) -> Iterator[Workspace]:
    """What the page starts from: a pipeline that has run, committed, with a champion."""
    found = clone(tmp_path_factory.mktemp("daily"), foreign)
    (found.path / ".venv").symlink_to(sys.prefix)
    try:
        found.set_params(ENOUGH)
        found.run("git", "commit", "-q", "-a", "-m", "Enough to learn something")
        found.run("erv", "stack", "up")
        found.run("erv", "sample-data", "--size", "tiny", "--seed", "101", "--upload")
        found.run("erv", "data", "pin")
        found.run("erv", "run")
        found.run("erv", "promote", "1", "--force", "--reason", "the first one")
        found.run("git", "add", "-A")
        found.run("git", "commit", "-q", "-m", "First run")
        yield found
    finally:
        found.run("erv", "stack", "down", check=False)


@pytest.fixture(scope="module")
def session(workspace: Workspace, receiver: Receiver) -> tuple[Workspace, list[tuple[str, int]], str]:
    """The workspace after the page, how each command ended, and all that was said."""
    text = script(commands(), receiver.url)
    said = workspace.run("bash", "-c", text, check=False, timeout=2400).stdout
    noted = (workspace.path.parent / "ended.txt").read_text()
    ended = [(name, int(code)) for code, name in re.findall(r"^\[(\d+)\] (.*)$", noted, re.M)]
    return workspace, ended, said


def test_every_command_ends_as_the_page_says(session: tuple[Workspace, list[tuple[str, int]], str]) -> None:
    _, ended, said = session
    assert ended == expected_ends(), said[-8000:]


def test_the_page_s_story_is_told(
    session: tuple[Workspace, list[tuple[str, int]], str], receiver: Receiver
) -> None:
    workspace, _, said = session
    parts = re.split(r"^\$ ", said, flags=re.M)
    told = {part.split("\n")[0]: part for part in parts}
    assert "grpo@erv" in told["erv run --dry"]
    assert "variants.erv.rewards.explanation" in told["erv run --dry"]
    # Each by itself: the champion is the first run, and the workspace has the half weight.
    weight = "variants.erv.rewards.explanation"
    assert re.search(rf"{re.escape(weight)} 1(\.0)? → 0\.5$", told["erv compare champion ."], re.M)
    assert re.search(rf"{re.escape(weight)} 0\.5 → 0\.25$", told["erv compare HEAD quarter"], re.M)
    versions = json.loads(told["erv compare 1 2 --policy erv --json"].split("\n", 1)[1])
    assert versions["schema"] == "erv.compare/1"
    champions = workspace.run("erv", "champions").stdout
    assert "the test set is to be replaced" in champions
    assert "worse on children" in champions
    assert any("rollback" in text for text in receiver.texts())
    rows = pq.read_table(Path(workspace.environment["HOME"]) / "answers.parquet").to_pylist()
    assert [row["error"] for row in rows] == [None]
    assert (Path(workspace.environment["HOME"]) / "champion-folder/config.json").is_file()


def test_nothing_is_left_running(session: tuple[Workspace, list[tuple[str, int]], str]) -> None:
    workspace, _, _ = session
    left = workspace.processes()
    for process in left:
        os.kill(process.pid, signal.SIGKILL)
    assert left == []
