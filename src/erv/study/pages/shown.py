"""What raters see.

What a rater may not know is never sent. Items go out one at a time, without their role (but for practice),
and without explanations until the rater has said which emotion the clip shows.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from fastapi import Request
from starlette.responses import FileResponse, Response

from erv.study.answers.database import Database
from erv.study.answers.links import PATH, TOKEN, participant_in
from erv.study.contents import HIGHEST, LOWEST, RATINGS, Texts
from erv.study.pages.visit import Visit, language_of, visit, words
from erv.study.plan import TIE, Study
from erv.web.errors import Refused
from erv.web.pages import Pages

PACKAGE = "erv.study.pages"
_NAMES = {"de": "Deutsch", "en": "English", "es": "Español", "fr": "Français", "it": "Italiano", "zh": "中文"}
_KEYS = "abcdefghijklmnopqrst"  # that choose an emotion; U undoes


class Shown:
    """The pages, and the clips on them.

    Args:
        study: what is asked.
        database: of the answers.
    """

    def __init__(self, study: Study, database: Database) -> None:
        self._study, self._database, self._pages = study, database, Pages(PACKAGE)

    def consent(self, request: Request) -> Response:
        """What somebody agrees to who comes with an invitation. Nothing is looked up or stored yet."""
        languages = self._study.languages
        language = language_of(request, languages)
        query = request.query_params
        others = [
            (name, _NAMES.get(name, name), f"{PATH}?{request.url.include_query_params(lang=name).query}")
            for name in languages
            if name != language
        ]
        given = {"token": query.get(TOKEN, ""), "participant": participant_in(query) or ""}
        return self._page("consent", language, others=others, path=PATH, **given)

    def declined(self, request: Request) -> Response:
        """The end for somebody who doesn't agree."""
        return self._page("declined", language_of(request, self._study.languages))

    def instructions(self, request: Request) -> Response:
        """How it works."""
        here = visit(request, self._database)
        return self._page("instructions", here.language, here=here)

    def now(self, request: Request) -> Response:
        """Where the rater is: the next question, or the end."""
        here = visit(request, self._database)
        if here.item is None:
            return self._end(here)
        item, texts = here.item, self._study.texts[here.language]
        common = {**_progress(here), "here": here, "item": item, "practice": item.role == "practice"}
        seen = self._database.seen(here.rater, item.id)
        if seen is None:
            keys = [*_KEYS, *[""] * len(self._study.emotions)]
            choices = [
                (label, texts.emotions[label], key)
                for label, key in zip(self._study.emotions, keys, strict=False)
            ]
            return self._page("emotion", here.language, choices=choices, **common)
        return self._page(
            item.kind,
            here.language,
            emotion=texts.emotions[seen[0]],
            explanations=self._study.shown(here.rater.slot or "", item.id),
            tie=TIE,
            ratings=RATINGS,
            values=range(LOWEST, HIGHEST + 1),
            **common,
        )

    def clip(self, request: Request, clip_id: str) -> Response:
        """A clip, or a part of it, for a rater who is asked about it."""
        here = visit(request, self._database)
        mine = {self._study.item(item).clip_id for item in here.rater.items}
        if clip_id not in mine:
            raise Refused(HTTPStatus.NOT_FOUND, "There is no such clip among yours.")
        headers = {"Cache-Control": "private, max-age=86400"}
        return FileResponse(self._study.clip_file(clip_id), media_type="video/mp4", headers=headers)

    def _end(self, here: Visit) -> Response:
        if not self._database.is_complete(here.rater):
            return self._page("finished", here.language, here=here, **_progress(here))
        panel = self._study.panel
        return self._page(
            "thanks",
            here.language,
            here=here,
            code=self._database.complete(here.rater),
            back=None if panel is None else panel.return_link,
        )

    def _page(self, template: str, language: str, **values: Any) -> Response:
        texts = self._study.texts[language]
        shared: dict[str, Any] = {"lang": language, "texts": texts, "word": _worded(texts), "here": None}
        return self._pages.page(f"pages/{template}.html.j2", **{**shared, **values})


def _progress(here: Visit) -> dict[str, object]:
    """How far a rater is, and a new key for what is sent from the page."""
    total = len(here.rater.items)
    return {"done": len(here.done), "total": total, "key": secrets.token_urlsafe(16)}


def _worded(texts: Texts) -> Callable[..., str]:
    return lambda name, **values: words(texts, name, **values)
