"""One request to a chat endpoint: its budget, and its failures by what can be done about them."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from erv.chat.budget import Budget, Tokens
from erv.chat.protocol import ChatError, Message, media_in, one_line
from erv.settings.chat import ChatEndpoint

if TYPE_CHECKING:
    import httpx2
    from openai import APIConnectionError, APIStatusError, AsyncOpenAI

# Statuses below 500 that a retry may resolve.
_PASSING = (408, 409, 429)
# The SDK's longest wait before a retry, if the server names a time and if it doesn't.
_LONGEST_WAIT = 120
# Statuses by which servers refuse parts that the model doesn't take, and the words that some say it in.
_UNFIT = (400, 404, 413, 415, 422, 501)
_OF_MEDIA = re.compile(r"(?i)image|audio|sound|vision|multi-?modal|mmproj|content type|valid string")


class NoAnswerError(Exception):
    """No answer after all retries; the text says why, in one line and without secrets."""


class NoChatError(Exception):
    """An answer that is not a chat completion; the text shows its start."""


@dataclass
class Attempts:
    """What the SDK has sent for one request, including its own retries.

    Attributes:
        sent: how often it was sent.
        refused: how many of these got an error status; they are not billed.
    """

    sent: int = 0
    refused: int = 0

    @property
    def open(self) -> int:
        """How many may be billed: those without an answer or with a good one."""
        return self.sent - self.refused


_ATTEMPTS: ContextVar[Attempts] = ContextVar("attempts")


async def note_request(_: httpx2.Request) -> None:
    """Hook of the client: counts what is sent for this task's request."""
    _ATTEMPTS.get().sent += 1


async def note_response(response: httpx2.Response) -> None:
    """Hook of the client: counts what was refused."""
    if not response.is_success:
        _ATTEMPTS.get().refused += 1


class ChatRequests:
    """Sends conversations.

    Args:
        client: of the endpoint, with the hooks `note_request` and `note_response`; it retries by itself.
        settings: of the model.
        budget: shared by all requests.
        mask: removes the key from a text of the server.
    """

    def __init__(
        self, client: AsyncOpenAI, settings: ChatEndpoint, budget: Budget, mask: Callable[[str], str]
    ) -> None:
        self._client, self._settings, self._budget, self._mask = client, settings, budget, mask

    async def send(self, messages: Sequence[Message]) -> tuple[str, Tokens]:
        """The reply to a conversation, and what it took.

        Raises:
            BudgetSpentError: the request could exceed a cap; it was not sent.
            NoAnswerError: a timeout, a lost connection, a 408, 409, 429 or 5xx, after all retries.
            NoChatError: an answer in another form.
            ChatError: a 3xx or another 4xx.
        """
        bound = self._budget.bound(messages)
        most = bound * (self._settings.max_retries + 1)
        await self._budget.reserve(most)
        attempts = Attempts()
        _ATTEMPTS.set(attempts)
        taken: Tokens | None = None
        try:
            try:
                body = await self._post(messages)
            except _NothingSentError as error:
                taken = Tokens()
                raise error.reported from None
            content = _json(body)
            # Earlier attempts without an answer may be billed as well.
            taken = self._budget.reported(content.get("usage"), bound) + bound * (attempts.open - 1)
            return self._text(content, body), taken
        finally:
            self._budget.settle(most, bound * attempts.open if taken is None else taken)

    async def _post(self, messages: Sequence[Message]) -> bytes:
        """The body of the answer."""
        from openai import APIConnectionError, APIStatusError, APITimeoutError

        settings = self._settings
        # The timeout applies to each part of an answer, so one that arrives byte by byte needs a limit as
        # well.
        whole = (settings.max_retries + 1) * (2 * settings.timeout_seconds + _LONGEST_WAIT)
        messages_of_the_sdk: Any = list(messages)
        try:
            async with asyncio.timeout(whole):
                answer = await self._client.chat.completions.with_raw_response.create(
                    model=settings.model,
                    messages=messages_of_the_sdk,
                    temperature=settings.temperature,
                    max_completion_tokens=settings.max_reply_tokens,
                )
            return answer.http_response.content
        except (APITimeoutError, TimeoutError):
            failure: Exception = NoAnswerError(f"no answer within {settings.timeout_seconds:g} s")
        except APIConnectionError as error:
            failure = self._lost(error)
        except APIStatusError as error:
            failure = self._refused(error, media_in(messages))
        raise failure  # raised out here, so that the SDK's error, which may show the key, is not its context

    def _lost(self, error: APIConnectionError) -> Exception:
        from httpx2 import ConnectError

        cause = one_line(self._mask(str(error.__cause__ or error)))
        failure = NoAnswerError(f"no connection ({cause or 'it was cut'})")
        return _NothingSentError(failure) if isinstance(error.__cause__, ConnectError) else failure

    def _refused(self, error: APIStatusError, media: str) -> Exception:
        status = error.status_code
        said = one_line(self._mask(_said(error)))
        answer = f"{status}{f' ({said})' if said else ''}"
        server = f"{self._settings.name}: {self._settings.base_url}"
        other = f"use a model that sees and hears, or set shows of the {self._settings.role} to caption"
        # Some servers say it with a 500, which would otherwise pass for one that a retry may resolve.
        if media and status in (*_UNFIT, 500) and _OF_MEDIA.search(said):
            return ChatError(f"{server} does not take {media}: it answers {answer}; {other}")
        if media and status in _UNFIT:
            return ChatError(
                f"{server} answers {answer} to a request with {media}; if it takes none, {other}"
            )
        if status >= 500 or status in _PASSING:
            return NoAnswerError(f"the server answers {answer}")
        advice = f"fix the {self._settings.role}'s settings and run it again"
        if status < 400:
            advice = "redirects are not followed, so set base_url to the server's real address"
        return ChatError(f"{server} answers {answer}; {advice}")

    def _text(self, content: dict[str, Any], body: bytes) -> str:
        """The text of the first choice; empty if the model said nothing.

        Raises:
            NoChatError: there is no such choice.
        """
        try:
            text = content["choices"][0]["message"]["content"]
        except (KeyError, IndexError, TypeError):
            raise self._no_chat(body) from None
        if text is not None and not isinstance(text, str):
            raise self._no_chat(body)
        return text or ""

    def _no_chat(self, body: bytes) -> NoChatError:
        beginning = one_line(self._mask(body[:2000].decode("utf-8", "replace")))
        return NoChatError(f"the answer is no chat completion: {beginning}")


class _NothingSentError(Exception):
    """There is no connection, so nothing is billed.

    Attributes:
        reported: the error to raise to callers.
    """

    def __init__(self, reported: Exception) -> None:
        super().__init__(str(reported))
        self.reported = reported


def _json(body: bytes) -> dict[str, Any]:
    """An answer as an object; empty if it is not one."""
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _said(error: APIStatusError) -> str:
    """The server's message if it has the usual form; otherwise its whole answer."""
    if error.status_code < 400:
        return f"to {error.response.headers.get('location', 'nowhere')}"
    body: Any = error.response.text
    content = _json(error.response.content)
    for part in (content.get("error"), content):
        if isinstance(part, dict):
            found = next((part[key] for key in ("message", "detail", "error") if part.get(key)), None)
            if isinstance(found, str):
                return found
    return str(body)
