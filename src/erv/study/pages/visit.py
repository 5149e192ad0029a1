"""Who is asking, in which language, and where in the study they are."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus

from starlette.requests import Request
from starlette.responses import Response

from erv.study.answers.database import Database, NotInvitedError, Rater
from erv.study.answers.raters import hash_of
from erv.study.contents import Item, Texts
from erv.study.plan import Study
from erv.web.errors import Refused

# A page names its visit: where raters share a browser, the session may be another's by then.
MARK = "erv-study-visit"
_DAYS = 60


def cookie_of(study: Study) -> str:
    """The name of the cookie of a study's sessions: ports of a host share cookies, so studies must not."""
    return f"erv_study_{study.sha256[:12]}"


@dataclass(frozen=True)
class Visit:
    """A rater at a moment of the study.

    Attributes:
        rater: who.
        language: in which they agreed.
        done: ids of the items that are answered, in the order of the answers.
        item: the next one; None if all are answered.
        mark: the same for all visits of a rater to a study, and no other's; tells nothing else.
    """

    rater: Rater
    language: str
    done: tuple[str, ...]
    item: Item | None
    mark: str


def visit(request: Request, database: Database) -> Visit:
    """The rater whose session a browser has.

    Raises:
        Refused: it has none, or it holds no longer, or the page that asks was another rater's; the sentence
            says what to do.
    """
    try:
        rater = database.resume(request.cookies.get(cookie_of(database.study), ""))
    except NotInvitedError as error:
        raise Refused(HTTPStatus.UNAUTHORIZED, str(error), code="not_invited") from error
    mark = hash_of(f"{database.study.sha256}/{rater.id}")[:16]
    if request.headers.get(MARK, mark) != mark:
        raise Refused(
            HTTPStatus.CONFLICT,
            "Somebody else has entered the study in this browser; open it from your own link again.",
            code="other_rater",
        )
    done = tuple(database.done(rater))
    item_id = next((item for item in rater.items if item not in set(done)), None)
    item = None if item_id is None else database.study.item(item_id)
    return Visit(rater, database.consented(rater) or database.study.languages[0], done, item, mark)


def remember(response: Response, session: str, study: Study, *, secure: bool) -> None:
    """Has the browser keep a session; no script can read it, and no other site's form can use it.

    Args:
        response: to the browser.
        session: of `Database.session`.
        study: that it is a session of.
        secure: only for pages that are reached by https.
    """
    response.set_cookie(
        cookie_of(study),
        session,
        max_age=_DAYS * 86_400,
        httponly=True,
        samesite="lax",
        secure=secure,
        path="/",
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
