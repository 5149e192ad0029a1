"""The headers of every answer of our own servers: what its pages may load, and what a browser may keep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# Scripts and styles are files of ours: there are none in the pages, so text that becomes markup can't run.
# Media may also be a clip that the page holds itself (blob:), picked or recorded.
CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob:",
        "font-src 'self'",
        "media-src 'self' blob:",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
# What pages could ask the user for; all of it is off unless a server needs it.
_FEATURES = (
    "accelerometer",
    "camera",
    "display-capture",
    "geolocation",
    "gyroscope",
    "microphone",
    "payment",
    "usb",
)

_ALWAYS: Mapping[str, str] = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class SafeHeaders:
    """Adds the headers to every answer, errors included.

    `Cache-Control: no-store` is added where the answer has none of its own: pages show what belongs to one
    person.

    Args:
        app: the server.
        allow: features of `Permissions-Policy` that its own pages may use, such as `camera`.
    """

    def __init__(self, app: ASGIApp, allow: Sequence[str] = ()) -> None:
        if unknown := set(allow) - set(_FEATURES):
            raise ValueError(f"{', '.join(sorted(unknown))}: not among {', '.join(_FEATURES)}")
        features = (f"{name}=({'self' if name in allow else ''})" for name in _FEATURES)
        self._app, self._headers = app, {**_ALWAYS, "Permissions-Policy": ", ".join(features)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers as the server does, with the headers."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(self._headers)
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        await self._app(scope, receive, with_headers)
