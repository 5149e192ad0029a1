"""Who labels sentences for the verifier: a teacher's entry in the `distill` section of `params.yaml`."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from erv.settings.chat import ChatEndpoint, ChatFolder, Entry


class ReferenceTeacher(Entry):
    """The labels that came with the corpus."""

    kind: Literal["reference"]

    @property
    def name(self) -> str:
        """What tables and messages call this teacher."""
        return "reference"


class OpenAITeacher(ChatEndpoint):
    """A model behind an HTTP endpoint that speaks OpenAI's chat completions."""

    role: ClassVar[str] = "teacher"

    kind: Literal["openai"]


class LocalTeacher(ChatFolder):
    """A causal language model with a chat template, run by this process."""

    role: ClassVar[str] = "teacher"

    kind: Literal["local"]


TeacherSettings = Annotated[ReferenceTeacher | OpenAITeacher | LocalTeacher, Field(discriminator="kind")]
