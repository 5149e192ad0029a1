"""Runs MLflow's or Prefect's server behind our gate, in the foreground.

Command: `python -m erv.stack.server {mlflow,prefect} --port PORT`. `erv stack up` and the compose stack use
it in place of `mlflow server` and `prefect server start`, which start the same applications without the gate.
What must not appear in a list of processes comes from the environment:

- MLflow: `ERV_MLFLOW_TOKEN`, `MLFLOW_BACKEND_STORE_URI`, `MLFLOW_ARTIFACTS_DESTINATION`;
- Prefect: `PREFECT_SERVER_API_AUTH_STRING`, and its database in the compose stack.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from typing import Any

import uvicorn
from fastapi import FastAPI
from starlette.routing import Mount
from starlette.types import ASGIApp

from erv.web.gate import guarded

_LOCAL = "127.0.0.1,localhost"


def mlflow_app() -> ASGIApp:
    """MLflow's tracking server with its artifacts, as `mlflow server --serve-artifacts` would start it.

    Raises:
        KeyError: a variable of this module's docstring is missing.
        ValueError: the key is empty.
    """
    # MLflow hands its settings to the application in these variables; the module names them.
    from mlflow.server import constants

    store = os.environ["MLFLOW_BACKEND_STORE_URI"]
    root = "mlflow-artifacts:/"
    os.environ[constants.BACKEND_STORE_URI_ENV_VAR] = store
    os.environ[constants.REGISTRY_STORE_URI_ENV_VAR] = store
    os.environ[constants.ARTIFACT_ROOT_ENV_VAR] = root
    os.environ[constants.ARTIFACTS_DESTINATION_ENV_VAR] = os.environ["MLFLOW_ARTIFACTS_DESTINATION"]
    os.environ[constants.SERVE_ARTIFACTS_ENV_VAR] = "true"
    from mlflow.server.fastapi_app import app
    from mlflow.server.handlers import initialize_backend_stores

    initialize_backend_stores(store, store, root)
    key = os.environ["ERV_MLFLOW_TOKEN"]
    return guarded(app, key=key, realm="MLflow of this workspace", remedy="see `erv stack key`")


def prefect_app(hosts: Sequence[str], services: bool) -> ASGIApp:
    """Prefect's API and UI.

    Args:
        hosts: the names that it answers by.
        services: whether its background services run in this process, too.

    Raises:
        KeyError: `PREFECT_SERVER_API_AUTH_STRING` is not set, and the server would let everybody in.
    """
    if not os.environ["PREFECT_SERVER_API_AUTH_STRING"]:
        raise KeyError("PREFECT_SERVER_API_AUTH_STRING is empty")
    # By name: the library itself must not depend on the orchestration.
    create_app = uvicorn.importer.import_from_string("prefect.server.api.server:create_app")
    app = create_app(final=True, webserver_only=not services)
    _close_api_pages(app)
    return guarded(app, hosts)


def _close_api_pages(app: Any) -> None:
    """Takes FastAPI's description of the server and its pages away: they need no key.

    They also load scripts from elsewhere, which could read the key that Prefect's page keeps in the browser.
    The API's own description, `/api/docs`, asks for the key.
    """
    mounted = [route.app for route in app.routes if isinstance(route, Mount)]
    for part in [app, *(part for part in mounted if isinstance(part, FastAPI) and part is not app.api_app)]:
        pages = {part.docs_url, part.redoc_url, part.openapi_url, part.swagger_ui_oauth2_redirect_url}
        part.router.routes[:] = [route for route in part.routes if getattr(route, "path", None) not in pages]


def main(arguments: Sequence[str] | None = None) -> None:
    """Serves until it gets SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="python -m erv.stack.server", description=__doc__)
    parser.add_argument("server", choices=["mlflow", "prefect"])
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--workers", type=int, default=1, help="processes of MLflow (%(default)s)")
    parser.add_argument("--hosts", default=_LOCAL, help="names that Prefect answers by (%(default)s)")
    parser.add_argument("--no-services", action="store_true", help="Prefect's API and UI alone")
    options = parser.parse_args(arguments)
    if options.server == "mlflow":
        application = "erv.stack.server:mlflow_app"
        uvicorn.run(application, factory=True, host=options.host, port=options.port, workers=options.workers)
    else:
        hosts = [name for name in options.hosts.split(",") if name]
        app = prefect_app(hosts, not options.no_services)
        uvicorn.run(app, host=options.host, port=options.port, log_level="warning")


if __name__ == "__main__":
    main()
