"""What people say is never lost, and becomes a data set that the reader of reasoning sets takes."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from erv.answering.events import Done, Seconds, Usage
from erv.app.export import TABLE, Exported, export
from erv.app.feedback import JOURNAL, SENT, Feedback, LineRefused, Opinion, latest, read_lines
from erv.app.given import Given
from erv.errors import DataError, StackError
from erv.ingest.ingest import ingest
from erv.ingest.readers.by_name import selection_of
from erv.pinning import pin
from erv.register.opened import Opened
from erv.settings import IngestSettings
from tests.support.tiny_bundle import write_clip

DONE = Done(
    "anger", "He shouts.", "<think>He shouts.</think>\n<answer>anger</answer>", 1.0, (), "stop",
    Usage(5, 5), Seconds(0.1, 0.2, 0.3), 9.0,
)  # fmt: skip
GIVEN = Given("a1", Opened("tiny", "3", "b" * 64, Path("bundle")), "my clip.mp4", "c" * 64, None, None, DONE)


def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def said(folder: Path) -> list[dict[str, Any]]:
    return [line["said"] for line in latest(folder)]


def test_the_last_word_about_an_answer_counts(tmp_path: Path) -> None:
    feedback = Feedback(tmp_path / "app")
    for opinion in (Opinion("up"), Opinion("down", emotion="fear")):
        feedback.add(GIVEN, opinion)
    assert not feedback.tell(), "there is no MLflow"
    feedback.add(replace(GIVEN, id="a2"), Opinion("up"))
    assert [one["thumb"] for one in said(tmp_path / "app")] == ["down", "up"]
    assert len((tmp_path / "app" / JOURNAL).read_text().splitlines()) == 3
    assert (tmp_path / "app").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "app" / JOURNAL).stat().st_mode & 0o777 == 0o600


def test_a_line_that_a_crash_cut_off_costs_no_other(tmp_path: Path) -> None:
    feedback = Feedback(tmp_path)
    feedback.add(GIVEN, Opinion("up"))
    with (tmp_path / JOURNAL).open("a") as stream:
        stream.write('{"at": "2026-')
    assert len(said(tmp_path)) == 1
    feedback.add(replace(GIVEN, id="a2"), Opinion("down"))
    assert [one["thumb"] for one in said(tmp_path)] == ["up", "down"]
    damaged = (tmp_path / JOURNAL).read_text().replace('{"at"', '{"at', 1)
    (tmp_path / JOURNAL).write_text(damaged)
    with pytest.raises(DataError, match="line 1: damaged"):
        latest(tmp_path)


def test_mlflow_is_told_once_and_what_it_missed_later(tmp_path: Path) -> None:
    told: list[str] = []
    away = True

    def send(line: Mapping[str, Any]) -> None:
        if away:
            raise StackError("MLflow is away")
        told.append(line["answer"]["id"])

    feedback = Feedback(tmp_path, send)
    feedback.add(GIVEN, Opinion("up"))
    assert not feedback.tell()
    away = False
    feedback.add(replace(GIVEN, id="a2"), Opinion("up"))
    assert feedback.tell()
    assert told == ["a1", "a2"]
    assert Feedback(tmp_path, send).tell()
    assert told == ["a1", "a2"]


def test_nobody_waits_for_mlflow(tmp_path: Path) -> None:
    asked, answers, told = threading.Event(), threading.Event(), threading.Event()

    def send(_: Mapping[str, Any]) -> None:
        asked.set()
        assert answers.wait(30)
        told.set()

    feedback = Feedback(tmp_path, send)
    feedback.keep_telling()
    feedback.add(GIVEN, Opinion("up"))
    assert asked.wait(30), "it is told in the background"
    feedback.add(replace(GIVEN, id="a2"), Opinion("up"))
    assert feedback.keep("b.mp4", b"film")
    assert len(said(tmp_path)) == 2
    assert not told.is_set()
    answers.set()
    until(lambda: (tmp_path / SENT).exists() and len(list(read_lines(tmp_path / SENT))) == 2)


def test_a_line_that_mlflow_refuses_keeps_no_other(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    told: list[str] = []

    def send(line: Mapping[str, Any]) -> None:
        if line["answer"]["id"] == "a1":
            raise LineRefused("MLflow says no")
        told.append(line["said"]["thumb"])

    feedback = Feedback(tmp_path, send)
    feedback.add(GIVEN, Opinion("up"))
    for thumb in ("up", "down"):
        feedback.add(replace(GIVEN, id="a2"), Opinion(thumb))  # type: ignore[arg-type]
    assert not feedback.tell()
    assert told == ["down"], "what was said before is not told after it"
    assert "'my clip.mp4'" in caplog.text
    assert "MLflow says no" in caplog.text


def test_a_damaged_journal_is_named_and_ends_no_thread(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    told = threading.Event()
    feedback = Feedback(tmp_path, lambda _: told.set())
    (tmp_path / JOURNAL).write_text("{\n")
    feedback.keep_telling()
    until(lambda: "line 1: damaged" in caplog.text)
    (tmp_path / JOURNAL).unlink()
    feedback.add(GIVEN, Opinion("up"))
    assert told.wait(30)


def test_kept_clips_have_names_of_their_content(tmp_path: Path) -> None:
    feedback = Feedback(tmp_path)
    names = [feedback.keep(name, b"film") for name in ("a.MP4", "../../b.webm", "c.e/../x", "d")]
    names += [feedback.keep("b.webm", b"other"), feedback.keep("c.sh;ell", b"third")]
    assert [Path(name).suffix for name in names] == [".mp4"] * 4 + [".webm", ".mp4"]
    assert sorted(path.name for path in (tmp_path / "clips").iterdir()) == sorted(set(names))


APPROVED = Opinion("up")
CORRECTED = Opinion("down", emotion="fear", explanation="His hands shake, and he steps back.")


def test_an_export_is_read_as_a_reasoning_set(tmp_path: Path) -> None:
    feedback = Feedback(tmp_path / "app")
    kept = []
    for seed in range(3):
        content = write_clip(tmp_path / "clip.mp4", seed=seed).read_bytes()
        kept.append(feedback.keep("clip.mp4", content))
    opinions = [
        (kept[0], APPROVED),
        (kept[1], CORRECTED),
        (kept[2], Opinion("up")),
        (kept[0], Opinion(preferred=True)),
        (None, APPROVED),
        (kept[2], Opinion("down")),
        (kept[2], Opinion("down", emotion="fear")),
    ]
    for number, (clip, opinion) in enumerate(opinions):
        given = replace(
            GIVEN, id=f"a{number}", kept=clip, subtitle="You, “here”?\nNo!" if number < 2 else None
        )
        feedback.add(given, opinion)
    output = tmp_path / "round-2"
    assert export(tmp_path / "app", output) == Exported(3, without_clip=1, without_text=3)
    first = {path.name: path.read_bytes() for path in output.rglob("*") if path.is_file()}
    assert export(tmp_path / "app", tmp_path / "again") == Exported(3, 1, 3)
    assert {p.name: p.read_bytes() for p in (tmp_path / "again").rglob("*") if p.is_file()} == first

    git = ["git", "-C", str(tmp_path)]
    subprocess.run([*git, "init", "-q"], check=True)
    status = subprocess.run(
        [*git, "status", "--porcelain", "--untracked-files=all", "round-2"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert status.stdout == "", "clips of people would be committed"

    reader = IngestSettings(
        fold=1, validation_share=0.0, expect="full", max_excluded_share=0.0,
        readers={"reasoning": {"reader": "reasoning"}},
    )  # fmt: skip
    lock = pin("reasoning", str(output), None, selection=selection_of(reader.readers["reasoning"]))
    rows = {row.clip_id: row for row in ingest("reasoning", lock, None, reader, seed=0).rows}
    assert sorted(rows) == sorted(Path(name).stem for name in kept)
    assert rows[Path(kept[0]).stem].completion == DONE.completion
    corrected = rows[Path(kept[1]).stem]
    assert (corrected.label, corrected.subtitle) == ("fear", "You, “here”? No!")
    assert corrected.completion == (
        "<think>His hands shake, and he steps back.</think>\n<answer>fear</answer>"
    )


def test_the_better_one_of_two_wrong_answers_is_no_example(tmp_path: Path) -> None:
    feedback = Feedback(tmp_path / "app")
    name = feedback.keep("a.mp4", b"film")
    feedback.add(replace(GIVEN, kept=name), Opinion(preferred=True, beside="a2"))
    feedback.add(replace(GIVEN, id="a2", kept=name), Opinion(preferred=False, beside="a1"))
    with pytest.raises(DataError, match="0 answers whose clip was not kept, 2 without approval"):
        export(tmp_path / "app", tmp_path / "out")


def test_an_emotion_that_the_answer_names_in_other_words_corrects_nothing(tmp_path: Path) -> None:
    feedback = Feedback(tmp_path / "app")
    name = feedback.keep("a.mp4", b"film")
    angry = replace(GIVEN, kept=name, name="anger", done=replace(DONE, answer="Angry."))
    feedback.add(angry, Opinion("up", emotion="anger"))
    assert export(tmp_path / "app", tmp_path / "out").rows == 1
    table = (tmp_path / "out" / TABLE).read_text()
    assert f"{name},anger,,He shouts." in table
    feedback.add(angry, Opinion("up", emotion="fear"))
    with pytest.raises(DataError, match="no feedback to export"):
        export(tmp_path / "app", tmp_path / "again")


def test_nothing_is_written_over_or_half(tmp_path: Path) -> None:
    feedback = Feedback(tmp_path / "app")
    with pytest.raises(
        DataError, match="no feedback to export: 0 answers whose clip was not kept, 0 without"
    ):
        export(tmp_path / "app", tmp_path / "out")
    name = feedback.keep("a.mp4", b"film")
    feedback.add(replace(GIVEN, kept=name), APPROVED)
    (tmp_path / "app/clips" / name).unlink()
    with pytest.raises(DataError, match="a kept clip is gone"):
        export(tmp_path / "app", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (tmp_path / "out").mkdir()
    (tmp_path / "out/notes.txt").write_text("of hours")
    with pytest.raises(DataError, match="is there already"):
        export(tmp_path / "app", tmp_path / "out")


def test_the_journal_is_plain(tmp_path: Path) -> None:
    Feedback(tmp_path).add(GIVEN, CORRECTED)
    (line,) = [json.loads(text) for text in (tmp_path / JOURNAL).read_text().splitlines()]
    assert line["version"] == {"name": "tiny", "number": "3", "bundle": "b" * 64}
    assert line["clip"] == {"name": "my clip.mp4", "sha256": "c" * 64, "kept": None, "subtitle": None}
    assert line["said"]["explanation"] == CORRECTED.explanation
