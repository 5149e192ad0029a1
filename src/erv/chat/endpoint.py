"""A model behind an HTTP endpoint with OpenAI's chat completions API.

Retries, backoff and timeouts of a single request are those of OpenAI's SDK. A request has only fields that
OpenAI, `transformers serve` and vLLM all accept: the model, the messages, the temperature and
`max_completion_tokens` (OpenAI's newer models refuse the older `max_tokens`).
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from erv.chat.budget import Budget, BudgetSpentError, Tokens
from erv.chat.protocol import Answer, ChatError, Fault, Questions, Refusal, Usage, one_line
from erv.chat.replies import ReplyCache
from erv.chat.requests import (
    ChatRequests,
    NoAnswerError,
    NoChatError,
    note_request,
    note_response,
)
from erv.errors import SettingsError
from erv.event_loop import run_to_end
from erv.progress import meter
from erv.settings import chat

if TYPE_CHECKING:
    import httpx2
    from openai import AsyncOpenAI

logger = logging.getLogger(__name__)

# More unanswered texts than this end a run: a server that is gone must not take hours.
_FEWEST_UNANSWERED, _UNANSWERED_SHARE = 5, 0.05
# Nor must a model that can't reply in the required form be asked, and paid, for all of them.
_FEWEST_MALFORMED, _MALFORMED_SHARE = 20, 0.5
# The only headers sent; the SDK would add some from its own environment variables and describe this machine.
# The last one tells it that its caller wants the bytes of an answer.
_SENT_HEADERS = re.compile(
    r"(?i)host|accept(-encoding)?|connection|content-(type|length)|user-agent|x-stainless-raw-response"
)
_KEY = re.compile(r"[!-~]+")


class ChatEndpoint:
    """Asks about texts through an endpoint; replies are stored, so that a stopped run can resume.

    Args:
        settings: of the model.
        cache: folder of the stored replies; created if missing.
        environ: holds the variable of the key; this process's environment if omitted.

    Raises:
        SettingsError: the variable of the key is not set, or does not hold a key.
    """

    def __init__(
        self,
        settings: chat.ChatEndpoint,
        cache: Path,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self._settings, self._folder = settings, cache
        self._key = _key(settings, os.environ if environ is None else environ)
        self._budget = Budget(settings)
        self._requests = self._cached = self._retried = 0

    @property
    def name(self) -> str:
        """`openai:` and the model."""
        return self._settings.name

    @property
    def usage(self) -> Usage:
        """The usage so far, over all calls of `ask`; the budget covers all of them together."""
        spent = self._budget.spent
        return Usage(
            self._requests, self._cached, self._retried, spent.prompt, spent.reply, self._budget.cost
        )

    def ask(self, texts: Sequence[str], questions: Questions[Answer]) -> list[Answer | Refusal]:
        """The answer for each text, in order; a repeated text is asked about only once.

        Raises:
            ChatError: the server refuses (a 3xx or 4xx that a retry can't resolve), too many texts have no
                answer, or the budget is spent. What is answered by then is kept.
            DataError: the stored replies can't be read or written.
        """
        known: dict[str, Answer | Refusal] = {}
        with ReplyCache(self._folder) as cache:
            missing = []
            for text in dict.fromkeys(texts):
                reply = cache.get(self._cache_key(text, questions))
                answer = Fault("") if reply is None else questions.read(reply)
                if isinstance(answer, Fault):
                    missing.append(text)
                else:
                    known[text] = answer
            self._cached += len(known)
            if missing:
                run_to_end(self._ask_all(missing, questions, cache, known))
        return [known[text] for text in texts]

    def prompt_tokens(self, text: str, questions: Questions[Answer]) -> int | None:
        """The prompt tokens that the server counted for a text's answered question; None if it didn't say.

        Raises:
            DataError: the stored replies can't be read.
        """
        with ReplyCache(self._folder) as cache:
            taken = cache.prompt_tokens(self._cache_key(text, questions))
        # Without a count, and for attempts without an answer, the bound is counted.
        return None if taken is None or taken >= self._budget.bound(questions.first(text)).prompt else taken

    def _cache_key(self, text: str, questions: Questions[Answer]) -> str:
        """The key of the first question; a reply to a corrected one is stored under it, too."""
        settings = self._settings
        messages = questions.first(text)
        return ReplyCache.key(
            settings.address, settings.model, messages, settings.temperature, settings.max_reply_tokens
        )

    async def _ask_all(
        self,
        missing: list[str],
        questions: Questions[Answer],
        cache: ReplyCache,
        known: dict[str, Answer | Refusal],
    ) -> None:
        """Asks about every missing text and puts the answers into `known`."""
        self._budget.begin()
        noun, done = questions.noun, questions.done
        bar = meter(self.name, len(missing), noun, logger)
        unanswered = malformed = decided = 0
        total = len(known) + len(missing)

        async def work(waiting: Iterator[str]) -> None:
            nonlocal unanswered, malformed, decided
            for text in waiting:
                try:
                    answer = known[text] = await self._ask(text, questions, requests, cache)
                except BudgetSpentError as error:
                    raise ChatError(
                        f"{self.name}: stopped with {_answered(known)} of {total} {noun} {done} and"
                        f" kept: {error} and run it again to continue"
                    ) from None
                except NoAnswerError as error:
                    known[text] = Refusal("no_answer", str(error))
                    unanswered += 1
                    if unanswered > max(_FEWEST_UNANSWERED, _UNANSWERED_SHARE * total):
                        raise ChatError(
                            f"{self.name}: {self._settings.base_url} gave no answer for {unanswered} of"
                            f" {total} {noun}, at last: {error}; {_answered(known)} are {done} and kept,"
                            " so check the server and run it again to continue"
                        ) from None
                else:
                    decided += 1
                    if isinstance(answer, Refusal):
                        malformed += 1
                        if questions.strict and malformed > max(
                            _FEWEST_MALFORMED, _MALFORMED_SHARE * decided
                        ):
                            raise ChatError(
                                f"{self.name}: {malformed} of {decided} {noun} got no reply of the form"
                                f" asked for, at last: {answer.detail}; take a model that follows it, or"
                                " raise max_reply_tokens for one that thinks first"
                            )
                bar.update()

        async with self._client() as client:
            requests = ChatRequests(client, self._settings, self._budget, self._mask)
            # One iterator for all workers: as many texts are in flight as there are workers.
            shared = iter(missing)
            workers = [
                asyncio.create_task(work(shared))
                for _ in range(min(self._settings.concurrency, len(missing)))
            ]
            try:
                await asyncio.gather(*workers)
            finally:
                bar.close()
                for worker in workers:
                    worker.cancel()
                await asyncio.gather(*workers, return_exceptions=True)

    async def _ask(
        self, text: str, questions: Questions[Answer], requests: ChatRequests, cache: ReplyCache
    ) -> Answer | Refusal:
        """Asks until a reply is well formed, and keeps that one.

        Raises:
            NoAnswerError, BudgetSpentError, ChatError: see `ChatRequests.send`.
        """
        messages = questions.first(text)
        taken, last = Tokens(), Refusal("malformed", "")
        for attempt in range(self._settings.attempts):
            self._retried += attempt > 0
            try:
                reply, tokens = await requests.send(messages)
            except NoChatError as error:
                last = Refusal("no_answer", str(error))
                continue
            self._requests += 1
            taken += tokens
            reply = self._mask(reply)
            answer = questions.read(reply)
            if not isinstance(answer, Fault):
                cache.put(self._cache_key(text, questions), reply, taken.prompt, taken.reply)
                return answer
            last = Refusal("malformed", one_line(reply) or answer.reason)
            messages = [*messages, *questions.correction(reply, answer.reason)]
        if last.reason == "no_answer":
            raise NoAnswerError(last.detail)
        return last

    @asynccontextmanager
    async def _client(self) -> AsyncIterator[AsyncOpenAI]:
        """The SDK's client; closed at the end, whatever happens."""
        from openai import AsyncOpenAI, DefaultAsyncHttpxClient

        key, settings = self._key, self._settings

        async def ours_alone(request: httpx2.Request) -> None:
            for header in [name for name in request.headers if not _SENT_HEADERS.fullmatch(name)]:
                del request.headers[header]
            if key is not None:
                request.headers["Authorization"] = f"Bearer {key}"

        # A redirect is not followed, and nothing for this machine goes through a proxy of the environment:
        # what is asked and the key go to base_url and nowhere else.
        host = urlsplit(settings.base_url).hostname or ""
        direct = f"all://[{host}]" if ":" in host else f"all://{host}"
        transport = DefaultAsyncHttpxClient(
            timeout=settings.timeout_seconds,
            follow_redirects=False,
            mounts={direct: None} if settings.on_this_machine else None,
            event_hooks={"request": [ours_alone, note_request], "response": [note_response]},
        )
        async with AsyncOpenAI(
            api_key=key or "none",
            base_url=settings.base_url,
            timeout=settings.timeout_seconds,
            max_retries=settings.max_retries,
            http_client=transport,
        ) as client:
            yield client

    def _mask(self, text: str) -> str:
        return text if self._key is None else text.replace(self._key, "***")


def _key(settings: chat.ChatEndpoint, environ: Mapping[str, str]) -> str | None:
    if settings.api_key_env is None:
        return None
    key = environ.get(settings.api_key_env, "").strip()
    if not key:
        raise SettingsError(
            f"{settings.name}: the environment variable {settings.api_key_env} is not set; put the key of"
            f" {settings.base_url} into it, or set api_key_env of the {settings.role} to null if there is"
            " none"
        )
    if not _KEY.fullmatch(key):
        raise SettingsError(
            f"{settings.name}: the environment variable {settings.api_key_env} holds blanks or characters"
            " that no key has; put only the key into it"
        )
    return key


def _answered(known: Mapping[str, object]) -> int:
    return sum(not isinstance(answer, Refusal) for answer in known.values())
