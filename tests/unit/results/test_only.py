"""`erv figures` with filters: what no result has is said, and a page that is there stays."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from erv.cli import main
from erv.errors import EvaluationError
from tests.support.result_locks import locked, text_of
from tests.support.result_rows import gathered


def test_the_results_of_some_data_sets_folds_and_policies() -> None:
    found = gathered(foreign=False)
    assert {item.policy for item in found.only(policies=["sft"]).results} == {"sft"}
    chosen = found.only(["mafw", "dfew"], ["1"], ["erv"]).results
    assert [(item.dataset, item.get("ingest.fold")) for item in chosen] == [("mafw", "1"), ("dfew", "1")]
    assert found.only() == found


@pytest.mark.parametrize(
    ("filters", "said"),
    [
        ((["mafw", "nope"],), r"data set 'nope': no result is of it; there are results of dfew, mafw$"),
        (((), ["9"]), r"fold '9': no result is of it; there are results of 1, 2$"),
        (((), (), ["erb"]), r"policy 'erb': no result is of it; there are results of erv, sft$"),
        ((["dfew"], ["2"]), r"no result is of data set dfew and fold 2 at once; leave one of them out$"),
        (
            (["dfew"], ["1", "2"], ["sft"]),
            r"no result is of data set dfew, fold 1 or 2 and policy sft at once; leave one of them out$",
        ),
    ],
)
def test_what_no_result_has_is_named_with_what_there_is(filters: tuple[list[str], ...], said: str) -> None:
    with pytest.raises(EvaluationError, match=said):
        gathered(foreign=False).only(*filters)


def test_without_any_result_that_is_said() -> None:
    with pytest.raises(EvaluationError, match="policy 'erv': no result is of it; there are no results"):
        gathered([], foreign=False).only(policies=["erv"])


def test_the_command_fails_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    (tmp_path / "params.yaml").write_text("seed: 1\n")
    (tmp_path / "dvc.lock").write_text(text_of(locked()))
    (tmp_path / "report").mkdir()
    page = tmp_path / "report/by_setting.html"
    page.write_text("the page of all results")
    monkeypatch.chdir(tmp_path)
    for arguments in (["--dataset", "nope"], ["--fold", "9"], ["--policy", "nobody", "--json"]):
        with pytest.raises(SystemExit) as ended:
            main(["figures", *arguments])
        said = capsys.readouterr()
        assert ended.value.code == 1
        assert "no result is of it; there are results of " in said.err
        assert said.out == ""
        assert "wrote" not in said.err
    assert [path.name for path in page.parent.iterdir()] == [page.name]
    assert page.read_text() == "the page of all results"
