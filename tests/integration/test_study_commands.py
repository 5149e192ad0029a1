"""A study on the command line, with DVC and a real MLflow: from invitations to the report, and simulation."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from erv.files import sha256_of_file
from erv.study.answers.connection import database_url
from erv.study.answers.database import Database
from erv.study.exchange.given import Given
from erv.study.exchange.taking import Changed, take
from erv.study.plan import Study, read_key, read_study
from erv.tracking.lock_entries import client_of
from tests.integration.scratch import Scratch
from tests.integration.test_traces import EVALUATE, PIPELINE, QUESTION, row
from tests.support.large_study import write_large_study

pytestmark = [pytest.mark.integration, pytest.mark.slow]

POLICIES = ("erv", "sft")


@pytest.fixture(scope="module")
def scratch(stack, tmp_path_factory: pytest.TempPathFactory) -> Scratch:
    scratch = Scratch(tmp_path_factory.mktemp("study"), stack)
    (scratch.folder / "dvc.yaml").write_text(PIPELINE)
    (scratch.folder / "evaluate.py").write_text(EVALUATE)
    rows = [row(f"real{clip}", "anger", "anger", "anger", "anger") for clip in range(6)]
    for policy in POLICIES:
        told = [{**one, "completion": one["completion"].replace("bebt", f"bebt {policy}")} for one in rows]
        (scratch.folder / f"control/{policy}.json").write_text(json.dumps(told))
        folder = scratch.folder / "models/policy" / policy
        folder.mkdir(parents=True)
        (folder / "processor_config.json").write_text(
            json.dumps({"instruction": QUESTION, "system": "Be kind."})
        )
    scratch.python("-m", "dvc", "repro", "-q")
    return scratch


@pytest.fixture(scope="module")
def study(scratch: Scratch) -> Study:
    digests = {
        policy: sha256_of_file(scratch.folder / f"eval/{policy}/predictions.parquet") for policy in POLICIES
    }
    folder = scratch.folder / "studies/pilot"
    write_large_study(folder, policies=POLICIES, clips=4, raters=3, overlap=2, checks=1, digests=digests)
    return read_study(folder)


@pytest.fixture(scope="module")
def answered(scratch: Scratch, study: Study) -> Study:
    """Three people were invited on the command line, came, and prefer `erv`."""
    said = scratch.erv("study", "invite", "pilot", "--count", "3", "--url", "https://study.example/")
    lines = said.stdout.splitlines()
    assert [line.partition("?token=")[0].split()[1] for line in lines] == ["https://study.example/enter"] * 3
    database = Database.open(database_url(scratch.folder), study)
    key = read_key(study)
    for line in lines:
        rater = database.enter(line.partition("?token=")[2])
        for name in rater.items:
            item = study.item(name)
            value: dict = {"emotion": "anger"}
            if item.kind == "pair":
                by_policy = {policy: code for code, policy in key.items[name].policies.items()}
                value["preferred"] = item.expected.preferred if item.expected else by_policy["erv"]
            else:
                value["ratings"] = dict.fromkeys(("emotion", "own_answer", "true", "fluent"), 4)
            database.add(rater, name, value, 4.5, f"{rater.id}-{name}")
        database.complete(rater)
    database.close()
    return study


def test_from_answers_to_the_report(scratch: Scratch, answered: Study) -> None:
    status = scratch.erv("study", "status", "pilot").stdout
    assert "3 of 3 places finished, 0 free; 24 answers to 12 main items, 2 to 2 each" in status
    said = scratch.erv("study", "export", "pilot").stdout
    assert "studies/pilot/answers.parquet: 27 rows, 27 new. Next: erv study report pilot" in said
    pinned = sha256_of_file(scratch.folder / "studies/pilot/answers.parquet.dvc")
    assert "27 rows, 0 new" in scratch.erv("study", "export", "pilot").stdout
    assert sha256_of_file(scratch.folder / "studies/pilot/answers.parquet.dvc") == pinned
    said = scratch.erv("study", "report", "pilot", "--without-judges").stdout
    assert "erv preferred to sft: 100% of 8 preferences (51 to 100), 3 raters" in said
    report = json.loads((scratch.folder / "studies/pilot/report/report.json").read_text())
    assert report["passed"]["preference"]["pairs"]["sft-erv"]["opposed"] == 8
    assert (scratch.folder / "studies/pilot/report.dvc").is_file()
    before = {path: sha256_of_file(path) for path in (scratch.folder / "studies/pilot/report").iterdir()}
    scratch.erv("study", "report", "pilot", "--without-judges")
    assert {path: sha256_of_file(path) for path in before} == before
    ignored = subprocess.run(
        ["git", "check-ignore", "studies/pilot/answers.parquet"], cwd=scratch.folder, check=False
    )
    assert ignored.returncode == 0  # DVC has it, git has the pointer


def test_who_is_left_out_is_said_by_the_parameters(scratch: Scratch, answered: Study) -> None:
    scratch.erv("study", "export", "pilot")
    params = scratch.folder / "params.yaml"
    before, path = params.read_text(), scratch.folder / "studies/pilot/report/report.json"
    rater = Database.open(database_url(scratch.folder), answered).log()[0]["rater"]
    # The second one is of another study.
    params.write_text(before.replace("    without: [] ", f"    without: [{rater}, r0123456789] "))

    def rules(*options: str) -> dict[str, object]:
        scratch.erv("study", "report", "pilot", "--without-judges", *options)
        return dict(json.loads(path.read_text())["checks"]["rules"])

    assert rules() == {"failed_attention": 0, "gold_share": 0.5, "without": [rater]}
    assert rules("--gold-share", "0.2")["gold_share"] == 0.2
    params.write_text(before)
    assert rules()["without"] == []


def test_answers_become_assessments_by_people(scratch: Scratch, answered: Study) -> None:
    said = scratch.erv("study", "export", "pilot", "--to", "mlflow").stdout
    # Eight preferences and eight ratings per policy, with an emotion each; a rating has four values.
    assert f"erv: {8 * 2 + 8 * 5} assessments by people, {8 * 2 + 8 * 5} new" in said
    again = scratch.erv("study", "export", "pilot", "--to", "mlflow").stdout
    assert again.count(" 0 new") == 2
    client = client_of(scratch.environment)
    run = scratch.runs()["evaluate@erv"][0]
    traces = client.search_traces(locations=[run.info.experiment_id], run_id=run.info.run_id)
    assert {trace.info.tags["erv.clip"] for trace in traces} == {f"real{clip}" for clip in range(4)}
    human = [one for trace in traces for one in trace.info.assessments if one.source.source_type == "HUMAN"]
    assert {one.name for one in human} == {
        "people/emotion",
        "people/preferred",
        *(f"people/rating_{name}" for name in ("emotion", "own_answer", "true", "fluent")),
    }
    assert {one.value for one in human if one.name == "people/preferred"} == {"yes"}
    assert {one.value for one in human if one.name == "people/rating_true"} == {4}
    assert all(one.source.source_id.startswith("r") for one in human)
    assert {one.metadata["erv.study"] for one in human} == {answered.sha256}


def test_an_answer_that_was_taken_back_is_no_assessment_any_more(scratch: Scratch, answered: Study) -> None:
    """Somebody elsewhere prefers `erv`, and then `sft`."""
    key, database = read_key(answered), Database.open(database_url(scratch.folder), answered)
    item = next(one for one in answered.items if (one.kind, one.role) == ("pair", "main"))
    code = {policy: code for code, policy in key.items[item.id].policies.items()}
    client = client_of(scratch.environment)

    def exported(policy: str, changed: Changed) -> tuple[str, list[tuple[str, object]]]:
        value = {"emotion": "anger", "preferred": code[policy]}
        given = Given("potato:dora", item.id, value, 0.0, None, "key-of-dora", "here")
        take(database._base, answered, [given], changed=changed)
        said = scratch.erv("study", "export", "pilot", "--to", "mlflow").stdout
        rater = database.log()[-1]["rater"]
        run = scratch.runs()["evaluate@erv"][0]
        traces = client.search_traces(locations=[run.info.experiment_id], run_id=run.info.run_id)
        found = [one for trace in traces for one in trace.info.assessments if one.source.source_id == rater]
        return said, sorted((one.name, one.value) for one in found)

    assert exported("erv", "refuse")[1] == [("people/emotion", "anger"), ("people/preferred", "yes")]
    said, found = exported("sft", "replace")
    assert found == [("people/emotion", "anger"), ("people/preferred", "no")]
    assert said.count("2 new, 2 deleted whose answers were taken back") == 2
    assert "deleted" not in exported("sft", "refuse")[0]
    database.revoke(database.log()[-1]["rater"])
    database.close()


def test_other_programs_and_back(scratch: Scratch, answered: Study) -> None:
    write_clips(answered)
    assert (
        "set up a project"
        in scratch.erv("study", "export", "pilot", "--to", "label-studio", "--folder", "there").stdout
    )
    there = scratch.folder / "there/pairs_answers.json"
    imported = ("study", "import", "pilot", str(there), "--from", "label-studio")
    tasks = json.loads(there.read_text())
    count = sum(len(task["annotations"]) for task in tasks)
    assert count > 10
    own = f"{count} left out: of this study's own raters, which export wrote there\n"
    assert scratch.erv(*imported).stdout == f"0 answers of 0 raters, 0 new\n{own}"
    for place, task in enumerate(tasks):
        (one, *_) = task["annotations"]
        one |= {"completed_by": 7, "id": 1000 + place}
    there.write_text(json.dumps(tasks))
    own = f"{count - len(tasks)} left out: of this study's own raters, which export wrote there\n"
    assert scratch.erv(*imported).stdout == f"{len(tasks)} answers of 1 rater, {len(tasks)} new\n{own}"
    assert scratch.erv(*imported).stdout == f"{len(tasks)} answers of 1 rater, 0 new\n{own}"
    tasks[0]["annotations"][0]["result"][0]["value"]["choices"] = ["fear"]
    there.write_text(json.dumps(tasks))
    refused = scratch.erv(*imported, check=False)
    assert (refused.returncode, "--changed replace takes the new answer" in refused.stderr) == (1, True)
    assert "1 changed there: taken instead" in scratch.erv(*imported, "--changed", "replace").stdout
    wrong = scratch.erv("study", "export", "pilot", "--to", "potato", check=False)
    assert (wrong.returncode, "Traceback" in wrong.stderr) == (2, False)


def write_clips(study: Study) -> None:
    for clip in study.media:
        path = study.clip_file(clip)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(clip.encode())


def test_a_simulation_leaves_people_s_answers_alone(scratch: Scratch, answered: Study) -> None:
    before = {path: path.read_bytes() for path in answered.folder.glob("*.*") if path.is_file()}
    said = scratch.erv("study", "simulate", "pilot", "--strength", "erv=1.0", "--strength", "sft=0").stdout
    assert "sft over erv: planted 0." in said
    assert "alpha of emotions: planted 0.600, found" in said
    assert (scratch.folder / ".erv/studies/simulated/pilot/report/report.html").is_file()
    assert {path: path.read_bytes() for path in before} == before
    wrong = scratch.erv("study", "simulate", "pilot", "--strength", "erv=much", check=False)
    assert wrong.stderr == "error: --strength erv=much: expected POLICY=NUMBER, such as erv=0.5\n"


def test_what_is_withdrawn_and_what_is_unknown(scratch: Scratch, answered: Study) -> None:
    state = json.loads(scratch.erv("study", "status", "pilot", "--json").stdout)
    rater = state["raters"][0]["id"]
    assert scratch.erv("study", "revoke", "pilot", rater).stdout == f"withdrew {rater}\n"
    wrong = scratch.erv("study", "revoke", "pilot", "r0", check=False)
    assert wrong.returncode == 1
    assert "study pilot: has no invitation and no rater 'r0'" in wrong.stderr
    missing = scratch.erv("study", "status", "unknown", check=False)
    assert "studies/unknown/study.json: not found" in missing.stderr


def test_the_predictions_must_be_those_that_people_judged(scratch: Scratch, answered: Study) -> None:
    rows = json.loads((scratch.folder / "control/sft.json").read_text())
    rows[0]["completion"] = "<think>anew</think>\n<answer>anger</answer>"
    (scratch.folder / "control/sft.json").write_text(json.dumps(rows))
    scratch.python("-m", "dvc", "repro", "-q")
    said = scratch.erv("study", "export", "pilot", "--to", "mlflow", check=False)
    assert "not the predictions that study pilot was prepared from" in said.stderr
    said = scratch.erv("study", "report", "pilot", check=False)
    assert "not the predictions that the study was prepared from" in said.stderr
    assert Path(scratch.folder / "studies/pilot/report/report.json").is_file()
