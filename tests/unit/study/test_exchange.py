"""Other programs: what they are given, and that their answers become the same answers here."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml

from erv.errors import DataError
from erv.study.answers.database import Database
from erv.study.answers.state import state_of
from erv.study.exchange import PROGRAMS, read_project, write_project
from erv.study.exchange.given import Given, latest
from erv.study.exchange.taking import Changed, Taken, take
from erv.study.plan import Study, read_study
from tests.support.small_study import write_small_study

PAIR = {"emotion": "anger", "preferred": "BBBB"}
TIE = {"emotion": "sadness", "preferred": "tie"}
POTATO = ("config.yaml", "items.jsonl")
RATING = {"emotion": "anger", "ratings": {"emotion": 4, "own_answer": 5, "true": 2, "fluent": 1}}


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return read_study(write_small_study(tmp_path / "small"))


@pytest.fixture
def database(tmp_path: Path, study: Study):
    opened = Database.open(f"sqlite:///{tmp_path}/answers.db", study)
    rater = opened.enter(opened.invite()[0].token)
    opened.add(rater, "item1", PAIR, 3.25, "some-key-1")
    opened.add(rater, "item2", PAIR, 1.0, "some-key-2")
    opened.undo(rater)
    opened.add(rater, "item2", TIE, 2.5, "some-key-3")
    opened.add(rater, "item3", RATING, 7.5, "some-key-4")
    yield opened
    opened.close()


def by_others(database: Database, folder: Path) -> None:
    """Has somebody else have given the answers that an export wrote."""
    (rater,) = {row["rater"] for row in database.log()}
    for path in folder.rglob("*.json"):
        path.write_text(path.read_text().replace(rater, "someone"))


def counts(taken: Taken) -> dict[str, int]:
    """What was counted at all."""
    return {name: count for name, count in vars(taken).items() if name != "people" and count}


def test_potato_gets_two_projects_and_gives_the_same_answers_back(
    study: Study, database: Database, tmp_path: Path
) -> None:
    said = write_project("potato", study, database.log(), tmp_path / "out")
    assert "pairs/config.yaml and ratings/config.yaml" in said
    config = yaml.safe_load((tmp_path / "out/pairs/config.yaml").read_text())
    assert [scheme["name"] for scheme in config["annotation_schemes"]] == ["emotion", "preferred"]
    assert config["data_files"] == ["items.jsonl"]
    lines = [json.loads(line) for line in (tmp_path / "out/pairs/items.jsonl").read_text().splitlines()]
    assert [line["id"] for line in lines] == ["item0", "item1", "item2", "item4"]
    for field in config["instance_display"]["fields"]:
        assert field["key"] in lines[0]
    assert "answer" not in "".join((tmp_path / f"out/pairs/{name}").read_text() for name in POTATO)
    assert "first_answer" in (tmp_path / "out/ratings/config.yaml").read_text()
    assert json.loads((tmp_path / "out/ratings/items.jsonl").read_text().splitlines()[0])["first_answer"]
    assert (tmp_path / "out/pairs" / lines[0]["clip"]).read_bytes() == b"clip0"
    written = b"".join(path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file())
    assert b"sft" not in written
    assert b"real" not in written
    by_others(database, tmp_path / "out")
    given = read_project("potato", study, tmp_path / "out").given
    assert {one.item: one.value for one in given} == {"item1": PAIR, "item2": TIE, "item3": RATING}
    assert counts(take(database._base, study, given)) == {"new": 3}
    again = read_project("potato", study, tmp_path / "out/pairs").given
    assert counts(take(database._base, study, again)) == {"known": 2}


def test_label_studio_gets_an_interface_and_gives_the_same_answers_back(
    study: Study, database: Database, tmp_path: Path
) -> None:
    write_project("label-studio", study, database.log(), tmp_path / "out")
    view = ElementTree.fromstring((tmp_path / "out/pairs.xml").read_text())
    tasks = json.loads((tmp_path / "out/pairs.json").read_text())
    names = {element.get("name") for element in view.iter() if element.get("value", "").startswith("$")}
    assert names == {"clip", "first", "second"}  # as on erv's pages, no answers beside a pair
    assert "first_answer" in (tmp_path / "out/ratings.xml").read_text()
    assert all(set(task["data"]) == {"id", "study", "clip", "first", "second"} for task in tasks)
    assert all(
        {element.get("value", "")[1:] for element in view.iter("Text")} <= set(task["data"]) for task in tasks
    )
    aliases = [choice.get("alias") for choice in view.iter("Choice")]
    assert aliases == ["anger", "happiness", "sadness", "first", "second", "tie"]
    assert tasks[0]["data"]["clip"] == "/data/local-files/?d=media/clip0.mp4"
    by_others(database, tmp_path / "out")
    for name in ("pairs", "ratings"):
        given = read_project("label-studio", study, tmp_path / f"out/{name}_answers.json").given
        assert counts(take(database._base, study, given)) == {"new": len(given)}
        assert counts(take(database._base, study, given)) == {"known": len(given)}
    new = [row for row in database.log() if row["slot"] is None]
    old = [row for row in database.log() if row["slot"] is not None and row["kind"] != "undo"]
    assert {(row["item"], row["value"], row["shown_ms"]) for row in new} == {
        (row["item"], row["value"], row["shown_ms"]) for row in old if row["key"] != "some-key-2"
    }
    assert all(abs(row["at_ms"] - old[0]["at_ms"]) < 60_000 for row in new)


@pytest.mark.parametrize("program", PROGRAMS)
def test_git_adds_no_clip_of_an_export(study: Study, tmp_path: Path, program: str) -> None:
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    said = write_project(program, study, [], tmp_path / "out")
    assert "out (git ignores it): " in said
    seen = subprocess.run(
        ["git", "status", "--porcelain", "--untracked-files=all", "out"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert seen.stdout == ""


def test_an_export_of_label_studio_as_it_is(study: Study, tmp_path: Path) -> None:
    task = {
        "id": 17,
        "data": {"id": "item1", "study": study.sha256},
        "annotations": [
            {
                "id": 1001,
                "completed_by": {"id": 7, "email": "one@lab.example"},
                "created_at": "2026-03-09T22:16:08.728353Z",
                "lead_time": 4.288,
                "was_cancelled": False,
                "result": [
                    {
                        "from_name": "emotion",
                        "to_name": "clip",
                        "type": "choices",
                        "value": {"choices": ["anger"]},
                    },
                    {
                        "from_name": "preferred",
                        "to_name": "clip",
                        "type": "choices",
                        "value": {"choices": ["second"]},
                    },
                ],
            },
            {"id": 1002, "completed_by": 8, "was_cancelled": True, "result": []},
        ],
    }
    path = tmp_path / "export.json"
    path.write_text(json.dumps([task]))
    (one,) = read_project("label-studio", study, path).given
    assert (one.who, one.item, one.value, one.key) == ("label-studio:7", "item1", PAIR, "label-studio:1001")
    assert (one.shown_seconds, one.at_ms) == (4.288, 1773094568728)

    def refused(message: str, **change: object) -> None:
        path.write_text(json.dumps([{**task, **change}]))
        with pytest.raises(DataError, match=message):
            read_project("label-studio", study, path)

    annotation = task["annotations"][0]
    refused("is of another study", data={"id": "item1", "study": "0"})
    refused("has no item 'item9'", data={"id": "item9", "study": study.sha256})
    refused("export as JSON, not as JSON-MIN", annotations=None)
    refused(
        "annotation 1001: emotion is none of|annotation 1001: item item1: emotion is none of",
        annotations=[{**annotation, "result": annotation["result"][1:]}],
    )
    refused("preferred is None", annotations=[{**annotation, "result": annotation["result"][:1]}])
    refused("so it is nobody's", annotations=[{**annotation, "completed_by": None}])
    refused("created_at is 'soon'", annotations=[{**annotation, "created_at": "soon"}])
    refused("lead_time is 'long', expected seconds", annotations=[{**annotation, "lead_time": "long"}])
    refused(
        r"export\.json: task 1: annotation 1001: item item1: was shown for 1000000.0 seconds",
        annotations=[{**annotation, "lead_time": 1e6}],
    )
    path.write_text("{")
    with pytest.raises(DataError, match="can't be read as JSON"):
        read_project("label-studio", study, path)


def test_what_potato_did_not_write(study: Study, tmp_path: Path) -> None:
    state = tmp_path / "out/someone/user_state.json"
    state.parent.mkdir(parents=True)
    labels = [
        [{"schema": "emotion", "name": "anger"}, "true"],
        [{"schema": "preferred", "name": "second"}, "true"],
    ]

    def refused(message: str, content: object) -> None:
        state.write_text(json.dumps(content))
        with pytest.raises(DataError, match=message):
            read_project("potato", study, tmp_path / "out")

    def stated(labels: object, item: str = "item1") -> dict:
        return {"user_id": "someone", "instance_id_to_label_to_value": {item: labels}}

    refused("not Potato's state of a user", {"user_id": "someone"})
    refused("expected a list of labels", stated([["emotion", "anger"]]))
    refused(
        "has two choices for emotion", stated([*labels, [{"schema": "emotion", "name": "sadness"}, "true"]])
    )
    refused("item item1: emotion is none of", stated([[{"schema": "emotion", "name": "joy"}, 1], labels[1]]))
    refused("has no item 'item9'", stated(labels, "item9"))
    rated = [[{"schema": f"rating_{name}", "name": "6"}, 1] for name in RATING["ratings"]]
    refused("item item3: item item3: emotion is no whole number", stated([*labels[:1], *rated], "item3"))
    long = {**stated(labels), "user_id": "x" * 122}
    refused(r"user_state\.json: item item1: the user's name .* at most 121 printable characters", long)
    refused("can't be kept", {**stated(labels), "user_id": "a\0"})
    with pytest.raises(DataError, match=r"has no user_state\.json"):
        read_project("potato", study, tmp_path / "nowhere")


def test_an_answer_that_changed_there_is_not_taken_in_silence(
    study: Study, database: Database, tmp_path: Path
) -> None:
    write_project("potato", study, database.log(), tmp_path / "out")
    by_others(database, tmp_path / "out")
    take(database._base, study, read_project("potato", study, tmp_path / "out").given)
    before = database.log()
    (state,) = (tmp_path / "out/ratings").rglob("user_state.json")
    there = state.read_text()

    def taken(rating: str, changed: Changed) -> dict[str, int]:
        state.write_text(there.replace('"name": "4"', f'"name": "{rating}"'))
        given = read_project("potato", study, tmp_path / "out/ratings").given
        return counts(take(database._base, study, given, changed=changed))

    with pytest.raises(
        DataError, match=r"user_state\.json: item item3: someone answered item item3 otherwise"
    ):
        taken("3", "refuse")
    assert taken("3", "keep") == {"kept": 1}
    assert database.log() == before
    for rating in ("3", "4", "3"):  # and back, and once more
        assert taken(rating, "replace") == {"replaced": 1}
        assert taken(rating, "refuse") == {"known": 1}
        _, value = latest(study, database.log())[-1]
        assert value["ratings"]["emotion"] == int(rating)
    assert [row["kind"] for row in database.log()[len(before) :]] == ["undo", "rating"] * 3


def test_answers_that_were_written_there_by_the_export_are_no_new_ones(
    study: Study, database: Database, tmp_path: Path
) -> None:
    """The round trip of the docs doubled every answer."""
    before = database.log()
    for program, path in (("potato", "pairs/annotation_output"), ("label-studio", "pairs_answers.json")):
        write_project(program, study, before, tmp_path / program)
        given = read_project(program, study, tmp_path / program / path).given
        assert counts(take(database._base, study, given)) == {"own": 2}
        assert database.log() == before
    other = [replace(given[0], who="label-studio:7")]
    assert counts(take(database._base, study, [*other, *given])) == {"new": 1, "own": 2}
    write_project("potato", study, database.log(), tmp_path / "again")  # the imported rater is one, too
    given = read_project("potato", study, tmp_path / "again").given
    assert counts(take(database._base, study, given)) == {"own": 4}


def test_nothing_of_an_import_is_kept_if_a_part_is_refused(study: Study, database: Database) -> None:
    before = database.log()
    first = Given("label-studio:7", "item1", PAIR, 1.0, None, "label-studio:1", "export.json: annotation 1")
    second = replace(first, item="item2", key="label-studio:2")
    twice = replace(second, key="label-studio:3", where="export.json: annotation 3")
    with pytest.raises(DataError, match=r"annotation 3: 7 answered item item2 twice, here and in export"):
        take(database._base, study, [first, second, twice])
    assert database.log() == before
    take(database._base, study, [second])
    changed = replace(second, value=TIE)
    with pytest.raises(DataError, match=r"anger: BBBB, now sadness: tie\); --changed replace takes"):
        take(database._base, study, [first, changed])
    assert len(database.log()) == len(before) + 1
    assert len(state_of(database._base, study).raters) == 2


def test_people_who_were_withdrawn_stop_nobody_s_import(study: Study, database: Database) -> None:
    one = Given("potato:ann", "item1", PAIR, 0.0, None, "key-of-ann", "here")
    take(database._base, study, [one])
    database.revoke(database.log()[-1]["rater"])
    given = [replace(one, item="item2"), replace(one, who="potato:ben")]
    assert counts(take(database._base, study, given)) == {"withdrawn": 1, "new": 1}


def test_what_is_not_finished_in_potato_is_left_out_and_counted(study: Study, tmp_path: Path) -> None:
    state = tmp_path / "out/someone/user_state.json"
    emotion = [{"schema": "emotion", "name": "anger"}, "true"]
    preferred = [{"schema": "preferred", "name": "second"}, "true"]
    labels = {"item1": [emotion, preferred], "item2": [emotion], "item3": [emotion], "item4": [preferred]}
    state.parent.mkdir(parents=True)
    state.write_text(
        json.dumps({"user_id": "someone", "instance_id_to_label_to_value": {**labels, "item0": []}})
    )
    found = read_project("potato", study, tmp_path / "out")
    assert [(one.item, one.value) for one in found.given] == [("item1", PAIR)]
    assert found.incomplete == [f"{state}: item item{number}" for number in (2, 3, 4)]


def test_nothing_is_written_over(study: Study, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine").write_text("")
    with pytest.raises(DataError, match="is not empty"):
        write_project("potato", study, [], tmp_path / "out")
    (study.folder / "media/clip3.mp4").unlink()
    with pytest.raises(DataError, match=r"clip3\.mp4: not found; `dvc checkout"):
        write_project("label-studio", study, [], tmp_path / "new")
    assert not (tmp_path / "new").exists()
