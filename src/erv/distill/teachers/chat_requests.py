"""One request to a chat endpoint: its budget, and its failures sorted by what can be done about them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from erv.distill.teachers.asking import Message, one_line
from erv.distill.teachers.budget import Budget, Tokens
from erv.distill.teachers.protocol import TeacherError
from erv.settings.teachers import OpenAITeacher

if TYPE_CHECKING:
    import httpx2
    from openai import APIConnectionError, APIStatusError, AsyncOpenAI

# Statuses below 500 that asking again may mend.
_PASSING = (408, 409, 429)
# What the SDK waits before a retry at most, when the server names a time and when it doesn't.
_LONGEST_WAIT = 120


class NoAnswerError(Exception):
    """No answer after all retries; the text says why, in one line and without secrets."""


class NoChatError(Exception):
    """An answer that is no chat completion; the text shows its beginning."""


@dataclass
class Attempts:
    """What the SDK has sent for one request, its own retries included.

    Attributes:
        sent: times it went out.
        refused: of those, the ones that a status of failure answered; they are not billed.
    """

    sent: int = 0
    refused: int = 0

    @property
    def open(self) -> int:
        """Those that may be billed: without an answer, or with a good one."""
        return self.sent - self.refused


_ATTEMPTS: ContextVar[Attempts] = ContextVar("attempts")


async def note_request(_: httpx2.Request) -> None:
    """Hook of the client: counts what goes out for the request of this task."""
    _ATTEMPTS.get().sent += 1


async def note_response(response: httpx2.Response) -> None:
    """Hook of the client: counts what was refused."""
    if not response.is_success:
        _ATTEMPTS.get().refused += 1


class ChatRequests:
    """Sends conversations.

    Args:
        client: of the endpoint, with the hooks `note_request` and `note_response`; it retries by itself.
        settings: of the teacher.
        budget: that all requests share.
        mask: takes the key out of a text from the server.
    """

    def __init__(
        self, client: AsyncOpenAI, settings: OpenAITeacher, budget: Budget, mask: Callable[[str], str]
    ) -> None:
        self._client, self._settings, self._budget, self._mask = client, settings, budget, mask

    async def send(self, messages: Sequence[Message]) -> tuple[str, Tokens]:
        """The reply to a conversation, and what it took.

        Raises:
            BudgetSpentError: the request could pass a cap; it was not sent.
            NoAnswerError: a timeout, a lost connection, a 408, 409, 429 or 5xx, after all retries.
            NoChatError: an answer of another form.
            TeacherError: a 3xx or another 4xx.
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
                raise error.told from None
            content = _json(body)
            # What went out before and had no answer may be billed as well.
            taken = self._budget.reported(content.get("usage"), bound) + bound * (attempts.open - 1)
            return self._text(content, body), taken
        finally:
            self._budget.settle(most, bound * attempts.open if taken is None else taken)

    async def _post(self, messages: Sequence[Message]) -> bytes:
        """The body of the answer."""
        from openai import APIConnectionError, APIStatusError, APITimeoutError

        settings = self._settings
        # The timeout holds for each part of an answer: one that comes byte by byte needs an end as well.
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
            failure = self._refused(error)
        raise failure  # out here, so that the SDK's error, which may show the key, is not its context

    def _lost(self, error: APIConnectionError) -> Exception:
        from httpx2 import ConnectError

        cause = one_line(self._mask(str(error.__cause__ or error)))
        told = NoAnswerError(f"no connection ({cause or 'it was cut'})")
        return _NothingSentError(told) if isinstance(error.__cause__, ConnectError) else told

    def _refused(self, error: APIStatusError) -> Exception:
        status = error.status_code
        said = one_line(self._mask(_said(error)))
        answer = f"{status}{f' ({said})' if said else ''}"
        if status >= 500 or status in _PASSING:
            return NoAnswerError(f"the server answers {answer}")
        advice = "mend the teacher's settings and run it again"
        if status < 400:
            advice = "redirects are not followed, so set base_url to where the server really is"
        return TeacherError(f"{self._settings.name}: {self._settings.base_url} answers {answer}; {advice}")

    def _text(self, content: dict[str, Any], body: bytes) -> str:
        """The text of the first choice; empty when the model said nothing.

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
        told: what it is to others.
    """

    def __init__(self, told: Exception) -> None:
        super().__init__(str(told))
        self.told = told


def _json(body: bytes) -> dict[str, Any]:
    """The object that an answer is; empty when it is none."""
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _said(error: APIStatusError) -> str:
    """The server's message, where it has the form that most use; otherwise its whole answer."""
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
