"""Who is asking, in which language, and where in the study they are."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus

from starlette.requests import Request
from starlette.responses import Response

from erv.study.answers.database import Database, NotInvitedError, Rater
from erv.study.contents import Item, Texts
from erv.web.errors import Refused

COOKIE = "erv_study"
_DAYS = 60


@dataclass(frozen=True)
class Visit:
    """A rater at a moment of the study.

    Attributes:
        rater: who.
        language: in which they agreed.
        done: ids of the items that are answered, in the order of the answers.
        item: the next one; None if all are answered.
    """

    rater: Rater
    language: str
    done: tuple[str, ...]
    item: Item | None


def visit(request: Request, database: Database) -> Visit:
    """The rater whose session a browser has.

    Raises:
        Refused: it has none, or it holds no longer; the sentence says what to do.
    """
    try:
        rater = database.resume(request.cookies.get(COOKIE, ""))
    except NotInvitedError as error:
        raise Refused(HTTPStatus.UNAUTHORIZED, str(error), code="not_invited") from error
    done = tuple(database.done(rater))
    item_id = next((item for item in rater.items if item not in set(done)), None)
    item = None if item_id is None else database.study.item(item_id)
    return Visit(rater, database.consented(rater) or database.study.languages[0], done, item)


def remember(response: Response, session: str, *, secure: bool) -> None:
    """Has the browser keep a session; no script can read it, and no other site's form can use it.

    Args:
        response: to the browser.
        session: of `Database.session`.
        secure: only for pages that are reached by https.
    """
    response.set_cookie(
        COOKIE, session, max_age=_DAYS * 86_400, httponly=True, samesite="lax", secure=secure, path="/"
    )


def language_of(request: Request, languages: tuple[str, ...]) -> str:
    """The language of a page that is shown to somebody who has not agreed yet.

    What the address says (`lang`) comes first, then what the browser prefers, then the study's first.
    """
    asked = request.query_params.get("lang", "")
    if asked in languages:
        return asked
    preferred = (part.split(";")[0].strip()[:2].lower() for part in _by_weight(request))
    return next((name for name in preferred if name in languages), languages[0])


def words(texts: Texts, name: str, **values: object) -> str:
    """Words of the page, with values in their places. Braces that are no places stay."""
    text = texts.page[name]
    for place, value in values.items():
        text = text.replace(f"{{{place}}}", str(value))
    return text


def _by_weight(request: Request) -> list[str]:
    parts = request.headers.get("accept-language", "").split(",")

    def weight(part: str) -> float:
        _, _, given = part.partition("q=")
        try:
            return -float(given) if given else -1.0
        except ValueError:
            return 0.0

    return sorted(parts, key=weight)
