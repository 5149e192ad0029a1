"""The bodies of requests and answers, as models: they check what comes, and describe `/openapi.json`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from erv.answering.events import Answer, Done
from erv.serve.versions import Version


class ExplainRequest(BaseModel):
    """A question about a clip; it has `clip` or `content`. As a form, `content` and `audio` are files."""

    model_config = ConfigDict(extra="forbid")

    clip: str | None = Field(None, description="path, file:// or s3:// URI below ERV_SERVE_ROOT")
    content: str | None = Field(None, description="the file of the clip in base64")
    audio: str | None = Field(None, description="a file of sound in base64, heard instead of the clip's own")
    dataset: str | None = Field(None, description="the data set that the clip is like")
    subtitle: str | None = Field(None, description="what is said in the clip")
    prompt: str | None = Field(None, description="asked in place of the version's own question")
    max_new_tokens: int | None = Field(None, ge=1, description="a longer answer is cut")
    show: bool = Field(False, description="in a stream, also send frames and waveform as the model gets them")

    @model_validator(mode="after")
    def _one_clip(self) -> ExplainRequest:
        if (self.clip is None) == (self.content is None):
            raise ValueError("name the clip in the field clip, or send its file in content; one of the two")
        return self


class ServedVersion(BaseModel):
    """What answered: `id` is NAME/VERSION, `bundle` the hash of its bundle."""

    id: str
    name: str
    version: str
    bundle: str


class SaidSentence(BaseModel):
    """A sentence of the explanation, with the verifier's probability of each emotion and what it reads.

    `agrees` says whether it speaks of the answer; null if it says nothing of emotions, or that isn't known.
    """

    index: int
    text: str
    scores: dict[str, float]
    labels: list[str]
    agrees: bool | None


class Tokens(BaseModel):
    """Tokens that were read and written."""

    prompt_tokens: int
    completion_tokens: int


class Times(BaseModel):
    """Seconds since the request reached the model; `decode` is how long decoding the clip took."""

    decode: float
    first_token: float | None
    total: float


class Explanation(BaseModel):
    """An explained clip. `scores` are the policy's probabilities of each emotion as the answer; the sum is 1.

    `agreement` is the share of emotional sentences that speak of the answer, by the verifier.
    """

    model: ServedVersion
    answer: str | None
    scores: dict[str, float]
    explanation: str | None
    completion: str
    agreement: float | None
    sentences: list[SaidSentence]
    ended: Literal["stop", "length"]
    usage: Tokens
    seconds: Times
    tokens_per_second: float


class Fault(BaseModel):
    """Why a request is not answered."""

    message: str
    type: str
    param: str | None
    code: str | None


class Failure(BaseModel):
    """The body of every error."""

    error: Fault


def explanation(version: Version, answer: Answer, done: Done) -> dict[str, Any]:
    """The body of an `Explanation`."""
    said = done.as_dict()
    del said["kind"]
    return {"model": version.as_dict(), "answer": said.pop("answer"), "scores": dict(answer.scores), **said}


def verdict(version: Version, answer: Answer, done: Done) -> dict[str, Any]:
    """What a chat completion says beyond its text."""
    whole = explanation(version, answer, done)
    kept = ("model", "answer", "scores", "agreement", "sentences", "seconds", "tokens_per_second")
    return {name: whole[name] for name in kept}


def body_of(models: Mapping[str, type[BaseModel]], files: tuple[str, ...] = ()) -> dict[str, Any]:
    """The description of a body that a route reads itself.

    Args:
        models: by the type of content.
        files: fields that are files in a form.
    """
    content = {}
    for kind, model in models.items():
        schema = _inlined(model.model_json_schema())
        if kind == "multipart/form-data":
            for name in files:
                schema["properties"][name] |= {"type": "string", "format": "binary"}
                schema["properties"][name].pop("anyOf", None)
        content[kind] = {"schema": schema}
    return {"requestBody": {"required": True, "content": content}}


def _inlined(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema in which the definitions stand where they are used; none of ours is part of itself."""
    definitions = schema.pop("$defs", {})

    def replaced(part: Any) -> Any:
        if isinstance(part, dict):
            if "$ref" in part:
                return replaced(definitions[part["$ref"].rpartition("/")[2]])
            # The names of definitions have no meaning where they are inlined.
            return {name: replaced(value) for name, value in part.items() if name != "discriminator"}
        return [replaced(value) for value in part] if isinstance(part, list) else part

    whole: dict[str, Any] = replaced(schema)
    return whole
