"""What raters send. It is in the database before the browser hears that it is.

A request can be repeated: the same key is never a second answer. Scripts get an empty answer, or an error in
a sentence, and then show the next page.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import Form, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import RedirectResponse, Response

from erv.errors import DataError
from erv.study.answers.database import Database, NotInvitedError, RefusedError, StudyFullError
from erv.study.contents import RATINGS
from erv.study.pages.visit import Visit, remember, visit
from erv.study.plan import Study
from erv.web.errors import Refused


class AnswerForm(BaseModel):
    """An answer as the form sends it; either `preferred`, or all of the ratings.

    Attributes:
        item: id of the item on the page.
        key: of this answer.
        seconds: for which its explanations were shown.
        preferred: a code, or `tie`.
        rating_emotion: 1..5, as are the others.
        rating_own_answer: see there.
        rating_true: see there.
        rating_fluent: see there.
    """

    model_config = ConfigDict(extra="forbid")

    item: str
    key: str
    seconds: Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
    preferred: str | None = None
    rating_emotion: int | None = None
    rating_own_answer: int | None = None
    rating_true: int | None = None
    rating_fluent: int | None = None


class Taken:
    """The addresses that forms are sent to.

    Args:
        study: what is asked.
        database: of the answers.
        https: whether browsers reach the pages by https.
    """

    def __init__(self, study: Study, database: Database, *, https: bool) -> None:
        self._study, self._database, self._https = study, database, https

    def enter(
        self,
        token: Annotated[str, Form()],
        language: Annotated[str, Form()],
        participant: Annotated[str, Form()] = "",
    ) -> Response:
        """Lets in who agreed: the first time with a seat, later as the same rater."""
        if language not in self._study.languages:
            raise Refused(HTTPStatus.BAD_REQUEST, "The study has no texts in this language.")
        with _told():
            rater = self._database.enter(token, participant or None)
            session = self._database.session(rater)
            self._database.consent(rater, language)
        begun = bool(self._database.done(rater))
        response = RedirectResponse("/" if begun else "/instructions", HTTPStatus.SEE_OTHER)
        remember(response, session, self._study, secure=self._https)
        return response

    def emotion(
        self,
        request: Request,
        item: Annotated[str, Form()],
        emotion: Annotated[str, Form()],
        seconds: Annotated[float, Form(ge=0.0, allow_inf_nan=False)],
    ) -> Response:
        """Takes the emotion that a rater sees, before any explanation is shown."""
        here = self._at(request, item)
        with _told():
            self._database.see(here.rater, item, emotion, seconds)
        return _kept()

    def answer(self, request: Request, form: Annotated[AnswerForm, Form()]) -> Response:
        """Takes a preference or ratings."""
        here = visit(request, self._database)
        if form.item in here.rater.items and (seen := self._database.seen(here.rater, form.item)) is not None:
            emotion, before = seen
        else:
            raise Refused(HTTPStatus.CONFLICT, "This page is out of date; reload it.", code="stale")
        value: dict[str, Any] = {"emotion": emotion}
        if form.preferred is not None:
            value["preferred"] = form.preferred
        ratings = {name: getattr(form, f"rating_{name}") for name in RATINGS}
        if any(number is not None for number in ratings.values()):
            value["ratings"] = ratings
        with _told():
            self._database.add(here.rater, form.item, value, before + form.seconds, form.key)
        return _kept()

    def undo(self, request: Request, key: Annotated[str, Form()]) -> Response:
        """Takes back the last answer; its item is then asked again."""
        here = visit(request, self._database)
        with _told():
            self._database.undo(here.rater, key)
        return _kept()

    def finish(self, request: Request) -> Response:
        """Ends the study for a rater, who then sees the completion code."""
        here = visit(request, self._database)
        with _told():
            self._database.complete(here.rater)
        return _kept()

    def _at(self, request: Request, item: str) -> Visit:
        """The rater, who must be at this item: no other is looked at yet."""
        here = visit(request, self._database)
        if here.item is None or here.item.id != item:
            raise Refused(HTTPStatus.CONFLICT, "This page is out of date; reload it.", code="stale")
        return here


def _kept() -> Response:
    return Response(status_code=HTTPStatus.NO_CONTENT)


@contextmanager
def _told() -> Iterator[None]:
    """Makes what the database refuses an answer to the rater."""
    try:
        yield
    except NotInvitedError as error:
        raise Refused(HTTPStatus.FORBIDDEN, str(error), code="not_invited") from error
    except StudyFullError as error:
        raise Refused(HTTPStatus.CONFLICT, str(error), code="full") from error
    except RefusedError as error:
        raise Refused(HTTPStatus.CONFLICT, str(error), code="refused") from error
    except DataError as error:
        raise Refused(HTTPStatus.BAD_REQUEST, str(error)) from error
