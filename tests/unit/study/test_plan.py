"""The plan of a study: what is read, what is refused, and which answers fit it."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest

from erv.errors import DataError
from erv.files import sha256_of_file, write_text
from erv.study.analysis.people import people_of
from erv.study.answers.database import Database, StudyFullError
from erv.study.answers.state import state_of
from erv.study.answers.table import read_answers, read_slots, write_answers
from erv.study.contents import Extension, document
from erv.study.extend import extend
from erv.study.plan import Study, read_key, read_study
from tests.support.small_study import item, plan, write_small_study


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return read_study(write_small_study(tmp_path / "small"))


def test_a_plan_is_read_with_the_hash_of_its_bytes(study: Study) -> None:
    assert study.sha256 == sha256_of_file(study.folder / "study.json")
    assert (study.name, study.languages, study.kinds) == ("small", ("en",), ("pair", "rating"))
    assert study.consent == {"en": ("You may stop at any time.",)}
    assert study.clip_file("clip1") == study.folder / "media" / "clip1.mp4"


@pytest.mark.parametrize("name", ["study.json", "key.json", "extension-1.json"])
def test_a_file_that_was_changed_since_it_was_pinned(study: Study, name: str) -> None:
    """Raters answered a plan that no report would take, and a changed key turned conclusions round."""
    _extend(study)
    path = study.folder / name
    pinned = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
    path.with_name(f"{name}.dvc").write_text(f"outs:\n- md5: {pinned}\n  hash: md5\n  path: {name}\n")
    read_key(read_study(study.folder))
    path.write_text(path.read_text().replace("  ", " ", 1))
    sentence = f"{path}: was changed since DVC has it ({name}.dvc); `dvc checkout {path}.dvc` restores it"
    with pytest.raises(DataError, match=re.escape(sentence)):
        read_key(read_study(study.folder))


@pytest.mark.parametrize("text", ["", "outs:\n- path: study.json\n", "outs: []\n", "- a list\n"])
def test_a_pin_without_a_hash_pins_nothing(study: Study, text: str) -> None:
    """It let every change through, or ended in a traceback."""
    path = study.folder / "study.json"
    path.with_name("study.json.dvc").write_text(text)
    sentence = f"{path}.dvc: names no hash; restore it from git, or run `dvc add {path}`"
    with pytest.raises(DataError, match=re.escape(sentence)):
        read_study(study.folder)


def test_what_is_written_again_has_the_same_bytes(study: Study) -> None:
    text = (study.folder / "study.json").read_text()
    assert document(study._plan) == text


def test_a_slot_sees_its_pairs_in_its_own_order(study: Study) -> None:
    assert [said.code for said in study.shown("r001", "item1")] == ["AAAA", "BBBB"]
    assert [said.code for said in study.shown("r002", "item1")] == ["BBBB", "AAAA"]
    assert [said.code for said in study.shown("r002", "item2")] == ["AAAA", "BBBB"]


def test_the_key_names_the_policies(study: Study) -> None:
    key = read_key(study)
    assert key.policy_of("item1", "BBBB") == "erv"
    with pytest.raises(DataError, match="no code 'ZZZZ' of item 'item1'"):
        key.policy_of("item1", "ZZZZ")


def test_a_key_of_another_plan_is_refused(study: Study) -> None:
    path = study.folder / "key.json"
    write_text(path.read_text().replace(study.sha256, "0" * 64), path)
    with pytest.raises(DataError, match=re.escape(f"{path}: is the key of another plan")):
        read_key(study)


PAIR = {"emotion": "anger", "preferred": "AAAA"}
RATING = {"emotion": "anger", "ratings": {"emotion": 1, "own_answer": 5, "true": 3, "fluent": 2}}


@pytest.mark.parametrize("value", [PAIR, {**PAIR, "preferred": "tie"}])
def test_an_answer_to_a_pair(study: Study, value: dict[str, Any]) -> None:
    assert study.check("item1", value) == value


def test_an_answer_to_a_rating(study: Study) -> None:
    assert study.check("item3", RATING) == RATING


@pytest.mark.parametrize(
    ("item_id", "value", "sentence"),
    [
        ("item1", None, "expected an answer with emotion and preferred"),
        ("item1", RATING, "expected an answer with emotion and preferred"),
        ("item1", {**PAIR, "more": 1}, "expected an answer with emotion and preferred"),
        ("item1", {**PAIR, "emotion": "joy"}, "emotion is none of anger, happiness, sadness"),
        ("item1", {**PAIR, "emotion": ["anger"]}, "emotion is none of"),
        ("item1", {**PAIR, "preferred": "CCCC"}, "preferred is none of AAAA, BBBB, tie"),
        ("item1", {**PAIR, "preferred": ["AAAA"]}, "preferred is none of"),
        ("item3", PAIR, "expected an answer with emotion and ratings"),
        ("item3", {"emotion": "anger", "ratings": {"true": 3}}, "expected ratings of emotion, own_answer"),
        ("item3", {**RATING, "ratings": {**RATING["ratings"], "true": 6}}, "true is no whole number"),
        ("item3", {**RATING, "ratings": {**RATING["ratings"], "true": True}}, "true is no whole number"),
        ("item9", PAIR, "has no item 'item9'"),
    ],
)
def test_an_answer_that_does_not_fit_is_refused(
    study: Study, item_id: str, value: Any, sentence: str
) -> None:
    with pytest.raises(DataError, match=re.escape(sentence)):
        study.check(item_id, value)


def test_what_is_expected_decides_whether_a_check_is_passed(study: Study) -> None:
    assert study.item("item1").passes(PAIR) is None
    assert study.item("item4").passes(PAIR) is False
    assert study.item("item4").passes({**PAIR, "preferred": "BBBB"}) is True
    assert study.item("item5").passes(RATING) is False
    assert study.item("item5").passes({**RATING, "ratings": {**RATING["ratings"], "true": 2}}) is True


def _change(content: dict[str, Any], where: str) -> None:
    items = content["items"]
    if where == "version":
        content["version"] = 2
    elif where == "unknown":
        content["policies"] = ["sft"]
    elif where == "twice":
        items.append(items[0])
    elif where == "clip":
        content["media"].pop("clip2")
    elif where == "codes":
        items[1]["explanations"][1]["code"] = "AAAA"
    elif where == "one of a pair":
        items[1]["explanations"].pop()
    elif where == "expects":
        items[4]["expected"]["preferred"] = "ZZZZ"
    elif where == "rates":
        items[5]["expected"]["ratings"] = {"true": [6]}
    elif where == "main expects":
        items[1] = item("item1", "clip1", expected={"preferred": "AAAA", "ratings": None})
    elif where == "words":
        del content["texts"]["en"]["questions"]["ratings.true"]
    elif where == "slot":
        content["seats"]["assignments"]["r001"] = ["item1", "item1"]
    elif where == "swap":
        content["seats"]["swapped"]["r003"] = ["item1"]
    elif where == "path":
        items[1]["clip_id"] = "../../key"


@pytest.mark.parametrize(
    ("where", "sentence"),
    [
        ("version", "has version 2, expected 1"),
        ("unknown", "policies: Extra inputs are not permitted"),
        ("twice", "item item0 is there twice"),
        ("clip", "item item2 is about a clip that has no file"),
        ("codes", "a pair has 2 explanations with codes of their own"),
        ("one of a pair", "a pair has 2 explanations"),
        ("expects", "expects what nobody can prefer"),
        ("rates", "expects ratings outside 1..5"),
        ("main expects", "main and what is expected don't go together"),
        ("words", "the texts in 'en' have no words for 'ratings.true'"),
        ("slot", "slot 'r001' must list items of the plan, each once"),
        ("swap", "slot 'r003' swaps explanations of items that it isn't asked"),
        ("path", "clip_id: String should match"),
    ],
)
def test_a_damaged_plan_is_refused(study: Study, where: str, sentence: str) -> None:
    path, content = study.folder / "study.json", plan()
    _change(content, where)
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=re.escape(sentence)) as caught:
        read_study(study.folder)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff", b"[" * 100_000])
def test_what_is_no_plan_is_refused(study: Study, content: bytes) -> None:
    (study.folder / "study.json").write_bytes(content)
    with pytest.raises(DataError, match=re.escape(str(study.folder / "study.json"))):
        read_study(study.folder)


def test_a_missing_plan_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="run `erv study prepare none`"):
        read_study(tmp_path / "none")


def _extend(study: Study, slot: str = "r003", sha256: str | None = None, number: int = 1) -> None:
    seats = {"assignments": {slot: ["item2"]}, "swapped": {slot: ["item2"]}}
    extension = Extension.model_validate_json(json.dumps({"study": sha256 or study.sha256, "seats": seats}))
    write_text(document(extension), study.folder / f"extension-{number}.json")


@pytest.mark.parametrize("pointer", [True, False])
def test_an_extension_that_is_not_here_is_missed(study: Study, pointer: bool) -> None:
    """Where its slots were guessed, places came out wrong, and `extend` wrote over a later one."""
    _extend(study)
    _extend(study, "r004", number=2)
    first, second = (study.folder / f"extension-{number}.json" for number in (1, 2))
    first.unlink()
    (study.folder / f"extension-{1 if pointer else 2}.json.dvc").write_text("outs: []")
    kept = second.read_text()
    sentence = re.escape(f"{first}: not found, though the study was extended; `dvc pull {first}.dvc`")
    with pytest.raises(DataError, match=sentence):
        read_study(study.folder)
    with pytest.raises(DataError, match=sentence):
        extend(study, read_key(study), {"item2": 1})
    assert second.read_text() == kept
    second.unlink()
    (study.folder / "extension-2.json.dvc").unlink(missing_ok=True)
    (study.folder / "extension-1.json.dvc").write_text("outs: []")
    with pytest.raises(DataError, match=sentence):  # the last one
        read_study(study.folder)


def test_a_slot_that_no_file_has_is_never_guessed(study: Study, tmp_path: Path) -> None:
    _extend(study)
    extended = read_study(study.folder)
    database = Database.open(f"sqlite:///{tmp_path}/answers.db", extended)
    rater = [database.enter(one.token) for one in database.invite(3)][-1]
    assert rater.slot == "r003"
    database.add(rater, "item2", PAIR, 1.0, "some-key-1")
    database.complete(rater)
    write_answers(database.log(), extended)
    (study.folder / "extension-1.json").unlink()  # and its .dvc file isn't here either
    lost = read_study(study.folder)
    sentence = "slot 'r003', which a rater has, is in no file of"
    with pytest.raises(DataError, match=sentence):
        people_of(lost, read_key(lost), read_answers(lost), read_slots(lost))
    with pytest.raises(DataError, match=sentence):
        lost.shown("r003", "item2")
    with pytest.raises(DataError, match=sentence):  # `extend` would give the slot to somebody else
        state_of(database._base, lost)
    database.close()


def test_places_that_are_added_are_given_out_by_pages_that_are_being_served(
    study: Study, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    database = Database.open(f"sqlite:///{tmp_path}/answers.db", study)
    tokens = [one.token for one in database.invite(4)]
    for token in tokens[:2]:
        database.enter(token)
    with pytest.raises(StudyFullError):
        database.enter(tokens[2])
    _extend(study)
    rater = database.enter(tokens[2])
    assert (rater.slot, rater.items) == ("r003", ("item2",))
    assert [said.code for said in study.shown("r003", "item2")] == ["BBBB", "AAAA"]
    (study.folder / "extension-2.json").write_text("{")
    with pytest.raises(StudyFullError):  # nobody who answers is told of files
        database.enter(tokens[3])
    assert "extension-2.json: not JSON" in caplog.text
    (study.folder / "extension-2.json").unlink()
    _extend(study, "r004", number=2)
    elsewhere = Database.open(f"sqlite:///{tmp_path}/answers.db", read_study(study.folder))
    session = elsewhere.session(elsewhere.enter(tokens[3]))
    assert database.resume(session).slot == "r004"  # by another process, that read the plan later
    database.close()
    elsewhere.close()


def test_an_extension_adds_raters_and_leaves_the_hash(study: Study) -> None:
    _extend(study)
    extended = read_study(study.folder)
    assert extended.sha256 == study.sha256
    assert list(extended.assignments) == ["r001", "r002", "r003"]
    assert [said.code for said in extended.shown("r003", "item2")] == ["BBBB", "AAAA"]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [({"slot": "r001"}, "slot 'r001' is there already"), ({"sha256": "0" * 64}, "extends another plan")],
)
def test_an_extension_that_does_not_fit_is_refused(
    study: Study, change: dict[str, str], sentence: str
) -> None:
    _extend(study, **change)
    with pytest.raises(DataError, match=re.escape(sentence)):
        read_study(study.folder)
