"""Creates the panel that the settings describe."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from erv.errors import EvaluationError
from erv.evaluate.judges.lexical import TEXTS_FILE, LexicalJudge
from erv.evaluate.judges.protocol import Judge
from erv.files import scratch_folder, sha256_of, sweep
from erv.settings import judges as settings_of

if TYPE_CHECKING:
    from erv.settings import RuntimeSettings
    from erv.settings.judges import JudgeSettings
    from erv.sources import Lock, ObjectStore

KEPT = Path(".erv/judges")
REPLIES = KEPT / "replies"


def build_judges(
    settings: Sequence[JudgeSettings],
    *,
    runtime: RuntimeSettings,
    texts: Callable[[], bytes],
    folder_of: Callable[[str], Path],
    replies: Path = REPLIES,
) -> list[Judge]:
    """Creates the judges that the settings describe, in their order.

    Args:
        settings: `evaluate.judges`.
        runtime: device and precision of a local chat model.
        texts: reads the `texts.csv` of the judge source; called only for a judge that learns from it.
        folder_of: maps the name of a model to its folder in the pinned base source; likewise.
        replies: folder of an endpoint's stored replies.

    Raises:
        EvaluationError: a judge can't be made of its texts or its folder.
        SettingsError: the variable that holds an endpoint's key is not set, or holds no key.
    """
    return [_judge(item, runtime, texts, folder_of, replies) for item in settings]


@contextmanager
def model_folders(
    base: Lock, store: ObjectStore | None, kept: Path = KEPT
) -> Iterator[Callable[[str], Path]]:
    """Yields what copies a model of the base source to a folder; the copies are removed at the end.

    So are those that killed processes left. Judges have their weights in memory once they have read a text.

    Args:
        base: the pinned source.
        store: needed if it is in S3.
        kept: folder for the copies.
    """
    sweep(kept)
    with scratch_folder(kept / "incoming" / "models" / "copy", shared=True) as folder:
        yield lambda model: base.fetch_tree(store, model, folder / model)


def _judge(
    settings: JudgeSettings,
    runtime: RuntimeSettings,
    texts: Callable[[], bytes],
    folder_of: Callable[[str], Path],
    replies: Path,
) -> Judge:
    if isinstance(settings, settings_of.LexicalJudge):
        return LexicalJudge.from_csv(decoded(texts()))
    if isinstance(settings, settings_of.EmbeddingJudge):
        from erv.evaluate.judges.embedding import EmbeddingJudge
        from erv.evaluate.judges.encoder import SentenceEncoder

        return EmbeddingJudge(SentenceEncoder(folder_of(settings.model)), settings.name)
    from erv.evaluate.judges.chat import ChatJudge

    if isinstance(settings, settings_of.OpenAIJudge):
        from erv.chat.endpoint import ChatEndpoint

        kept = settings.model_dump(include={"model", "temperature", "max_reply_tokens"})
        identity = {"address": settings.address, **kept}
        return ChatJudge(ChatEndpoint(settings, replies), settings.name, settings.mode, identity)
    from erv.chat.local import LocalChat

    folder = folder_of(settings.model)
    chat = LocalChat(settings, folder, runtime)
    identity = {"folder": sha256_of(folder), "max_reply_tokens": settings.max_reply_tokens}
    return ChatJudge(chat, settings.name, settings.mode, identity, chat.tensors)


def decoded(texts: bytes) -> str:
    """The text of `texts.csv`; raises EvaluationError if it is not UTF-8."""
    try:
        return texts.decode("utf-8")
    except UnicodeDecodeError as error:
        raise EvaluationError(
            f"judge {TEXTS_FILE}: not UTF-8 (byte {error.start}); save it in UTF-8 and pin again"
        ) from None
