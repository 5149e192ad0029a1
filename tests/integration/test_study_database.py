"""The database of answers on SQLite and a real PostgreSQL: raters at once, kills, restarts, append-only."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa

from benchmarks.answers import run
from erv.errors import DataError, StackError
from erv.study.answers.connection import Answerbase
from erv.study.answers.database import Database, NotInvitedError, StudyFullError
from erv.study.answers.state import state_of
from erv.study.answers.table import rows_of, write_answers
from erv.study.answers.tables import LONGEST_NAME
from erv.study.exchange.given import Given
from erv.study.exchange.taking import take
from erv.study.plan import TIE, Study, read_study
from tests.support.large_study import write_large_study
from tests.support.postgres import Postgres, postgres, programs

pytestmark = [pytest.mark.integration, pytest.mark.slow]

RATERS = 6


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    try:
        programs()
    except RuntimeError as error:
        pytest.fail(str(error))
    with postgres() as started:
        yield started


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of an empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/answers.db"
    server = request.getfixturevalue("server")
    name = "t" + "".join(letter for letter in tmp_path.name.lower() if letter.isalnum())
    engine = sa.create_engine(
        server.url.replace("postgresql:", "postgresql+psycopg:"), isolation_level="AUTOCOMMIT"
    )
    with engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    engine.dispose()
    return f"{server.url.rpartition('/')[0]}/{name}"


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return read_study(
        write_large_study(tmp_path / "large", clips=10, raters=RATERS, overlap=3, ratings=False)
    )


def value(study: Study, item: str) -> dict[str, str]:
    expected = study.item(item).expected
    return {"emotion": "anger", "preferred": expected.preferred if expected and expected.preferred else TIE}


def test_raters_at_once(url: str, study: Study) -> None:
    database = Database.open(url, study)
    invited = database.invite(RATERS + 2)

    def take_part(token: str) -> str:
        try:
            rater = database.enter(token)
        except StudyFullError:
            return "full"
        for item in rater.items:
            # The page sends twice when it is impatient; both arrive.
            with ThreadPoolExecutor(2) as pool:
                sent = [
                    pool.submit(database.add, rater, item, value(study, item), 1.5, f"{rater.id}-{item}")
                    for _ in range(2)
                ]
                assert sorted(one.result() for one in sent) == [False, True]
        return database.complete(rater)

    with ThreadPoolExecutor(RATERS + 2) as pool:
        ended = list(pool.map(take_part, [one.token for one in invited]))
    assert sorted(ended) == ["DONE-1234"] * RATERS + ["full"] * 2
    log = database.log()
    assert len(log) == sum(map(len, study.assignments.values()))
    numbers = [row["number"] for row in log]
    assert numbers == sorted(set(numbers))
    assert {row["slot"] for row in log} == set(study.assignments)
    state = state_of(database._base, study)
    assert [rater.word for rater in state.raters] == ["finished"] * RATERS
    assert set(state.answers.values()) == {3}
    database.close()


def test_the_flow_of_one_rater(url: str, study: Study) -> None:
    database = Database.open(url, study)
    (invitation,) = database.invite(panel="prolific")
    rater = database.enter(invitation.token, "5f00aa")
    assert Database.open(url, study).resume(database.session(rater)) == rater
    item = rater.items[0]
    database.add(rater, item, value(study, item), 2.5, "some-key-1")
    assert database.undo(rater, "some-undo-1") == item == database.undo(rater, "some-undo-1")
    database.add(rater, item, value(study, item), 1.25, "some-key-2")
    assert [(row["kind"], row["shown_seconds"]) for row in rows_of(database.log())] == [
        ("pair", 2.5),
        ("undo", 0.0),
        ("pair", 1.25),
    ]
    assert write_answers(database.log(), study)[1:] == (3, 3)
    database.revoke(rater.id)
    with pytest.raises(NotInvitedError):
        database.enter(invitation.token, "5f00aa")
    database.close()


def test_an_import_is_kept_as_a_whole_or_not_at_all(url: str, study: Study) -> None:
    base = Answerbase(url)
    database = Database(base, study)
    first, second, *_ = (item.id for item in study.items)
    longest = f"potato:{'x' * (LONGEST_NAME - len('potato:'))}"
    one = Given(longest, first, value(study, first), 0.0, 1234, "key-number-1", "here")
    other = replace(one, item=second, value=value(study, second), key="key-number-2")
    assert take(base, study, [one, other]).new == 2
    changed = replace(other, value={**other.value, "emotion": "fear"})
    with pytest.raises(DataError, match="--changed replace"):
        take(base, study, [replace(one, who="potato:ann"), changed])
    assert len(database.log()) == 2
    assert len(state_of(base, study).raters) == 1
    taken = take(base, study, [replace(one, who="potato:ann"), changed], changed="replace")
    assert (taken.new, taken.replaced) == (1, 1)
    assert [row["kind"] for row in database.log()] == ["pair", "pair", "pair", "undo", "pair"]
    assert {rater.participant for rater in state_of(base, study).raters} == {longest, "potato:ann"}
    base.close()


@pytest.mark.parametrize(
    "verb", ["UPDATE answers SET shown_ms = 1", "DELETE FROM answers", "TRUNCATE answers CASCADE"]
)
def test_nothing_is_changed(url: str, study: Study, verb: str) -> None:
    base = Answerbase(url)
    database = Database(base, study)
    rater = database.enter(database.invite()[0].token)
    item = rater.items[0]
    database.add(rater, item, value(study, item), 2.5, "some-key-1")
    before = database.log()
    refused = sa.exc.DBAPIError if url.startswith("sqlite") else StackError
    with (
        pytest.raises((refused, StackError), match=r"append-only|syntax error"),
        base.writing() as connection,
    ):
        connection.exec_driver_sql(verb)
    assert database.log() == before
    base.close()


def test_a_writer_that_is_killed_loses_nothing(url: str, tmp_path: Path) -> None:
    found = run(tmp_path / "killed", url, answers=60, seed=3, kills=8)
    assert (found.lost, found.twice, found.missing) == (0, 0, 0)
    assert found.kills == 8


def test_a_server_that_was_away_is_used_again(server: Postgres, study: Study) -> None:
    database = Database.open(server.url, study)
    rater = database.enter(database.invite()[0].token)
    first, second, *_ = rater.items
    database.add(rater, first, value(study, first), 2.5, "some-key-1")
    server.restart()  # as after a power failure
    assert database.done(rater) == [first]
    database.add(rater, second, value(study, second), 2.5, "some-key-2")
    assert database.done(rater) == [first, second]
    database.close()
