"""OpenAI's chat completions, as far as a model that explains a clip can answer them.

What would change the answer and can't be done here is refused; nothing is left aside in silence.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from erv.answering.requests import Request
from erv.serve.bodies import file_in, is_data_uri
from erv.web.errors import Refused

# What may be said besides leaving it out, for what OpenAI's API has and this model has not.
_ONLY: dict[str, tuple[tuple[Any, ...], str]] = {
    "n": ((1,), "there is one answer to a clip"),
    "temperature": ((0,), "answers are decoded greedily, as they were evaluated"),
    "top_p": ((1,), "answers are decoded greedily, as they were evaluated"),
    "presence_penalty": ((0,), "answers are decoded greedily, as they were evaluated"),
    "frequency_penalty": ((0,), "answers are decoded greedily, as they were evaluated"),
    "logprobs": ((False,), "the scores of the emotions are in the field erv of the answer"),
    "store": ((False,), "nothing is kept after an answer"),
    "response_format": (({"type": "text"},), "the answer is a text with the tags think and answer"),
    "modalities": ((["text"],), "the answer is a text"),
}


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class TextPart(_Strict):
    """A text; all texts together are asked in place of the version's own question."""

    type: Literal["text"]
    text: str


class VideoUrl(_Strict):
    """A clip: a `data:` URI in base64, or where it is below the served root."""

    url: str = Field(description="data: URI in base64; or a path, file:// or s3:// URI below ERV_SERVE_ROOT")


class VideoPart(_Strict):
    """The clip."""

    type: Literal["video_url"]
    video_url: VideoUrl


class InputAudio(_Strict):
    """A file of sound."""

    data: str = Field(description="the file in base64")
    format: Literal["wav", "mp3", "flac", "ogg", "mp4", "m4a"]


class AudioPart(_Strict):
    """Sound that is heard instead of the clip's own."""

    type: Literal["input_audio"]
    input_audio: InputAudio


Part = Annotated[TextPart | VideoPart | AudioPart, Field(discriminator="type")]


def _parts(content: Any) -> Any:
    """A content that is a text alone, as a list of parts."""
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


class Message(_Strict):
    """What the user says; there is one message, because the model remembers nothing."""

    role: Literal["user"]
    content: Annotated[list[Part], BeforeValidator(_parts)]
    name: str | None = None


class StreamOptions(_Strict):
    """How an answer is streamed."""

    include_usage: bool = False


class ChatRequest(_Strict):
    """The body of `POST /v1/chat/completions`. `dataset` and `subtitle` are ours."""

    model: str
    messages: list[Message] = Field(min_length=1, max_length=1)
    stream: bool = False
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    dataset: str | None = Field(None, description="the data set that the clip is like, one of the version's")
    subtitle: str | None = Field(None, description="what is said in the clip")
    seed: int | None = Field(None, description="taken, and changes nothing: a clip gets the same answer")
    user: str | None = Field(None, description="taken, and not looked at")
    n: Any = None
    temperature: Any = None
    top_p: Any = None
    presence_penalty: Any = None
    frequency_penalty: Any = None
    logprobs: Any = None
    store: Any = None
    response_format: Any = None
    modalities: Any = None

    @model_validator(mode="after")
    def _possible(self) -> ChatRequest:
        for name, (allowed, reason) in _ONLY.items():
            value = getattr(self, name)
            if value is not None and not any(type(value) in _like(one) and value == one for one in allowed):
                raise ValueError(f"{name} must be {allowed[0]} or left out: {reason}")
        if None not in (self.max_tokens, self.max_completion_tokens) and (
            self.max_tokens != self.max_completion_tokens
        ):
            raise ValueError("max_tokens and max_completion_tokens differ; the first is the old name")
        return self

    def asked(self) -> Request:
        """As a question about a clip.

        Raises:
            Refused: 400, there is not exactly one clip, more than one sound, or a file is no base64.
        """
        parts = list(enumerate(self.messages[0].content))
        clips = [(n, part) for n, part in parts if isinstance(part, VideoPart)]
        sounds = [(n, part) for n, part in parts if isinstance(part, AudioPart)]
        where = "messages[0].content"
        if len(clips) != 1:
            raise Refused(
                400,
                f"{where} has {len(clips)} parts of the type video_url, expected 1",
                param=where,
            )
        if len(sounds) > 1:
            said = f"{where} has {len(sounds)} parts of the type input_audio, at most 1 is heard"
            raise Refused(400, said, param=where)
        number, clip = clips[0]
        url = clip.video_url.url
        sent = is_data_uri(url)
        texts = [part.text for _, part in parts if isinstance(part, TextPart)]
        return Request(
            content=file_in(url, f"{where}[{number}].video_url.url") if sent else None,
            clip=None if sent else url,
            audio=next(
                (file_in(part.input_audio.data, f"{where}[{n}].input_audio.data") for n, part in sounds), None
            ),
            dataset=self.dataset,
            subtitle=self.subtitle,
            prompt="\n".join(texts) if texts else None,
            max_new_tokens=self.max_tokens or self.max_completion_tokens,
        )


def _like(value: Any) -> tuple[type, ...]:
    """Types that count as that of a value: 1.0 is 1, but True is not."""
    return (int, float) if type(value) is int else (type(value),)
