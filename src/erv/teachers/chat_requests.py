"""One request to a chat endpoint: its budget, and its failures sorted by what can be done about them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from erv.teacher_settings import OpenAITeacher
from erv.teachers.asking import Message, one_line
from erv.teachers.base import TeacherError
from erv.teachers.budget import Budget, Tokens

if TYPE_CHECKING:
    from openai import APIConnectionError, APIStatusError, AsyncOpenAI

# Statuses below 500 that asking again may mend.
_PASSING = (408, 409, 429)
# What the SDK waits before a retry at most, when the server names a time and when it doesn't.
_LONGEST_WAIT = 120


class NoAnswerError(Exception):
    """No answer after all retries; the text says why, in one line and without secrets."""


class NoChatError(Exception):
    """An answer that is no chat completion; the text shows its beginning."""


class ChatRequests:
    """Sends conversations.

    Args:
        client: of the endpoint; it retries by itself.
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
        await self._budget.reserve(bound)
        # What was sent may be billed, whether its answer comes or not.
        taken = bound
        try:
            try:
                body = await self._post(messages)
            except _NothingTakenError as error:
                taken = Tokens()
                raise error.told from None
            content = _json(body)
            taken = self._budget.reported(content.get("usage"), bound)
            return self._text(content, body), taken
        finally:
            self._budget.settle(bound, taken)

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
        except (APITimeoutError, TimeoutError):
            raise NoAnswerError(f"no answer within {settings.timeout_seconds:g} s") from None
        except APIConnectionError as error:
            raise self._lost(error) from None
        except APIStatusError as error:
            raise _NothingTakenError(self._refused(error)) from None
        return answer.http_response.content

    def _lost(self, error: APIConnectionError) -> Exception:
        from httpx2 import ConnectError

        cause = one_line(self._mask(str(error.__cause__ or error)))
        told = NoAnswerError(f"no connection ({cause or 'it was cut'})")
        return _NothingTakenError(told) if isinstance(error.__cause__, ConnectError) else told

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


class _NothingTakenError(Exception):
    """A failure after which nothing is billed.

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
