"""What is asked about a clip, and how it travels to the process that answers: a head of JSON, then files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from erv.answering.clips import ClipInput


@dataclass(frozen=True)
class Request:
    """A question about a clip; it has `content` or `clip`.

    Attributes:
        content: the file of the clip.
        clip: path below the served folder, `file://` or `s3://` URI; see `erv.answering.clips`.
        audio: a file of sound (wav, mp3, flac, ogg, mp4) that is heard instead of the clip's own.
        dataset: the data set that the clip is like, by name; see `erv.answering.question`.
        subtitle: what is said in the clip.
        prompt: asked instead of the version's question, which then was never evaluated.
        max_new_tokens: a completion that has not ended by then is cut; at most, and by default, what the
            version was evaluated with.
        show: whether to say what the policy sees and hears (`erv.answering.events.Seen`).
    """

    content: bytes | None = None
    clip: str | None = None
    audio: bytes | None = None
    dataset: str | None = None
    subtitle: str | None = None
    prompt: str | None = None
    max_new_tokens: int | None = None
    show: bool = False

    @property
    def row(self) -> ClipInput:
        """As a row of a table."""
        return ClipInput(self.clip, self.content, self.dataset, self.subtitle)

    def packed(self, number: int) -> list[bytes]:
        """The messages that `unpacked` reads: the head, then each file that the request has."""
        files = [file for file in (self.content, self.audio) if file is not None]
        head = {
            "number": number,
            "has": [self.content is not None, self.audio is not None],
            **{name: getattr(self, name) for name in _PLAIN},
        }
        return [json.dumps(head).encode(), *files]


_PLAIN = ("clip", "dataset", "subtitle", "prompt", "max_new_tokens", "show")


def request_of(head: Mapping[str, Any], content: bytes | None, audio: bytes | None) -> Request:
    """The request of a head, with its files."""
    return Request(content=content, audio=audio, **{name: head[name] for name in _PLAIN})
