"""The commands of a study, on a workspace with a study and without servers."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from erv.commands.study import command
from erv.errors import ErvError
from erv.study.answers.connection import database_url
from erv.study.answers.database import Database
from erv.study.plan import Study, read_study
from tests.support.large_study import write_large_study
from tests.support.paths import ROOT

POLICIES = ("sft", "r1_omni", "erv")


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    """A study of three policies; the working folder is its workspace."""
    for name in [name for name in os.environ if name.startswith(("ERV_", "MLFLOW_"))]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    folder = Path("studies/first")
    write_large_study(folder, policies=POLICIES, clips=6, raters=4, overlap=2, ratings=False, checks=1)
    return read_study(folder)


def erv_study(*arguments: str) -> Result:
    result = CliRunner().invoke(command, arguments)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def finished(study: Study) -> str:
    """Somebody comes, answers and finishes; the completion code that they are shown."""
    database = Database.open(database_url(Path.cwd()), study)
    rater = database.enter(database.invite()[0].token)
    for name in rater.items:
        database.add(rater, name, {"emotion": "anger", "preferred": "tie"}, 1.0, f"{rater.id}-{name}")
    code = database.complete(rater)
    database.close()
    return code


def test_a_completion_code_leads_to_its_rater(study: Study) -> None:
    plan = json.loads((study.folder / "study.json").read_text())
    (study.folder / "study.json").write_text(json.dumps({**plan, "panel": None}))
    code = finished(read_study(study.folder))
    said = erv_study("status", "first").output
    (line,) = [line for line in said.splitlines() if "finished  (" in line]
    assert line.endswith(f"code {code}")
    (rater,) = json.loads(erv_study("status", "first", "--json").output)["raters"]
    assert (rater["code"], rater["finished"]) == (code, True)


def test_the_code_of_a_panel_is_no_rater_s_own(study: Study) -> None:
    assert finished(study) == "DONE-1234"
    assert "DONE-1234" not in erv_study("status", "first").output


def test_a_report_says_what_it_does_and_where_it_is(study: Study) -> None:
    from dvc.repo import Repo

    subprocess.run(["git", "init", "-q"], check=True)
    Repo.init().close()
    finished(study)
    erv_study("export", "first")
    result = erv_study("report", "first", "--without-judges")
    answers = len([name for name in study.assignments["r000"] if study.item(name).role == "main"])
    assert f"figures of {answers} answers of 1 rater, each on 2000 draws" in result.stderr
    assert "how far other raters agree with people" in result.stderr
    page, commit = result.stdout.splitlines()[-2:]
    assert page == f"{study.folder.resolve()}/report/report.html (figures: report.json)"
    assert Path(page.partition(" (")[0]).is_file()
    assert commit == "DVC has the folder; commit studies/first/report.dvc and studies/first/.gitignore"
    assert all(Path(path).is_file() for path in ("studies/first/report.dvc", "studies/first/.gitignore"))


def test_invitations_and_places_meet(study: Study) -> None:
    said = erv_study("invite", "first").stderr
    assert said.startswith("1 invitation; the study has 4 places, 3 more are needed. Keep the addresses")
    assert "2 invitations; the study has 4 places, 1 more is needed." in invited("--count", "2")
    assert "1 invitation; the study has 4 places. Keep" in invited()
    gone = json.loads(erv_study("status", "first", "--json").output)["invitations"][0]["id"]
    erv_study("revoke", "first", gone)
    finished(study)  # somebody with an invitation of their own
    assert "1 invitation; the study has 4 places. Keep" in invited("--count", "1")
    assert "one address for all 4 places; keep it" in invited("--panel", "prolific")


def test_counts_are_english(study: Study) -> None:
    assert "0 of 4 places finished, 4 free; 0 answers to 18 main items" in erv_study("status", "first").output


def invited(*options: str) -> str:
    return erv_study("invite", "first", *options).stderr


def test_a_simulated_strength_that_is_left_out_is_zero_and_said(study: Study) -> None:
    said = erv_study("simulate", "first", "--strength", "erv=0.5", "--strength", "sft=0").output
    assert said.splitlines()[0] == "strength 0 for r1_omni, which no --strength names"
    assert "r1_omni over erv: planted 0.394, found" in said
    with pytest.raises(ErvError, match="expected a policy of the study: erv, r1_omni, sft"):
        erv_study("simulate", "first", "--strength", "r1-omni=0.2")
