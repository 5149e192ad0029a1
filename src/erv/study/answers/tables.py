"""The tables of the database. Rows are only ever added: triggers refuse every change of one.

What takes something back is a row of its own: an undo takes back an answer, a withdrawal an invitation or a
rater. Times are whole milliseconds since 1970 (UTC), so that both databases keep the same value.
"""

from __future__ import annotations

from sqlalchemy import (
    DDL,
    BigInteger,
    CheckConstraint,
    Column,
    Connection,
    ForeignKey,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    event,
)

SCHEMA_VERSION = 1
UNDO = "undo"
LONGEST_NAME = 128  # of who a rater is to a panel or another program

_NUMBER = BigInteger().with_variant(Integer, "sqlite")  # of SQLite only an INTEGER counts by itself

metadata = MetaData()

schema_versions = Table("erv_schema", metadata, Column("version", Integer, primary_key=True))

studies = Table(
    "studies",
    metadata,
    Column("study", String(64), primary_key=True),  # SHA-256 of its plan
    Column("name", String(64), nullable=False),
    Column("at_ms", BigInteger, nullable=False),
)

invitations = Table(
    "invitations",
    metadata,
    Column("invitation", String(16), primary_key=True),
    Column("study", String(64), ForeignKey("studies.study"), nullable=False),
    Column("token_hash", String(64), nullable=False, unique=True),
    # The panel whose members all come with this token; NULL for the invitation of one person.
    Column("panel", String(64)),
    Column("expires_ms", BigInteger, nullable=False),
    Column("at_ms", BigInteger, nullable=False),
)

raters = Table(
    "raters",
    metadata,
    Column("rater", String(16), primary_key=True),  # a pseudonym
    Column("study", String(64), ForeignKey("studies.study"), nullable=False),
    Column("invitation", String(16), ForeignKey("invitations.invitation")),  # NULL if imported
    Column("slot", String(16)),  # NULL if imported: another program chose the items
    # How often the slot was taken and given up before. Two can't take it at once.
    Column("turn", Integer, nullable=False),
    # Who it is to the panel or to the program that answers came from. Never exported.
    Column("participant", String(LONGEST_NAME)),
    Column("at_ms", BigInteger, nullable=False),
    UniqueConstraint("study", "slot", "turn"),
)

sessions = Table(
    "sessions",
    metadata,
    Column("session_hash", String(64), primary_key=True),
    Column("rater", String(16), ForeignKey("raters.rater"), nullable=False),
    Column("at_ms", BigInteger, nullable=False),
)

consents = Table(
    "consents",
    metadata,
    Column("rater", String(16), ForeignKey("raters.rater"), primary_key=True),
    Column("language", String(16), nullable=False),
    Column("at_ms", BigInteger, nullable=False),
)

answers = Table(
    "answers",
    metadata,
    Column("number", _NUMBER, primary_key=True, autoincrement=True),
    Column("study", String(64), ForeignKey("studies.study"), nullable=False),
    Column("rater", String(16), ForeignKey("raters.rater"), nullable=False),
    Column("item", String(32), nullable=False),
    Column("kind", String(8), nullable=False),  # pair, rating or undo
    Column("value", Text),  # JSON; NULL of an undo
    Column("undoes", _NUMBER, ForeignKey("answers.number"), unique=True),
    # How many answers to this item its rater took back before. So a second one beside the first is refused.
    Column("turn", Integer, nullable=False),
    Column("shown_ms", BigInteger, nullable=False),
    Column("at_ms", BigInteger, nullable=False),
    Column("key", String(64), nullable=False),  # the client's: a resend is not a second answer
    UniqueConstraint("rater", "key"),
    UniqueConstraint("rater", "item", "turn", "kind"),
    CheckConstraint("(kind = 'undo') = (value IS NULL) AND (kind = 'undo') = (undoes IS NOT NULL)"),
    sqlite_autoincrement=True,  # a number is never given twice
)

# Which emotion a rater chose before the explanations of an item were shown; it can't be changed after that.
sights = Table(
    "sights",
    metadata,
    Column("rater", String(16), ForeignKey("raters.rater"), primary_key=True),
    Column("item", String(32), primary_key=True),
    Column("emotion", String(64), nullable=False),
    Column("shown_ms", BigInteger, nullable=False),
    Column("at_ms", BigInteger, nullable=False),
)

completions = Table(
    "completions",
    metadata,
    Column("rater", String(16), ForeignKey("raters.rater"), primary_key=True),
    Column("code", String(64), nullable=False),
    Column("at_ms", BigInteger, nullable=False),
)

withdrawals = Table(
    "withdrawals",
    metadata,
    Column("withdrawn", String(16), primary_key=True),  # an invitation or a rater
    Column("at_ms", BigInteger, nullable=False),
)

_REFUSE = """
CREATE OR REPLACE FUNCTION erv_refuse() RETURNS trigger AS $$
BEGIN RAISE EXCEPTION '% is append-only: rows can not be changed or removed', TG_TABLE_NAME; END;
$$ LANGUAGE plpgsql
"""

event.listen(metadata, "before_create", DDL(_REFUSE.replace("%", "%%")).execute_if(dialect="postgresql"))


def _guard(table: Table) -> None:
    """Lets the database refuse what would change or remove a row, whoever asks."""
    for verb in ("UPDATE", "DELETE"):
        sentence = f"{table.name} is append-only: rows can not be changed or removed"
        event.listen(
            table,
            "after_create",
            DDL(
                f"CREATE TRIGGER {table.name}_no_{verb.lower()} BEFORE {verb} ON {table.name} "
                f"BEGIN SELECT RAISE(ABORT, '{sentence}'); END"
            ).execute_if(dialect="sqlite"),
        )
    event.listen(
        table,
        "after_create",
        DDL(
            f"CREATE TRIGGER {table.name}_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {table.name} "
            "FOR EACH STATEMENT EXECUTE FUNCTION erv_refuse()"
        ).execute_if(dialect="postgresql"),
    )


for _table in metadata.tables.values():
    _guard(_table)


def create(connection: Connection) -> None:
    """Makes all tables in an empty database, in the caller's transaction."""
    metadata.create_all(connection, checkfirst=False)
    connection.execute(schema_versions.insert().values(version=SCHEMA_VERSION))
