"""The caps of a run: no request is sent that could exceed them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from erv.chat.protocol import Message
from erv.settings.chat import ChatEndpoint

# Generous bounds for what a chat template adds around a conversation and around each message.
_AROUND_ALL, _AROUND_EACH = 64, 16
# Larger counts are implausible; this one also ends a run, and still fits a float.
_MOST_TOKENS = 10**15
# Generous, too: tokens of a picture of at most 512 pixels, of which most models make a few hundred; and
# characters of base64 per token of sound: 430 tokens a second at 16 kHz, where 10 to 50 are usual.
_PICTURE, _SOUND_CHARACTERS = 10_000, 100


@dataclass(frozen=True)
class Tokens:
    """Tokens of one or several requests."""

    prompt: int = 0
    reply: int = 0

    def __add__(self, other: Tokens) -> Tokens:
        return Tokens(self.prompt + other.prompt, self.reply + other.reply)

    def __mul__(self, times: int) -> Tokens:
        return Tokens(self.prompt * times, self.reply * times)

    def __sub__(self, other: Tokens) -> Tokens:
        return Tokens(self.prompt - other.prompt, self.reply - other.reply)


class BudgetSpentError(Exception):
    """A request could exceed a cap. The text says how much of what is spent, and what to raise."""


class Budget:
    """What one model has spent, and what its requests in flight may still take.

    Attributes:
        spent: tokens so far.
    """

    def __init__(self, settings: ChatEndpoint) -> None:
        self._settings = settings
        self.spent = Tokens()
        self.begin()

    def begin(self) -> None:
        """Starts with no requests in flight. Call it once per event loop, because waiters belong to one."""
        self._reserved, self._under_way = Tokens(), 0
        self._freed = asyncio.Event()

    @property
    def cost(self) -> float | None:
        """The cost of what is spent, in the currency of the prices; None without prices."""
        return self._cost(self.spent)

    def bound(self, messages: Sequence[Message]) -> Tokens:
        """The most that a request can take, because a token of text stands for at least one byte."""
        prompt = sum(_most(message["content"]) + _AROUND_EACH for message in messages)
        return Tokens(prompt + _AROUND_ALL, self._settings.max_reply_tokens)

    async def reserve(self, bound: Tokens) -> None:
        """Reserves what a request can take; waits for requests in flight if that may make room.

        Raises:
            BudgetSpentError: it would exceed a cap, and nothing is in flight.
        """
        while (passed := self._passed(self.spent + self._reserved + bound)) is not None:
            if not self._under_way:
                raise BudgetSpentError(passed)
            self._freed.clear()
            await self._freed.wait()
        self._reserved += bound
        self._under_way += 1

    def settle(self, bound: Tokens, taken: Tokens) -> None:
        """Ends a request: counts what it took and releases its reservation."""
        self._reserved -= bound
        self._under_way -= 1
        self.spent += taken
        self._freed.set()

    def reported(self, usage: object, bound: Tokens) -> Tokens:
        """What a request took according to the server, or the bound if it doesn't say."""
        if not isinstance(usage, dict):
            return bound
        prompt, reply = usage.get("prompt_tokens"), usage.get("completion_tokens")
        if type(prompt) is not int or type(reply) is not int or prompt < 0 or reply < 0:
            return bound
        return Tokens(min(prompt, _MOST_TOKENS), min(reply, _MOST_TOKENS))

    def _passed(self, total: Tokens) -> str | None:
        settings = self._settings
        if settings.max_tokens is not None and total.prompt + total.reply > settings.max_tokens:
            spent = self.spent.prompt + self.spent.reply
            return (
                f"{spent} of {settings.max_tokens} tokens are spent and the next request could exceed that;"
                f" raise max_tokens of the {settings.role}"
            )
        cost = self._cost(total)
        if settings.max_cost is not None and cost is not None and cost > settings.max_cost:
            return (
                f"{self.cost:.6g} of {settings.max_cost:.6g} (max_cost) are spent and the next request could"
                f" exceed that; raise max_cost of the {settings.role}"
            )
        return None

    def _cost(self, tokens: Tokens) -> float | None:
        settings = self._settings
        if settings.price_in is None or settings.price_out is None:
            return None
        return (tokens.prompt * settings.price_in + tokens.reply * settings.price_out) / 1e6


def _most(content: Any) -> int:
    """The most prompt tokens of a message's content."""
    if isinstance(content, str):
        return len(content.encode())
    most = 0
    for part in content:
        if part["type"] == "text":
            most += len(part["text"].encode())
        elif part["type"] == "image_url":
            most += _PICTURE
        else:
            most += len(part["input_audio"]["data"]) // _SOUND_CHARACTERS + 1
    return most
