"""Which answers of `erv predict` are kept for later runs, and what it never writes over."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from erv.commands.predict import command
from erv.errors import EvaluationError
from erv.media.workers import isolated
from erv.predict import predict as module
from erv.predict.listing import ListedClip, list_clips
from erv.predict.predict import predict, require_own_file
from erv.register.fetched import FetchedVersion


class Saying:
    """A version that says the same error of every clip, or answers; a process of MLflow otherwise."""

    error: str | None = None

    def __init__(self, *_: object) -> None:
        pass

    def __enter__(self) -> Saying:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def ask(self, paths: Sequence[Path], clips: Sequence[ListedClip]) -> list[dict[str, Any]]:
        return [{"completion": None if self.error else "yes", "error": self.error} for _ in paths]


def outcome(error: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """How many rows of an earlier run are taken when this one says `error`."""
    monkeypatch.setattr(module, "Answering", Saying)
    monkeypatch.setattr(Saying, "error", error)
    version = FetchedVersion("tiny", "1", "a" * 64, "b" * 64, tmp_path, tmp_path, {})
    return predict(version, list_clips(tmp_path / "clips"), tmp_path / "a.parquet", tmp_path / "kept").kept


@pytest.fixture(autouse=True)
def clips(tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips/a.mp4").write_bytes(b"a")


@pytest.mark.parametrize(
    "error", ["not done within 30 s", "needs more than 2000 MB", "decoder process died (signal 9)"]
)
def test_what_the_machine_could_not_do_is_asked_again(
    error: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was kept as the answer, and repeated by every later run."""
    assert outcome(error, tmp_path, monkeypatch) == 0
    assert pq.read_table(tmp_path / "a.parquet").column("error").to_pylist() == [error]
    assert outcome(None, tmp_path, monkeypatch) == 0
    assert pq.read_table(tmp_path / "a.parquet").column("completion").to_pylist() == ["yes"]
    assert outcome(error, tmp_path, monkeypatch) == 1


def test_what_is_wrong_with_a_clip_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert outcome("the file is empty", tmp_path, monkeypatch) == 0
    assert outcome(None, tmp_path, monkeypatch) == 1


def test_an_earlier_erv_s_kept_error_is_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as before:
        before.setattr(module, "_lasts", lambda table: True)
        assert outcome("not done within 30 s", tmp_path, before) == 0
    assert outcome(None, tmp_path, monkeypatch) == 0


def test_the_words_are_those_of_the_workers() -> None:
    (late,) = isolated(time.sleep, [60.0], workers=1, seconds=0.2)
    (large,) = isolated(bytes, [2_000_000_000], workers=1, seconds=60.0, memory_mb=200)
    for item in (late, large):
        assert module._FOR_NOW.fullmatch(str(item.failure)), item.failure


def test_a_manifest_is_not_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its place was taken by the answers."""
    (tmp_path / "mafw.parquet").write_bytes(b"manifest")
    (tmp_path / "link.parquet").symlink_to("mafw.parquet")
    monkeypatch.chdir(tmp_path)
    for output in ("mafw.parquet", "link.parquet", str(tmp_path / "clips/../mafw.parquet")):
        result = CliRunner().invoke(command, ["mafw.parquet", "--output", output])
        assert result.exit_code == 2
        assert f"--output {output} is the manifest that is read; name another file" in result.output
    assert (tmp_path / "mafw.parquet").read_bytes() == b"manifest"


def test_another_subtitle_is_another_question(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or an answer to another question would be taken from an earlier run."""
    heard: list[tuple[str | None, str | None]] = []

    def ask(self: Saying, paths: Sequence[Path], clips: Sequence[ListedClip]) -> list[dict[str, Any]]:
        heard.extend((clip.dataset, clip.subtitle) for clip in clips)
        return [{"completion": "yes", "error": None} for _ in paths]

    monkeypatch.setattr(module, "Answering", Saying)
    monkeypatch.setattr(Saying, "ask", ask)
    version = FetchedVersion("tiny", "1", "a" * 64, "b" * 64, tmp_path, tmp_path, {})
    listing = list_clips(tmp_path / "clips")
    for subtitle, kept in (("You came!", 0), ("You came!", 1), ("Go!", 0)):
        clips = tuple(replace(clip, dataset="mafw", subtitle=subtitle) for clip in listing.clips)
        found = predict(version, replace(listing, clips=clips), tmp_path / "a.parquet", tmp_path / "kept")
        assert found.kept == kept
    assert heard == [("mafw", "You came!"), ("mafw", "Go!")]


@pytest.mark.parametrize("takes", [("clip", "content"), ("clip", "content", "dataset", "subtitle")])
def test_a_version_whose_code_leaves_lines_out_is_not_asked(
    takes: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An older erv's code asks without them, whatever this one tells it."""
    from mlflow.models import Model, ModelSignature
    from mlflow.types.schema import AnyType, ColSpec, Schema

    (tmp_path / "policy").mkdir()
    content = {"instruction": "One of {labels}?\n{subtitle}"}
    (tmp_path / "policy/processor_config.json").write_text(json.dumps(content))
    schema = Schema([ColSpec(AnyType(), name, required=False) for name in takes])
    Model(signature=ModelSignature(inputs=schema)).save(str(tmp_path / "MLmodel"))
    if "subtitle" in takes:
        assert outcome(None, tmp_path, monkeypatch) == 0
        return
    with pytest.raises(EvaluationError) as refused:
        outcome(None, tmp_path, monkeypatch)
    assert str(refused.value) == (
        "tiny version 1: its question has {labels} and {subtitle}, which the erv that published it leaves"
        " out; run `dvc repro register` and `erv publish`, and ask the new version"
    )


def test_only_what_predict_wrote_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any other file was replaced without a word: another manifest, or a table of somebody's work."""
    other, notes = tmp_path / "dfew.parquet", tmp_path / "notes.txt"
    pq.write_table(pa.table({"clip_id": ["1"]}), other)
    notes.write_text("of hours")
    before = other.read_bytes()
    (tmp_path / "link.parquet").symlink_to("dfew.parquet")
    for output in (other, notes, tmp_path / "link.parquet"):
        result = CliRunner().invoke(command, [str(tmp_path / "clips"), "--output", str(output)])
        assert str(result.exception) == (
            f"{output}: is there already, and `erv predict` did not write it; name another file, or move this"
            " one away"
        )
    assert other.read_bytes() == before
    assert notes.read_text() == "of hours"
    outcome(None, tmp_path, monkeypatch)
    require_own_file(tmp_path / "a.parquet")
    require_own_file(tmp_path / "new.parquet")
