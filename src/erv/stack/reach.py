"""Checks within seconds whether a server answers."""

from __future__ import annotations

import re
import urllib.error
import urllib.request
from collections.abc import Mapping
from http.client import HTTPResponse
from pathlib import Path

from erv.environment import remedy_for
from erv.errors import StackError

_TIMEOUT_SECONDS = 5.0
_VERSION = re.compile(r"\d+(\.\d+)+[\w.+-]*")  # 3.8.8, 3.9.0rc1, 3.4.1+55.g8a78d8e
_KEY_OF = {
    "MLflow": "its key, ERV_MLFLOW_TOKEN",
    "Prefect": "its key, ERV_PREFECT_AUTH_STRING (user:password) or ERV_PREFECT_API_KEY (Prefect Cloud)",
}


def unreachable(name: str, url: str, workspace: str | Path = ".") -> str | None:
    """An error message if nothing answers at `url` within seconds; None if something does, even to refuse.

    The remedy is for the servers of `workspace`.
    """
    if not url.startswith(("http://", "https://")):
        return f"{name}: {url!r} is not an http address; correct ERV_{name.upper()}_*"
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}) if _is_local(url) else _keep_proxy())
    try:
        with opener.open(url, timeout=_TIMEOUT_SECONDS):
            return None
    except urllib.error.HTTPError as error:
        if error.code < 500:
            return None
        remedy = remedy_for(name, workspace, own="see `erv stack status`")
        return f"{name} at {url} answers {error.code}; {remedy}"
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        return f"{name} at {url} can't be reached ({reason}); {remedy_for(name, workspace)}"


def server_version(
    name: str, url: str, address: str, headers: Mapping[str, str], workspace: str | Path = "."
) -> str:
    """The version that a server answers with, which shows that it takes the key.

    Args:
        name: MLflow or Prefect.
        url: the server's address, for the message.
        address: where it says its version.
        headers: with the key, if it asks for one.
        workspace: whose servers the remedy is about.

    Raises:
        StackError: it can't be reached, refuses, or answers with something else: the page of a login, say.
    """
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}) if _is_local(url) else _keep_proxy())
    try:
        request = urllib.request.Request(address, headers=dict(headers))  # noqa: S310
        with opener.open(request, timeout=_TIMEOUT_SECONDS) as response:
            said = _version(response)
    except urllib.error.HTTPError as error:
        raise StackError(
            f"{name} at {url} answers {error.code}; check its address and {_KEY_OF[name]}"
        ) from None
    except (OSError, ValueError):
        raise StackError(f"{name} at {url} can't be reached; {remedy_for(name, workspace)}") from None
    if _VERSION.fullmatch(said):
        return said
    raise StackError(
        f"what answers at {url} is not {name}: expected its version, got {said};"
        f" {remedy_for(name, workspace)}"
    )


def _version(response: HTTPResponse) -> str:
    """The version in an answer, or else a few words about what is there instead."""
    text = response.read(200).decode(errors="replace").strip().strip('"')
    if _VERSION.fullmatch(text):
        return text
    start = " ".join(text.replace(";", " ").split())[:40]
    return f"{response.headers.get_content_type()} that begins with {start!r}" if start else "nothing"


def require(name: str, url: str | None, workspace: str | Path = ".") -> str:
    """The address of a server that must answer; the remedy is for the servers of `workspace`.

    Raises:
        StackError: no server is configured, or it does not answer.
    """
    if not url:
        raise StackError(f"no {name} server is configured; {remedy_for(name, workspace)}")
    if fault := unreachable(name, f"{url.rstrip('/')}/health", workspace):
        raise StackError(fault)
    return url


def _is_local(url: str) -> bool:
    return "//127.0.0.1" in url or "//localhost" in url


def _keep_proxy() -> urllib.request.BaseHandler:
    return urllib.request.ProxyHandler()
