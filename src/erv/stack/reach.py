"""Checks within seconds whether a server answers."""

from __future__ import annotations

import urllib.error
import urllib.request

from erv.errors import StackError

_TIMEOUT_SECONDS = 5.0


def unreachable(name: str, url: str) -> str | None:
    """An error message if nothing answers at `url` within seconds; None if something does, even to refuse."""
    if not url.startswith(("http://", "https://")):
        return f"{name}: {url!r} is not an http address; check ERV_{name.upper()}_* or run `erv stack up`"
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}) if _is_local(url) else _keep_proxy())
    try:
        with opener.open(url, timeout=_TIMEOUT_SECONDS):
            return None
    except urllib.error.HTTPError as error:
        return None if error.code < 500 else f"{name} at {url} answers {error.code}; see `erv stack status`"
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        return f"{name} at {url} can't be reached ({reason}); run `erv stack up`"


def require(name: str, url: str | None) -> str:
    """The address of a server that must answer.

    Raises:
        StackError: no server is configured, or it does not answer.
    """
    if not url:
        raise StackError(f"no {name} server is configured; run `erv stack up`")
    if fault := unreachable(name, f"{url.rstrip('/')}/health"):
        raise StackError(fault)
    return url


def _is_local(url: str) -> bool:
    return "//127.0.0.1" in url or "//localhost" in url


def _keep_proxy() -> urllib.request.BaseHandler:
    return urllib.request.ProxyHandler()
