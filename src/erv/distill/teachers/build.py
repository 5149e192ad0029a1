"""Creates the teacher that the settings describe."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from erv.distill.teachers.protocol import Teacher
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
    space = LabelSpace.load("mafw")
    if isinstance(settings, OpenAITeacher):
        from erv.distill.teachers.openai_chat import OpenAIChat

        return OpenAIChat(settings, space, cache)
    from erv.distill.teachers.local import LocalChat

    return LocalChat(settings, space, folder_of(settings.model), runtime)
