"""The board on a real store: who begins an attempt, which one counts, and what stays."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from erv.checkpoints import ROOT as CHECKPOINTS
from erv.checkpoints import mark_complete
from erv.environment import Environment
from erv.pipeline import StageCancelledError
from erv.remote import pulse
from erv.remote.board import Board
from erv.remote.checkpoints import Keeping, fetch_checkpoints, stored_checkpoints
from erv.remote.pulse import Beating
from erv.storage.store import Store, open_store
from tests.integration.scratch import wait_until

pytestmark = pytest.mark.integration


@pytest.fixture
def board(stack: Environment, request: pytest.FixtureRequest) -> Board:
    return Board(open_store(stack), stack.dvc_bucket, request.node.name)


def test_of_several_requests_one_counts(board: Board) -> None:
    assert board.newest() == 0
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda n: board.begin(1, {"by": n})["by"], range(6)))
    assert len(set(found)) == 1
    assert board.request(1)["by"] == found[0]
    assert board.newest() == 1
    board.supersede(1, "gone")
    board.supersede(1, "another reason")
    assert board.superseded(1) == "gone"
    board.begin(2, {"by": 7})
    assert (board.newest(), board.superseded(2)) == (2, None)


def test_a_worker_that_no_longer_counts_notices_and_writes_nothing(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pulse, "BEAT_SECONDS", 0.2)
    board.begin(1, {})
    with Beating(board, 1, "box") as beating:
        beating.say("one")
        beating.say("two")
        wait_until(lambda: (board.pulse(1) or {}).get("pieces") == 1)
        assert board.read_log(1, 1) == "one\ntwo"
        board.supersede(1, "gone")
        wait_until(beating.over)
        last = board.pulse(1)
        beating.say("three")
        with pytest.raises(StageCancelledError, match="attempt 1 no longer counts: gone"):
            beating.check()
    assert board.pulse(1) == last, "not even that it has ended"
    with pytest.raises(StageCancelledError), Beating(board, 1, "box"):
        pass


def test_others_that_wait_are_seen(board: Board) -> None:
    board.wait("a")
    assert not board.others_wait("a")
    board.wait("b")
    assert board.others_wait("a")
    board.leave("b")
    assert not board.others_wait("a")


def test_names_that_are_no_text(board: Board) -> None:
    """A message with such a name ended the pulse, or the worker without a result."""
    name = b"gr\xf6sse.mp4".decode("utf-8", "surrogateescape")
    board.begin(1, {})
    with Beating(board, 1, "box") as beating:
        beating.say(f"{name}: not found")
    assert board.read_log(1, 1) == "gr\\udcf6sse.mp4: not found"
    board.finish(1, {"failed": name})
    assert board.result(1) == {"failed": name}


def test_what_stays_when_it_is_over(board: Board) -> None:
    board.begin(1, {})
    board.beat(1, {"count": 1})
    board.write_log(1, 1, "x")
    board.finish(1, {"entry": {}})
    board.tidy()
    assert (board.pulse(1), board.read_log(1, 1), board.result(1)) == (None, None, {"entry": {}})


def checkpoint(workspace: Path, step: int, text: str = "") -> Path:
    folder = workspace / CHECKPOINTS / "grpo@erv" / "key" / "one"
    path = folder / f"checkpoint-{step}"
    path.mkdir(parents=True)
    (path / "model.txt").write_text(text or str(step))
    (folder / "curves.jsonl").write_text(f"{step}\n")
    mark_complete(path)
    return path


class _Replacing(Store):
    """A store in which somebody removes a checkpoint while it is read, and has a later one by then."""

    victim = ""

    def download(self, uri: str, path: str | Path, *args: Any, **options: Any) -> Path:
        if self.victim and uri.startswith(self.victim):
            gone, self.victim = self.victim, ""
            for info in self.list(gone):
                self.delete(info.uri)
        return super().download(uri, path, *args, **options)


def test_a_checkpoint_that_is_replaced_while_it_is_read(
    board: Board, stack: Environment, tmp_path: Path
) -> None:
    """By a worker that only seemed lost; the stage of the next one failed."""
    one = tmp_path / "one"

    def keep(step: int) -> None:
        with (
            suppress(KeyboardInterrupt),
            Keeping(board, 1, "grpo@erv", one, lambda: False, lambda _line: None),
        ):
            checkpoint(one, step)
            raise KeyboardInterrupt

    keep(4)
    keep(6)
    plain = open_store(stack)
    store = _Replacing(plain._client, plain._endpoint)
    store.victim = f"{board.attempt_uri(1)}/checkpoints/grpo@erv/key/one/checkpoint-6"
    reading = Board(store, stack.dvc_bucket, board.key)
    two = tmp_path / "two"
    assert fetch_checkpoints(reading, two) == 4
    assert (two / CHECKPOINTS / "grpo@erv/key/one/checkpoint-4/complete.json").is_file()
    assert not (two / CHECKPOINTS / "grpo@erv/key/one/checkpoint-6/complete.json").exists()


def test_checkpoints_go_to_another_worker(board: Board, tmp_path: Path) -> None:
    said: list[str] = []
    one, two = tmp_path / "one", tmp_path / "two"
    checkpoint(one, 2)

    def attempt(number: int, workspace: Path, step: int) -> None:
        with (
            suppress(KeyboardInterrupt),
            Keeping(board, number, "grpo@erv", workspace, lambda: False, said.append),
        ):
            checkpoint(workspace, step)
            (workspace / CHECKPOINTS / f"grpo@erv/key/one/checkpoint-{step + 1}").mkdir()
            raise KeyboardInterrupt

    attempt(1, one, 4)
    assert said == ["kept checkpoint-4 in the object store"], "checkpoint-2 was there when it began"
    # A second attempt gets further; a record without its files is of no use, and none without a record.
    checkpoint(two, 8, "eight")
    attempt(2, two, 10)
    board.store.delete(f"{board.attempt_uri(1)}/checkpoints/grpo@erv/key/one/checkpoint-4/complete.json")
    assert [(item.attempt, item.step) for item in stored_checkpoints(board)] == [(2, 10)]
    three = tmp_path / "three"
    assert fetch_checkpoints(board, three) == 10
    folder = three / CHECKPOINTS / "grpo@erv/key/one"
    assert sorted(path.name for path in folder.iterdir()) == ["checkpoint-10", "curves.jsonl"]
    assert (folder / "checkpoint-10/model.txt").read_text() == "10"
