"""A chat model, behind an endpoint or in a folder: what teachers and judges that are asked in words share."""

from __future__ import annotations

import ipaddress
import re
from pathlib import PurePosixPath
from typing import Annotated, ClassVar
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    HttpUrl,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from erv.settings.section import of_form

_Count = Annotated[int, Field(gt=0)]
_Price = Annotated[float, Field(ge=0.0)]
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_URL: TypeAdapter[HttpUrl] = TypeAdapter(HttpUrl)


def _inside_the_source(model: str) -> str:
    path = PurePosixPath(model)
    if path.is_absolute() or ".." in path.parts or "\\" in model or not path.parts or model != str(path):
        raise ValueError("expected the name of a folder of the base source, like teacher")
    return model


FolderName = Annotated[str, AfterValidator(_inside_the_source)]


class Entry(BaseModel):
    """An item of a list in `params.yaml`: immutable, and unknown keys are faults."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ChatEndpoint(Entry):
    """A model behind an HTTP endpoint that speaks OpenAI's chat completions.

    Attributes:
        role: what messages call it: teacher or judge.
        model: its name at the endpoint.
        base_url: address of the endpoint, up to `/chat/completions`, without key or query.
        api_key_env: NAME of the environment variable that holds the key; None if the endpoint needs no key.
        concurrency: number of requests in flight.
        timeout_seconds: time limit for connecting, and for each part of an answer.
        max_retries: retries of a request after a timeout, a lost connection, or status 408, 409, 429 or 5xx.
        attempts: how often a text is asked about until a reply is well formed.
        temperature: sampling temperature; 0 for the likeliest reply.
        max_reply_tokens: limit on the tokens of a reply, reasoning tokens included.
        max_tokens: budget of a run, in prompt and reply tokens together.
        price_in: price of a million prompt tokens, in any currency.
        price_out: price of a million reply tokens, in the same currency.
        max_cost: budget of a run, in the same currency.
    """

    role: ClassVar[str]

    model: Annotated[str, of_form(r"\S(.*\S)?", "a name without spaces around it")]
    base_url: str
    api_key_env: str | None = "OPENAI_API_KEY"
    concurrency: Annotated[int, Field(gt=0, le=256)] = 8
    timeout_seconds: Annotated[float, Field(gt=0.0)] = 60.0
    max_retries: Annotated[int, Field(ge=0, le=20)] = 5
    attempts: _Count = 3
    temperature: Annotated[float, Field(ge=0.0, le=2.0)] = 0.0
    max_reply_tokens: _Count = 64
    max_tokens: _Count | None = 5_000_000
    price_in: _Price | None = None
    price_out: _Price | None = None
    max_cost: Annotated[float, Field(gt=0.0)] | None = None

    @property
    def name(self) -> str:
        """What tables and messages call it."""
        return f"openai:{self.model}"

    @property
    def address(self) -> str:
        """Where the model is asked: scheme, host, port and path, in one spelling and without credentials."""
        parts = urlsplit(self.base_url)
        host = parts.hostname or ""
        port = parts.port or {"http": 80, "https": 443}[parts.scheme]
        return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}:{port}{parts.path.rstrip('/')}"

    @property
    def on_this_machine(self) -> bool:
        """Whether base_url is a loopback address; what answers there may still pass requests on."""
        host = urlsplit(self.base_url).hostname or ""
        try:
            return host == "localhost" or ipaddress.ip_address(host).is_loopback
        except ValueError:
            return False

    # Either may hold a key by mistake, and the error of a check on a single field would print its value.
    @model_validator(mode="after")
    def _holds_no_secret(self) -> ChatEndpoint:
        if self.api_key_env is not None and not _VARIABLE.fullmatch(self.api_key_env):
            raise ValueError(
                "api_key_env is not the name of an environment variable; give the NAME of the variable that"
                " holds the key, never the key, or null for an endpoint that needs none"
            )
        try:
            _URL.validate_python(self.base_url)
            parts = urlsplit(self.base_url)
        except (ValidationError, ValueError):
            raise ValueError(
                "base_url is not an http(s) address; expected one like https://api.openai.com/v1"
            ) from None
        if parts.username is not None or parts.password is not None:
            raise ValueError(
                "base_url holds a user or a password; leave them out and name the variable of a key in"
                " api_key_env"
            )
        if parts.query or parts.fragment or self.base_url != self.base_url.strip():
            raise ValueError(
                "base_url has a query, a fragment or blanks; expected http(s)://host[:port]/path"
            )
        return self

    @model_validator(mode="after")
    def _has_a_budget(self) -> ChatEndpoint:
        if (self.price_in is None) != (self.price_out is None):
            raise ValueError("price_in and price_out belong together; give both or neither")
        if self.max_cost is not None and self.price_in is None:
            raise ValueError("max_cost needs the prices of a million tokens; give price_in and price_out")
        if self.max_cost is not None and self.price_in == self.price_out == 0 and self.max_tokens is None:
            raise ValueError("max_cost never ends a run with prices of 0; set max_tokens")
        if self.max_tokens is None and self.max_cost is None:
            raise ValueError("max_tokens and max_cost are both null; set one to limit a run")
        return self


class ChatFolder(Entry):
    """A causal language model with a chat template, run by this process.

    Attributes:
        role: what messages call it: teacher or judge.
        model: name of its folder in the pinned base source.
        batch_size: texts per batch.
        max_reply_tokens: limit on the tokens of a reply.
        attempts: how often a text is asked about until a reply is well formed.
    """

    role: ClassVar[str]

    model: FolderName
    batch_size: _Count = 16
    max_reply_tokens: _Count = 64
    attempts: _Count = 2

    @property
    def name(self) -> str:
        """What tables and messages call it."""
        return f"local:{self.model}"
