"""The origin of a report, in the copy that a run keeps."""

from __future__ import annotations

import logging
import subprocess
from pathlib import Path

import pytest

from erv.environment import Environment
from erv.errors import EvaluationError
from erv.report.origin import MARK, Fact, with_origin
from erv.settings import load_settings
from erv.tracking.origin import committed_on
from flows.origin import report_with_origin
from tests.support.paths import ROOT


def test_the_page_names_its_origin_as_text() -> None:
    page = with_origin(
        f"<main>{MARK}</main>",
        [
            Fact("commit", "abc1234"),
            Fact("version", "<b>m</b> 3"),
            Fact("MLflow", "run", "http://127.0.0.1/#/1"),
        ],
    )
    assert "<tr><th>commit</th><td>abc1234</td></tr>" in page
    assert "&lt;b&gt;m&lt;/b&gt; 3" in page
    assert '<a href="http://127.0.0.1/#/1">run</a>' in page
    assert MARK not in page


def test_a_page_without_room_for_it_is_refused() -> None:
    with pytest.raises(EvaluationError, match="dvc repro report"):
        with_origin("<main></main>", [])


def test_the_day_of_a_file_is_that_of_its_commit_while_it_is_as_committed(tmp_path: Path) -> None:
    def git(*words: str) -> None:
        who = ("-c", "user.name=t", "-c", "user.email=t@example.org")
        subprocess.run(["git", *who, *words], cwd=tmp_path, check=True, capture_output=True)

    lock = tmp_path / "a.json"
    assert committed_on(tmp_path, Path("a.json")) is None  # no repository
    git("init", "-q")
    lock.write_text("{}")
    assert committed_on(tmp_path, Path("a.json")) is None
    git("add", ".")
    git("commit", "-q", "-m", "pin", "--date", "2026-01-02T12:00:00")
    day = subprocess.run(
        ["git", "log", "-1", "--format=%cs"], cwd=tmp_path, capture_output=True, text=True, check=True
    ).stdout.strip()
    assert committed_on(tmp_path, Path("a.json")) == day
    lock.write_text("[]")
    assert committed_on(tmp_path, Path("a.json")) is None
    (tmp_path / ".gitignore").write_text("b.json")
    (tmp_path / "b.json").write_text("{}")
    assert committed_on(tmp_path, Path("b.json")) is None


STARTED = {"erv.git_commit": "c0ffee", "erv.git_dirty": "true"}


def test_a_kept_page_without_room_for_it_is_logged_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    settings = load_settings(ROOT / "params.yaml")
    monkeypatch.chdir(tmp_path)
    Path("report").mkdir()
    addresses = {"report": "http://mlflow.example/report.html", "report file": "/here/report.html"}

    def page(text: str) -> str:
        Path("report/report.html").write_text(text)
        return report_with_origin(
            Environment(tmp_path), settings, None, addresses, STARTED, logging.getLogger("it")
        )

    assert page("<main>old</main>") == "<main>old</main>"
    assert "has no place for its origin" in caplog.text
    caplog.clear()
    told = page(f"<main>{MARK}</main>")
    assert "none was registered" in told
    assert "c0ffee, with uncommitted changes" in told  # of the start; there is no repository by now
    assert 'href="http://mlflow.example/report.html"' in told
    assert "/here/report.html" not in told
    assert caplog.text == ""
