"""Checkpoints: keyed by content, complete or not at all."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from erv.checkpoints import (
    RECORD,
    checkpoint_folder,
    clear,
    discard_unusable,
    is_complete,
    is_intact,
    keep_newest,
    latest_checkpoint,
    mark_complete,
    reward_files,
)
from erv.errors import DataError
from erv.settings import LoraSettings


def write_checkpoint(folder: Path, step: int, complete: bool = True) -> Path:
    checkpoint = folder / f"checkpoint-{step}"
    (checkpoint / "nested").mkdir(parents=True)
    (checkpoint / "model.safetensors").write_bytes(b"weights" * step)
    (checkpoint / "nested" / "state.json").write_text("{}")
    if complete:
        mark_complete(checkpoint)
    return checkpoint


def test_the_last_good_checkpoint_stays_beside_the_newest(tmp_path: Path) -> None:
    for step in (2, 4, 6, 8, 10):
        write_checkpoint(tmp_path, step)
    keep_newest(tmp_path, 2, last_good=5)
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == ["checkpoint-10", "checkpoint-4", "checkpoint-8"]
    keep_newest(tmp_path, 2, last_good=1)  # there is none that old
    assert len(list(tmp_path.iterdir())) == 2
    latest = latest_checkpoint(tmp_path, until=9)
    assert latest is not None
    assert latest.name == "checkpoint-8"
    assert latest_checkpoint(tmp_path, until=7) is None


def test_folder_follows_the_content_of_inputs_not_their_place_or_age(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name / "shards").mkdir(parents=True)
        (tmp_path / name / "shards" / "one.parquet").write_bytes(b"content")
    os.utime(tmp_path / "b" / "shards" / "one.parquet", (1, 1))
    lora = LoraSettings(enabled=True, rank=4, alpha=8, dropout=0.0, quantize="none")
    first = checkpoint_folder("grpo@erv", shards=tmp_path / "a" / "shards", lora=lora, seed=0)
    assert first == checkpoint_folder("grpo@erv", seed=0, lora=lora, shards=tmp_path / "b" / "shards")
    assert first.parent == Path(".erv/checkpoints/grpo@erv")

    others = [
        checkpoint_folder("grpo@erv", shards=tmp_path / "a" / "shards", lora=lora, seed=1),
        checkpoint_folder("grpo@erv", shards=[tmp_path / "a" / "shards"] * 2, lora=lora, seed=0),
        checkpoint_folder(
            "grpo@erv", shards=tmp_path / "a" / "shards", lora=lora.model_copy(update={"rank": 8}), seed=0
        ),
    ]
    (tmp_path / "b" / "shards" / "one.parquet").write_bytes(b"CONTENT")
    others.append(checkpoint_folder("grpo@erv", shards=tmp_path / "b" / "shards", lora=lora, seed=0))
    assert len({first, *others}) == 5


def test_an_edited_reward_restarts_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    module = tmp_path / "own_rewards.py"
    module.write_text("def brief(completions, **_): return [1.0] * len(completions)")
    names = ["format", "own_rewards:brief", "own_rewards.brief"]
    assert reward_files(names) == [module]
    assert reward_files(["format", "accuracy"]) == []
    before = checkpoint_folder("grpo@own", reward_code=reward_files(names))
    assert before == checkpoint_folder("grpo@own", reward_code=reward_files(names))
    module.write_text("def brief(completions, **_): return [0.0] * len(completions)")
    assert checkpoint_folder("grpo@own", reward_code=reward_files(names)) != before
    with pytest.raises(FileNotFoundError, match=r"'no_such\.module'"):
        reward_files(["no_such.module:reward"])


def test_a_missing_input_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no-such-folder"):
        checkpoint_folder("sft", shards=tmp_path / "no-such-folder")


def test_latest_is_the_highest_complete_step(tmp_path: Path) -> None:
    assert latest_checkpoint(tmp_path / "absent") is None
    for step in (9, 20, 100):
        write_checkpoint(tmp_path, step)
    write_checkpoint(tmp_path, 120, complete=False)
    (tmp_path / "checkpoint-best").mkdir()
    newest = latest_checkpoint(tmp_path)
    assert newest is not None
    assert newest.name == "checkpoint-100"


def test_a_flipped_bit_is_noticed_and_the_checkpoint_before_is_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_checkpoint(tmp_path, 1)
    checkpoint = write_checkpoint(tmp_path, 2)
    weights = checkpoint / "model.safetensors"
    before = weights.stat()
    weights.write_bytes(bytes([weights.read_bytes()[0] ^ 1]) + weights.read_bytes()[1:])
    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert is_complete(checkpoint)
    assert not is_intact(checkpoint)
    assert discard_unusable(tmp_path) == [checkpoint]
    assert "checkpoint checkpoint-2 is damaged (its files are not those that were written): deleted" in (
        caplog.text
    )
    assert latest_checkpoint(tmp_path) == tmp_path / "checkpoint-1"
    assert discard_unusable(tmp_path) == []


@pytest.mark.parametrize(
    "damage", ["truncate", "delete", "garble the record", "empty the record", "sizes only", "nested record"]
)
def test_damage_makes_a_checkpoint_incomplete(tmp_path: Path, damage: str) -> None:
    write_checkpoint(tmp_path, 1)
    checkpoint = write_checkpoint(tmp_path, 2)
    assert is_complete(checkpoint)
    if damage == "truncate":
        (checkpoint / "model.safetensors").write_bytes(b"wei")
    elif damage == "delete":
        (checkpoint / "nested" / "state.json").unlink()
    elif damage == "garble the record":
        (checkpoint / RECORD).write_text('{"files": {"model')
    elif damage == "sizes only":  # as records once were
        (checkpoint / RECORD).write_text('{"files": {"model.safetensors": 14, "nested/state.json": 2}}')
    elif damage == "nested record":
        (checkpoint / RECORD).write_text("[" * 100_000)
    else:
        (checkpoint / RECORD).write_text("{}")
    assert not is_complete(checkpoint)
    assert discard_unusable(tmp_path) == [checkpoint]
    newest = latest_checkpoint(tmp_path)
    assert newest is not None
    assert newest.name == "checkpoint-1"


def test_killed_while_writing_leaves_nothing_to_resume_from(tmp_path: Path) -> None:
    code = (
        "import sys, time, pathlib; from erv.checkpoints import mark_complete\n"
        "c = pathlib.Path(sys.argv[1], 'checkpoint-5'); c.mkdir()\n"
        "(c / 'model.safetensors').write_bytes(b'x' * 10); print('written', flush=True)\n"
        "time.sleep(60); mark_complete(c)"
    )
    child = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stdout.readline() == b"written\n"
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    assert (tmp_path / "checkpoint-5").exists()
    assert latest_checkpoint(tmp_path) is None


def test_old_checkpoints_go_newest_stay(tmp_path: Path) -> None:
    for step in (2, 4, 10):
        write_checkpoint(tmp_path, step)
    keep_newest(tmp_path, 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-10", "checkpoint-4"]
    clear(tmp_path)
    assert not tmp_path.exists()
    clear(tmp_path)
