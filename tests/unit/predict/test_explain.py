"""Files that `erv explain` can't ask about: no model is loaded for them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from erv.answering.clips import LONGEST_NAME
from erv.answering.events import Error
from erv.answering.requests import Request
from erv.commands.explain import command
from erv.errors import RegistryError
from erv.predict.explain import explained


def test_each_has_its_reason(tmp_path: Path) -> None:
    deep = tmp_path / Path(*["d" * 200] * (LONGEST_NAME // 200 + 1)) / "a.mp4"
    deep.parent.mkdir(parents=True)
    deep.write_bytes(b"a")
    raw = tmp_path / "\udcff.mp4"
    raw.write_bytes(b"a")
    clips = [tmp_path, tmp_path / "gone.mp4", deep, raw]
    found = list(explained(None, clips, Request(), device="cpu", log=tmp_path / "log"))
    assert [asked.clip for asked in found] == clips
    ends = [list(asked.events) for asked in found]
    assert all(isinstance(end, Error) and end.code == "clip" for (end,) in ends)
    assert [end.sentence for (end,) in ends] == [
        "a folder; name its clips, or ask about all with `erv predict`",
        "no such file",
        "its path is too long; move it up",
        "its path is not UTF-8; rename it",
    ]


def test_the_command_tells_programs_and_ends_with_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle/serving.json").write_text("{}")
    result = CliRunner().invoke(command, ["gone.mp4", ".", "--bundle", "bundle", "--json"])
    assert result.exit_code == 1
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line["clip"] for line in lines] == ["gone.mp4", "."]
    assert lines[0].keys() == {"clip", "model", "version", "bundle", "error", "code"}
    assert (lines[0]["model"], lines[0]["version"], lines[0]["error"]) == (None, None, "no such file")


def test_a_folder_that_is_no_bundle_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.mp4").write_bytes(b"a")
    result = CliRunner().invoke(command, ["a.mp4", "--bundle", "."])
    assert isinstance(result.exception, RegistryError)
    assert str(result.exception).startswith(". is no bundle: it has no serving.json that can be read; name")
