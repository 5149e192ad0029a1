"""Pages from templates, and the files that they load.

A room with pages has `templates/NAME.html.j2`, which extend `web/base.html.j2`, and its styles and scripts in
`static/`. Everything that is put into a template is escaped, and a name that is missing is an error.
"""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from jinja2 import Environment, PackageLoader, PrefixLoader, StrictUndefined
from starlette.responses import HTMLResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

STATIC = "/static"


class Pages:
    """Renders the templates of a room.

    Args:
        package: the room, such as `erv.study`; its templates are then called `study/NAME.html.j2`. Those of
            `web` are always there.
    """

    def __init__(self, package: str = __package__) -> None:
        packages = {name.rpartition(".")[2]: name for name in (__package__, package)}
        self._environment = Environment(
            loader=PrefixLoader({short: PackageLoader(name) for short, name in packages.items()}),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.globals["static"] = lambda file: f"{STATIC}/{file}"

    def text(self, template: str, **values: Any) -> str:
        """A page as text.

        Raises:
            jinja2.UndefinedError: the template needs a value that is not among `values`.
            jinja2.TemplateNotFound: there is no such template.
        """
        return self._environment.get_template(template).render(**values)

    def page(self, template: str, *, status: int = HTTPStatus.OK, **values: Any) -> HTMLResponse:
        """A page as an answer; raises as `text`."""
        return HTMLResponse(self.text(template, **values), status)


class Static(StaticFiles):
    """The files in `static/` of rooms, to be mounted at `STATIC`; those of `web` come first.

    Args:
        packages: further rooms, such as `erv.study`. Files of two rooms must not have the same name.
    """

    def __init__(self, packages: Sequence[str] = ()) -> None:
        super().__init__(packages=[(name, "static") for name in (__package__, *packages)])

    async def get_response(self, path: str, scope: Scope) -> Response:
        """The file; a browser may keep it, but asks each time whether it is still the same."""
        response = await super().get_response(path, scope)
        response.headers["Cache-Control"] = "no-cache"
        return response
