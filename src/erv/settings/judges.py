"""Who reads the explanations: a judge's entry in the `evaluate` section of `params.yaml`."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from erv.settings.chat import ChatEndpoint, ChatFolder, Entry, FolderName

ENCODER = "sentence_encoder"


class LexicalJudge(Entry):
    """A linear classifier of pieces of words, trained on the texts of the judge source."""

    kind: Literal["lexical"]

    @property
    def name(self) -> str:
        """What tables and messages call this judge."""
        return "lexical"


class EmbeddingJudge(Entry):
    """A pretrained sentence encoder, run by this process.

    Attributes:
        model: name of its folder in the pinned base source.
    """

    kind: Literal["embedding"]
    model: FolderName = ENCODER

    @property
    def name(self) -> str:
        """What tables and messages call this judge."""
        return "embedding" if self.model == ENCODER else f"embedding:{self.model}"


class OpenAIJudge(ChatEndpoint):
    """A model behind an HTTP endpoint that speaks OpenAI's chat completions.

    Attributes:
        mode: open (our question; after a reply that can't be used it is asked again, then `failed`) |
            official (the method's own question and filter: whatever is not exactly a label is neutral).
    """

    role: ClassVar[str] = "judge"

    kind: Literal["openai"]
    mode: Literal["open", "official"] = "open"

    @property
    def name(self) -> str:
        """What tables and messages call this judge."""
        return f"openai:{self.model}" + (":official" if self.mode == "official" else "")


class LocalJudge(ChatFolder):
    """A causal language model with a chat template, run by this process.

    Attributes:
        mode: as for `openai`.
    """

    role: ClassVar[str] = "judge"

    kind: Literal["local"]
    mode: Literal["open", "official"] = "open"

    @property
    def name(self) -> str:
        """What tables and messages call this judge."""
        return f"local:{self.model}" + (":official" if self.mode == "official" else "")


JudgeSettings = Annotated[
    LexicalJudge | EmbeddingJudge | OpenAIJudge | LocalJudge, Field(discriminator="kind")
]
