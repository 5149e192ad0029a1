"""The database of answers: nothing confirmed is lost, nothing counts twice, nothing is changed."""

from __future__ import annotations

import sqlite3
import stat
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import pytest
import sqlalchemy as sa

from erv.errors import DataError, StackError
from erv.study.answers.connection import Answerbase, database_url
from erv.study.answers.database import Database, NotInvitedError, RefusedError, StudyFullError
from erv.study.answers.links import PANELS, link, participant_in
from erv.study.answers.state import state_of
from erv.study.answers.table import SCHEMA, read_answers, write_answers
from erv.study.exchange.given import Given
from erv.study.exchange.taking import take
from erv.study.plan import Study, read_study
from tests.support.small_study import plan, write_small_study

PAIR = {"emotion": "anger", "preferred": "AAAA"}
RATING = {"emotion": "anger", "ratings": {"emotion": 4, "own_answer": 5, "true": 2, "fluent": 5}}


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return read_study(write_small_study(tmp_path / "small"))


@pytest.fixture
def database(tmp_path: Path, study: Study):
    opened = Database.open(f"sqlite:///{tmp_path}/kept/answers.db", study)
    yield opened
    opened.close()


def value_for(study: Study, item: str) -> dict:
    return PAIR if study.item(item).kind == "pair" else RATING


def answer_all(database: Database, rater) -> None:
    for item in rater.items:
        database.add(rater, item, value_for(database.study, item), 3.25, f"key-{rater.id}-{item}")


def test_a_rater_answers_undoes_and_finishes(database: Database, study: Study) -> None:
    (invitation,) = database.invite()
    rater = database.enter(invitation.token)
    assert (rater.slot, rater.items, rater.panel) == ("r001", study.assignments["r001"], None)
    assert database.add(rater, "item1", PAIR, 3.25, "first-key")
    assert not database.add(rater, "item1", PAIR, 9.0, "first-key")
    assert database.done(rater) == ["item1"]
    with pytest.raises(RefusedError, match=r"5 items are still open\."):
        database.complete(rater)
    assert database.undo(rater, "undo-key-1") == "item1"
    assert database.undo(rater, "undo-key-1") == "item1"
    assert database.done(rater) == []
    assert database.undo(rater) is None
    answer_all(database, rater)
    assert database.complete(rater) == "DONE-1234" == database.complete(rater)
    with pytest.raises(RefusedError, match="finished this study"):
        database.undo(rater)
    assert [(row["item"], row["kind"], row["undoes"]) for row in database.log()[:3]] == [
        ("item1", "pair", None),
        ("item1", "undo", 1),
        ("item0", "pair", None),
    ]


@pytest.mark.parametrize(
    ("item", "value", "seconds", "key", "message"),
    [
        ("item9", PAIR, 1.0, "a-new-key", "Item item9 is not one of yours"),
        ("item1", RATING, 1.0, "a-new-key", "expected an answer with emotion and preferred"),
        ("item1", {**PAIR, "preferred": "CCCC"}, 1.0, "a-new-key", "preferred is none of AAAA, BBBB, tie"),
        ("item1", PAIR, -1.0, "a-new-key", "was shown for -1.0 seconds"),
        ("item1", PAIR, float("nan"), "a-new-key", "was shown for nan seconds"),
        ("item1", PAIR, 1.0, "short", "the key of an answer has 8 to 64"),
        ("item1", {**PAIR, "emotion": "fear"}, 1.0, "a-new-key", "emotion is none of anger"),
        ("item0", PAIR, 1.0, "an-old-key", "Another answer was sent with the key an-old-key"),
        ("item2", PAIR, 1.0, "a-new-key", "Item item2 was answered already; undo that answer first"),
    ],
)
def test_what_is_no_answer_is_refused(
    database: Database, item: str, value: object, seconds: float, key: str, message: str
) -> None:
    rater = database.enter(database.invite()[0].token)
    database.add(rater, "item2", PAIR, 1.0, "an-old-key")
    with pytest.raises(DataError, match=message):
        database.add(rater, item, value, seconds, key)
    assert len(database.log()) == 1


def test_invitations_and_slots(database: Database, study: Study) -> None:
    one, two, three = database.invite(3)
    first, second = database.enter(one.token), database.enter(two.token)
    assert (first.slot, second.slot) == ("r001", "r002")
    assert database.enter(one.token) == first
    with pytest.raises(StudyFullError, match="All places"):
        database.enter(three.token)
    database.add(first, "item1", PAIR, 1.0, "some-key-1")
    database.revoke(one.id)
    database.revoke(one.id)
    for act in (
        lambda: database.enter(one.token),
        lambda: database.add(first, "item2", PAIR, 1.0, "some-key-2"),
        lambda: database.undo(first),
    ):
        with pytest.raises(NotInvitedError, match="withdrawn"):
            act()
    third = database.enter(three.token)
    assert third.slot == "r001"  # the place that the first one left
    answer_all(database, third)
    database.complete(third)
    state = state_of(database._base, study)
    assert [(rater.word, rater.answered, rater.asked) for rater in state.raters] == [
        ("withdrawn", 1, 6),
        ("under way", 0, 6),
        ("finished", 6, 6),
    ]
    assert state.answers == {"item1": 2, "item2": 1, "item3": 1}
    assert (state.free, [invited.withdrawn for invited in state.invitations].count(True)) == ((), 1)
    database.revoke(second.id)  # a rater, not an invitation
    assert state_of(database._base, study).free == ("r002",)
    with pytest.raises(NotInvitedError):
        database.enter(two.token)
    with pytest.raises(DataError, match="has no invitation and no rater 'nobody'"):
        database.revoke("nobody")


def test_who_isn_t_invited_stays_outside(database: Database) -> None:
    with pytest.raises(NotInvitedError, match="not valid"):
        database.enter("guessed")
    (late,) = database.invite(days=0.000001)
    (begun,) = database.invite(days=0.000001)
    assert late.token != begun.token
    import time

    time.sleep(0.2)
    with pytest.raises(NotInvitedError, match="has expired"):
        database.enter(late.token)
    with pytest.raises(NotInvitedError, match="not known here"):
        database.resume("guessed")


def test_members_of_a_panel_share_a_token(database: Database) -> None:
    (invitation,) = database.invite(panel="prolific")
    first = database.enter(invitation.token, "5f00aa")
    second = database.enter(invitation.token, "5f00bb")
    assert (first.slot, second.slot, first.panel) == ("r001", "r002", "prolific")
    assert database.enter(invitation.token, "5f00aa") == first
    came = state_of(database._base, database.study).raters
    assert {rater.participant: rater.id for rater in came} == {"5f00aa": first.id, "5f00bb": second.id}
    for participant in (None, "", "a b", "x" * 129):
        with pytest.raises(RefusedError, match="lacks your id"):
            database.enter(invitation.token, participant)
    assert database.resume(database.session(second)) == second
    database.consent(second, "en")
    assert (database.consented(first), database.consented(second)) == (None, "en")


@pytest.mark.parametrize("panel", sorted(PANELS))
def test_an_address_in_which_nothing_was_filled_in_lets_nobody_in(database: Database, panel: str) -> None:
    (invitation,) = database.invite(panel=panel)
    query = dict(parse_qsl(urlsplit(link("https://study.example", invitation.token, panel)).query))
    assert query["token"] == invitation.token
    with pytest.raises(RefusedError, match="lacks your id"):
        database.enter(query["token"], participant_in(query))


def test_nothing_secret_is_kept_and_the_file_is_private(database: Database, tmp_path: Path) -> None:
    (invitation,) = database.invite()
    rater = database.enter(invitation.token)
    session = database.session(rater)
    path = tmp_path / "kept/answers.db"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    database.close()
    content = b"".join(file.read_bytes() for file in path.parent.iterdir())
    assert rater.id.encode() in content
    assert invitation.token.encode() not in content
    assert session.encode() not in content


@pytest.mark.parametrize("change", ["UPDATE answers SET shown_ms = 1", "DELETE FROM answers"])
def test_the_database_itself_refuses_changes(database: Database, tmp_path: Path, change: str) -> None:
    rater = database.enter(database.invite()[0].token)
    database.add(rater, "item1", PAIR, 2.0, "some-key-1")
    with sqlite3.connect(tmp_path / "kept/answers.db") as other:
        with pytest.raises(sqlite3.IntegrityError, match="answers is append-only"):
            other.execute(change)
        assert other.execute("SELECT shown_ms FROM answers").fetchall() == [(2000,)]
        assert other.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    with database._base.reading() as connection:
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2


def test_two_studies_share_a_database(database: Database, tmp_path: Path) -> None:
    changed = plan("other")
    changed["texts"]["en"]["instructions"] = ["Listen, too."]
    other = read_study(write_small_study(tmp_path / "other", changed))
    second = Database(database._base, other)
    rater = database.enter(database.invite()[0].token)
    database.add(rater, "item1", PAIR, 2.0, "some-key-1")
    with pytest.raises(NotInvitedError):
        second.enter(database.invite()[0].token)
    with pytest.raises(NotInvitedError):
        second.resume(database.session(rater))
    assert (len(database.log()), second.log()) == (1, [])


def test_another_erv_s_tables_are_refused(tmp_path: Path, database: Database, study: Study) -> None:
    database.close()
    with sqlite3.connect(tmp_path / "kept/answers.db") as other:
        other.execute("INSERT INTO erv_schema VALUES (2)")
    with pytest.raises(StackError, match="its tables have version 2, and this erv works with version 1"):
        Database.open(f"sqlite:///{tmp_path}/kept/answers.db", study)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("not a url: secret", "not the address of a database"),
        ("mysql://me:secret@host/x", "mysql is not supported"),
        ("sqlite://", "SQLite needs a file"),
        ("postgresql://127.0.0.1:1/x?user=me&password=secret", r"^postgresql://127.0.0.1:1/x: .*make sure"),
        ("postgresql://me:secret@127.0.0.1:1/x", r"me:\*\*\*@127.0.0.1:1/x: .*make sure that the database"),
    ],
)
def test_addresses_of_databases(url: str, message: str) -> None:
    with pytest.raises(StackError, match=message) as caught:
        Answerbase(url)
    assert "secret" not in str(caught.value)


def test_where_answers_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert database_url(tmp_path) == f"sqlite:///{tmp_path}/.erv/studies/answers.db"
    monkeypatch.setenv("ERV_STUDY_DATABASE", "postgresql://host/erv")
    assert database_url(tmp_path) == "postgresql://host/erv"


def test_the_table_grows_at_its_end_and_equal_logs_give_equal_bytes(
    database: Database, study: Study, tmp_path: Path
) -> None:
    rater = database.enter(database.invite()[0].token)
    database.add(rater, "item1", PAIR, 3.25, "some-key-1")
    path, rows, new = write_answers(database.log(), study)
    first = path.read_bytes()
    assert (rows, new) == (1, 1)
    assert write_answers(database.log(), study)[1:] == (1, 0)
    assert path.read_bytes() == first
    database.undo(rater)
    database.add(rater, "item1", {**PAIR, "preferred": "tie"}, 1.5, "some-key-2")
    assert write_answers(database.log(), study)[1:] == (3, 2)
    (answer,) = read_answers(study)
    assert (answer.item, answer.value["preferred"], answer.shown_seconds) == ("item1", "tie", 1.5)
    lines = (study.folder / "answers.csv").read_text().splitlines()
    assert lines[0] == ",".join(SCHEMA.names)
    assert len(lines) == 4
    with pytest.raises(DataError, match=r"answers\.parquet: has answer 3, which the database doesn't have"):
        write_answers(database.log()[:2], study)
    other = Database.open(f"sqlite:///{tmp_path}/other.db", study)
    with pytest.raises(DataError, match="has answer 1, which the database doesn't have"):
        write_answers(other.log(), study)
    other.close()


def test_a_table_of_another_plan_or_a_damaged_one_is_refused(database: Database, study: Study) -> None:
    with pytest.raises(DataError, match=r"answers\.parquet: not found; `erv study export small` writes it"):
        read_answers(study)
    rater = database.enter(database.invite()[0].token)
    database.add(rater, "item1", PAIR, 3.25, "some-key-1")
    log = database.log()
    for change, message in (
        ({"study": "0" * 64}, "answer 1 was given to another plan"),
        ({"value": "{"}, "answer 1: Expecting"),
        ({"item": "item9"}, "answer 1: study small: has no item 'item9'"),
    ):
        (study.folder / "answers.parquet").unlink(missing_ok=True)
        write_answers([{**log[0], **change}], study)
        with pytest.raises(DataError, match=message):
            read_answers(study)
    (study.folder / "answers.parquet").unlink()
    write_answers([log[0], {**log[0], "number": 2}], study)
    with pytest.raises(DataError, match="answered item item1 twice"):
        read_answers(study)
    (study.folder / "answers.parquet").write_text("no table")
    with pytest.raises(DataError, match="not a readable parquet file"):
        read_answers(study)


def test_imported_raters_have_no_slot(database: Database, study: Study) -> None:
    given = [
        Given(f"label-studio:{who}", "item3", RATING, 0.0, 1234, f"label-studio:{who}", "here")
        for who in (7, 8)
    ]
    assert take(database._base, study, given).new == 2
    assert take(database._base, study, given).known == 2
    one, other = database.log()
    assert (one["slot"], one["at_ms"], one["rater"] != other["rater"]) == (None, 1234, True)
    assert [(rater.word, rater.asked) for rater in state_of(database._base, study).raters] == [
        ("imported", len(study.items))
    ] * 2


def test_the_tables_are_those_that_are_guarded(database: Database) -> None:
    with database._base.reading() as connection:
        names = set(sa.inspect(connection).get_table_names()) - {"sqlite_sequence"}
        triggers = connection.exec_driver_sql("SELECT name FROM sqlite_master WHERE type = 'trigger'")
        assert set(triggers.scalars()) == {
            f"{name}_no_{verb}" for name in names for verb in ("update", "delete")
        }
