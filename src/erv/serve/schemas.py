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
    dataset: str | None = Field(None, description="the data set that the clip is like, one of the version's")
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
    """What answered."""

    id: str = Field(description="NAME/VERSION")
    name: str = Field(description="of the registered model, or of the folder")
    version: str = Field(description="its number; empty for a bundle in a folder")
    bundle: str = Field(description="the hash of its bundle")


class SaidSentence(BaseModel):
    """A sentence of the explanation."""

    index: int = Field(description="its number, from 0")
    text: str
    scores: dict[str, float] = Field(description="the verifier's probability of each emotion")
    labels: list[str] = Field(description="emotions that the verifier reads in it, at most two")
    agrees: bool | None = Field(
        description="whether it speaks of the answer; null if it says nothing of emotions, or nobody knows"
    )


class Tokens(BaseModel):
    """Tokens of the policy."""

    prompt_tokens: int = Field(description="read, those of frames and sound included")
    completion_tokens: int = Field(description="written")


class Times(BaseModel):
    """Seconds since the request reached the model."""

    decode: float = Field(description="how long decoding the clip took")
    first_token: float | None
    total: float


class Explanation(BaseModel):
    """An explained clip."""

    model: ServedVersion
    answer: str | None = Field(description="the emotion; null if the policy gave none")
    scores: dict[str, float] = Field(
        description="how probable the policy finds each emotion as its answer, after its explanation; sum 1"
    )
    explanation: str | None
    completion: str = Field(description="all that the policy wrote, with its tags")
    agreement: float | None = Field(
        description="share of the emotional sentences that speak of the answer, by the verifier"
    )
    sentences: list[SaidSentence]
    ended: Literal["stop", "length"] = Field(description="by itself, or cut")
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
