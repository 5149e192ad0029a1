"""Whether frames and sound reach a model: some servers drop what a model doesn't take, without a word.

Three short questions are asked: without media, with a picture, and with a tone. A server that passes media on
counts more prompt tokens for them. One that counts none can't be checked.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from erv.chat.endpoint import ChatEndpoint
from erv.chat.protocol import ChatError, Message
from erv.grounding.shown import frame_parts, sound_parts
from erv.settings.grounding import GroundingJudge
from erv.shards import Clip

NOTHING, IMAGES, SOUND = "nothing", "images", "sound"
_RATE = 16_000  # Hz
_INSTEAD = "use a model that sees and hears, or set shows of the judge to caption"


class Probes:
    """The three questions; every reply is an answer. See `erv.chat.protocol.Questions`."""

    noun = "questions"
    done = "answered"
    strict = False

    def __init__(self, side: int) -> None:
        tone = (8000 * np.sin(2 * np.pi * 440 * np.arange(_RATE) / _RATE)).astype(np.int16)
        clip = Clip("probe", np.full((1, side, side, 3), 128, np.uint8), tone, _RATE)
        self._media: dict[str, list[dict[str, Any]]] = {
            NOTHING: [],
            IMAGES: frame_parts(clip, 1, side),
            SOUND: sound_parts(clip),
        }

    def first(self, text: str) -> list[Message]:
        """The question of a name."""
        asked = {"type": "text", "text": "Reply with the word yes."}
        return [{"role": "user", "content": [*self._media[text], asked]}]

    def read(self, reply: str) -> str:
        """The reply itself."""
        return reply

    def correction(self, reply: str, reason: str) -> list[Message]:
        """Nothing: no reply is malformed."""
        return []


def check_senses(chat: ChatEndpoint, settings: GroundingJudge, wanted: Sequence[str]) -> None:
    """Checks that media reach the model; the replies are kept, so it is asked once.

    Args:
        chat: the endpoint.
        settings: of the judge.
        wanted: `IMAGES`, `SOUND` or both.

    Raises:
        ChatError: they don't, or the server refuses or gives no answer.
    """
    probes = Probes(settings.max_side)
    asked = [NOTHING, *wanted]
    for name, reply in zip(asked, chat.ask(asked, probes), strict=True):
        if not isinstance(reply, str):
            also = "" if name == NOTHING else f"; if it takes no {name}, {_INSTEAD}"
            asked_with = "a question" if name == NOTHING else f"a question with {name}"
            raise ChatError(
                f"{chat.name}: {settings.base_url} gave no answer to {asked_with} ({reply.detail}); check the"
                f" server and run it again{also}"
            )
    without = chat.prompt_tokens(NOTHING, probes)
    for name in wanted:
        taken = chat.prompt_tokens(name, probes)
        if without is not None and taken is not None and taken <= without:
            raise ChatError(
                f"{chat.name}: {settings.base_url} drops {name} without a word: a question with {name} took"
                f" {taken} prompt tokens, and without {without}; {_INSTEAD}"
            )
