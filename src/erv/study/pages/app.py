"""The web application of a study: consent, instructions, items, and the end."""

from __future__ import annotations

from fastapi import FastAPI
from starlette.responses import PlainTextResponse, Response

from erv.study.answers.database import Database
from erv.study.answers.links import PATH
from erv.study.pages.shown import PACKAGE, Shown
from erv.study.pages.taken import Taken
from erv.study.plan import Study
from erv.web.gate import HEALTH
from erv.web.pages import STATIC, Static

MOST_BYTES = 1 << 16  # of a request: an answer is a few hundred bytes


def application(study: Study, database: Database, *, https: bool = False) -> FastAPI:
    """The pages of a study.

    Args:
        study: its clips must have been checked, see `erv.study.media.check_media`.
        database: of its answers.
        https: whether browsers reach the pages by https.
    """
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.mount(STATIC, Static((PACKAGE,)))
    shown, taken = Shown(study, database), Taken(study, database, https=https)
    app.get(HEALTH)(_health)
    app.get(PATH)(shown.consent)
    app.get("/declined")(shown.declined)
    app.get("/instructions")(shown.instructions)
    app.get("/")(shown.now)
    app.get("/clips/{clip_id}")(shown.clip)
    app.post(PATH)(taken.enter)
    app.post("/emotion")(taken.emotion)
    app.post("/answer")(taken.answer)
    app.post("/undo")(taken.undo)
    app.post("/finish")(taken.finish)
    return app


def _health() -> Response:
    return PlainTextResponse("ok")
