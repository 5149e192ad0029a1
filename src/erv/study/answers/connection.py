"""Connections to the database of answers: SQLite in a file of this workspace, or PostgreSQL on a server."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import URL, Connection, Engine, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, OperationalError

from erv.errors import StackError
from erv.study.answers.tables import SCHEMA_VERSION, create, schema_versions

VARIABLE = "ERV_STUDY_DATABASE"
_WAIT_SECONDS = 30  # for another process that writes
_LOCK = 0x657276  # of PostgreSQL's advisory locks: one writer at a time, as in SQLite


def database_url(workspace: Path) -> str:
    """Where answers are kept: what the variable says, else a file of this workspace.

    One database holds the answers of all studies. The variable is read here alone, as it may hold a password.
    """
    return os.environ.get(VARIABLE) or f"sqlite:///{workspace / '.erv' / 'studies' / 'answers.db'}"


class Answerbase:
    """An open database whose tables are those of this erv.

    Args:
        url: `sqlite:///FILE` or `postgresql://USER:<PASSWORD>@HOST/DATABASE`. The tables are made if there
            are none; a new SQLite file can be read by its owner alone.

    Raises:
        StackError: the URL is of another kind, the database can't be reached, or another erv made its tables.
    """

    def __init__(self, url: str) -> None:
        parsed = _parse(url)
        # Without the query, which may hold a password, too.
        self.name = parsed.set(query={}).render_as_string(hide_password=True)
        self.engine = _sqlite(parsed) if parsed.get_backend_name() == "sqlite" else _postgres(parsed)
        self._check_tables()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection whose statements all see the same state."""
        with self._explained(), self.engine.connect() as connection, connection.begin():
            if self.engine.dialect.name == "postgresql":
                connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            else:
                connection.exec_driver_sql("BEGIN")
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A connection that alone writes. What it wrote is on the disk when the block has ended.

        Writers take turns, so that numbers of answers rise in the order in which answers become visible. An
        exported table can then only grow at its end.
        """
        with self._explained(), self.engine.connect() as connection, connection.begin():
            if self.engine.dialect.name == "postgresql":
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
            else:
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            yield connection

    def close(self) -> None:
        """Closes all connections."""
        self.engine.dispose()

    def _check_tables(self) -> None:
        with self.writing() as connection:
            known = sa.inspect(connection).get_table_names()
            if schema_versions.name not in known:
                create(connection)
                return
            found = connection.scalar(sa.select(sa.func.max(schema_versions.c.version)))
        if found != SCHEMA_VERSION:
            self.close()
            raise StackError(
                f"{self.name}: its tables have version {found}, and this erv works with version"
                f" {SCHEMA_VERSION}; use the erv that made them, or name another database in {VARIABLE}"
            )

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (OperationalError, DBAPIError) as error:
            if isinstance(error, sa.exc.IntegrityError):
                raise  # whoever writes knows what it means
            reason = " ".join(str(error.orig).split())[:300]
            raise StackError(
                f"{self.name}: {reason}; make sure that the database can be reached and written ({VARIABLE})"
            ) from error


def _parse(url: str) -> URL:
    try:
        parsed = make_url(url)
    except ArgumentError:
        # The text may hold a password.
        raise StackError(
            f"{VARIABLE}: not the address of a database, expected sqlite:///FILE or"
            " postgresql://USER:<PASSWORD>@HOST/DATABASE"
        ) from None
    if parsed.get_backend_name() not in ("sqlite", "postgresql"):
        raise StackError(
            f"{VARIABLE}: {parsed.get_backend_name()} is not supported; expected sqlite:///FILE or"
            " postgresql://USER:<PASSWORD>@HOST/DATABASE"
        )
    return parsed


def _sqlite(url: URL) -> Engine:
    if not url.database or url.database == ":memory:":
        raise StackError(f"{VARIABLE}: SQLite needs a file, such as sqlite:///answers.db")
    path = Path(url.database)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.touch(mode=0o600, exist_ok=True)
    engine = sa.create_engine(url.set(drivername="sqlite"), connect_args={"timeout": _WAIT_SECONDS})

    @event.listens_for(engine, "connect")
    def _prepare(connection: Any, _: Any) -> None:
        # The driver would begin transactions by itself, and too late: a reader that turns into a writer can
        # find that another one came first.
        connection.isolation_level = None
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}").fetchall()

    return engine


def _postgres(url: URL) -> Engine:
    # A connection that the server closed meanwhile is noticed before it is used.
    return sa.create_engine(
        url.set(drivername="postgresql+psycopg"),
        pool_pre_ping=True,
        connect_args={"connect_timeout": _WAIT_SECONDS},
    )
