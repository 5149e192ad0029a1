"""Creates the teacher that the settings describe."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from erv.chat import Asked, Usage
from erv.distill.teachers.asking import LabelQuestions
from erv.distill.teachers.protocol import Teacher, Verdict
from erv.labels import LabelSpace
from erv.settings import RuntimeSettings
from erv.settings.teachers import LocalTeacher, OpenAITeacher

REPLIES = Path(".erv/teachers")


def build_teacher(
    settings: OpenAITeacher | LocalTeacher,
    *,
    runtime: RuntimeSettings,
    folder_of: Callable[[str], Path],
    cache: Path = REPLIES,
) -> Teacher:
    """Creates the teacher that the settings describe; it labels in the MAFW space.

    Args:
        settings: of an endpoint or of a local model. The reference labels need no teacher.
        runtime: device and precision of a local model.
        folder_of: maps the name of a model to its folder in the pinned base source.
        cache: folder of an endpoint's stored replies.

    Raises:
        SettingsError: the variable that holds an endpoint's key is not set, or holds no key.
    """
    asked: Asked
    if isinstance(settings, OpenAITeacher):
        from erv.chat.endpoint import ChatEndpoint

        asked = ChatEndpoint(settings, cache)
    else:
        from erv.chat.local import LocalChat

        asked = LocalChat(settings, folder_of(settings.model), runtime)
    return ChatTeacher(asked, LabelSpace.load("mafw"))


class ChatTeacher:
    """A chat model that labels sentences in a space.

    Args:
        asked: the model.
        space: the labels.
    """

    def __init__(self, asked: Asked, space: LabelSpace) -> None:
        self._asked, self._questions = asked, LabelQuestions(space)

    @property
    def name(self) -> str:
        """`openai:` or `local:` and the model."""
        return self._asked.name

    @property
    def usage(self) -> Usage:
        """The usage so far, over all calls of `label`."""
        return self._asked.usage

    def label(self, sentences: Sequence[str]) -> list[Verdict]:
        """One verdict per sentence, in order; a repeated sentence is asked only once.

        Raises:
            ChatError: the server refuses (a 3xx or 4xx that a retry can't resolve), too many sentences have
                no answer, or the budget is spent. What is labelled by then is kept.
            DataError: the stored replies can't be read or written; or a local folder is not a causal language
                model with a chat template, or a sentence is too long for it.
            SettingsError: the device or the precision of a local model is not available here.
        """
        return self._asked.ask(sentences, self._questions)
