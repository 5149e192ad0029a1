"""What is said while a clip is answered.

In this order: `queued` (again when the place changes), `started`, `seen` if it was asked for, then `token`
and `sentence` in turn, `answer`, `done`. Instead of what would follow, `error` may come at any time; `done`
and `error` are the last. Each event is a JSON object with its `kind` and the fields below.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal

Code = Literal["clip", "cancelled", "failed", "died"]


@dataclass(frozen=True)
class Event:
    """Base of all events."""

    kind: ClassVar[str]

    def as_dict(self) -> dict[str, Any]:
        """The event as JSON has it."""
        return {"kind": self.kind, **asdict(self)}


@dataclass(frozen=True)
class Queued(Event):
    """The request waits; said again when its place changes.

    Attributes:
        place: how many requests are asked before it.
    """

    kind = "queued"
    place: int


@dataclass(frozen=True)
class Started(Event):
    """The clip was decoded, and the policy is asked about it now."""

    kind = "started"


@dataclass(frozen=True)
class Seen(Event):
    """What the policy sees and hears; only if the request asks for it.

    Attributes:
        frames: JPEG files in base64, evenly spread over the clip.
        waveform: loudest sample of each stretch of equal length, 0 to 1; empty without sound.
        seconds: length of the sound; 0 without.
    """

    kind = "seen"
    frames: tuple[str, ...]
    waveform: tuple[float, ...]
    seconds: float


@dataclass(frozen=True)
class Token(Event):
    """More of the completion, tags included: all `text` in a row is the completion.

    Attributes:
        text: at least a character; a token that is part of a character waits for the rest of it.
    """

    kind = "token"
    text: str


@dataclass(frozen=True)
class Sentence(Event):
    """A sentence of the explanation has ended.

    Attributes:
        index: its number, from 0.
        text: of the sentence.
        scores: the verifier's calibrated, independent probability of each emotion that it knows, 0 to 1.
        labels: emotions that the verifier reads in it, at most two, the most probable first; empty for
            scenery and for what it can't read.
        agrees: whether it speaks of the answer. None while that isn't known, and for a sentence that says
            nothing of emotions.
    """

    kind = "sentence"
    index: int
    text: str
    scores: Mapping[str, float]
    labels: tuple[str, ...] = ()
    agrees: bool | None = None


@dataclass(frozen=True)
class Answer(Event):
    """The policy's answer.

    Attributes:
        text: between its tags; None if the completion has none.
        scores: for each emotion of the data set, how probable the policy finds it as the answer after this
            explanation, by any of its words, 0 to 1; they sum to 1. An answer that is none of them is among
            them as it was written. See `erv.answering.scores`. Empty without an answer.
    """

    kind = "answer"
    text: str | None
    scores: Mapping[str, float]


@dataclass(frozen=True)
class Usage:
    """Tokens of the policy's tokenizer; those of frames and sound are part of the prompt."""

    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True)
class Seconds:
    """Times since the request reached the process that answers; `decode` is how long decoding took.

    Attributes:
        decode: of the clip.
        first_token: until the first `token`; None if there was none.
        total: until `done`.
    """

    decode: float
    first_token: float | None
    total: float


@dataclass(frozen=True)
class Done(Event):
    """The request was answered.

    Attributes:
        answer: as in `answer`.
        explanation: between its tags; None if the completion has none.
        completion: all that the policy wrote, with its tags.
        agreement: see `erv.answering.agreement`.
        sentences: all of the explanation, with `agrees` as far as it can be said; as JSON without `kind`.
        ended: whether the policy ended by itself (`stop`), or was cut at its limit of tokens (`length`).
        usage: how much was read and written.
        seconds: how long it took.
        tokens_per_second: of the completion, from the start of the policy's work; others may have been
            answered beside it.
    """

    kind = "done"
    answer: str | None
    explanation: str | None
    completion: str
    agreement: float | None
    sentences: tuple[Sentence, ...]
    ended: Literal["stop", "length"]
    usage: Usage
    seconds: Seconds
    tokens_per_second: float


@dataclass(frozen=True)
class Error(Event):
    """There will be no answer.

    Attributes:
        sentence: why, for the client; holds no paths of the machine.
        code: `clip`: the request or its clip can't be answered. `cancelled`: the client asked for that.
            `failed`: the model failed, and may answer others. `died`: the process that answers has ended.
    """

    kind = "error"
    sentence: str
    code: Code


LAST = (Done, Error)
_KINDS: dict[str, type[Event]] = {
    cls.kind: cls for cls in (Queued, Started, Seen, Token, Sentence, Answer, Done, Error)
}


def event_of(content: Mapping[str, Any]) -> Event:
    """The event that `as_dict` gave.

    Raises:
        KeyError, TypeError: it is none.
    """
    fields = dict(content)
    cls = _KINDS[fields.pop("kind")]
    if cls is Done:
        fields["sentences"] = tuple(_sentence(item) for item in fields["sentences"])
        fields["usage"], fields["seconds"] = Usage(**fields["usage"]), Seconds(**fields["seconds"])
    elif cls is Sentence:
        return _sentence(fields)
    elif cls is Seen:
        fields |= {name: tuple(fields[name]) for name in ("frames", "waveform")}
    return cls(**fields)


def _sentence(fields: Mapping[str, Any]) -> Sentence:
    return Sentence(**{**fields, "labels": tuple(fields["labels"])})
