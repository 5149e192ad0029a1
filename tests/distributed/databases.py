"""PostgreSQL behind MLflow and Prefect, in place of the SQLite of `erv stack up`.

The server stack of `infra/compose` has it. One server process more is all that is different: the servers of
the stack are started as ever, with another address of their database.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import LiteralString

import psycopg
import pytest
from psycopg import sql

from erv.environment import Environment
from erv.stack import control
from erv.stack.services import Service
from tests.support.postgres import Postgres


class Databases:
    """One database for each of the two servers.

    Args:
        server: on which they are made.
    """

    def __init__(self, server: Postgres) -> None:
        self.server = server
        for name in ("mlflow", "prefect"):
            with psycopg.connect(server.url, autocommit=True) as connection:
                connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))

    def url(self, name: str) -> str:
        """The address of a database."""
        return f"{self.server.url.rpartition('/')[0]}/{name}"

    def count(self, name: str, query: LiteralString) -> int:
        """The number that a query for one number finds."""
        with psycopg.connect(self.url(name)) as connection:
            row = connection.execute(query).fetchone()
        assert row is not None
        return int(row[0])

    def variables(self) -> dict[str, dict[str, str]]:
        """What tells each server of the stack where its database is."""
        mlflow, prefect = (self.url(name).partition("://")[2] for name in ("mlflow", "prefect"))
        return {
            "mlflow": {"MLFLOW_BACKEND_STORE_URI": f"postgresql+psycopg://{mlflow}"},
            "prefect": {"PREFECT_SERVER_DATABASE_CONNECTION_URL": f"postgresql+asyncpg://{prefect}"},
        }


@contextmanager
def behind_the_servers(databases: Databases) -> Iterator[None]:
    """`erv.stack.up` of this process starts servers with these databases until the end of the block."""
    build, given = control.build, databases.variables()

    def with_databases(environment: Environment, ports: Mapping[str, int]) -> dict[str, Service]:
        return {
            name: dataclasses.replace(one, environment={**one.environment, **given.get(name, {})})
            for name, one in build(environment, ports).items()
        }

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(control, "build", with_databases)
        yield
