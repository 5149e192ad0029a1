"""How good the judges are: those that cost nothing are measured to find out, and the answers are kept."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from erv.errors import DataError, EvaluationError
from erv.files import sha256_of, write_document
from erv.labels import own_file

if TYPE_CHECKING:
    from erv.evaluate.judges.protocol import Judge
    from erv.settings import Settings
    from erv.settings.judges import JudgeSettings
    from erv.sources import Lock, ObjectStore, SourceFile

FOLDER = Path(".erv/judges")
LABELLED = Path("data/judge_texts/policies.csv")
MEASURED = ("lexical", "embedding")  # the kinds that take seconds and no money
_CODE = ("evaluate", "sentences.py", "labels")
_FIGURES = {"texts", "accuracy", "recall", "recall_low", "recall_high", "emotions"}
_LIBRARIES = ("numpy", "scipy", "scikit-learn", "torch", "transformers", "tokenizers")


def judge_faults(
    workspace: Path,
    settings: Settings,
    locks: tuple[Lock, Lock],
    store: ObjectStore | None,
    log: Callable[[str], None] = lambda line: None,
) -> list[str]:
    """Why `evaluate` would refuse a judge, which it would only find out after GRPO.

    Args:
        workspace: top of the repository.
        settings: all parameters.
        locks: of the sources `judge` and `base`.
        store: needed if one of them is in S3.
        log: called with a line on the quality of each measured judge, and before what may take minutes.

    Raises:
        StorageError: the store can't be read.
    """
    from erv.evaluate.judges.worth import judge_quality, require_quality, unmeasured

    lacking = lacks_of_judges(settings, locks)
    faults = [fault for found in lacking.values() for fault in found]
    for judge in settings.evaluate.judges:
        if lacking[judge.name] or judge.kind not in MEASURED:
            continue
        try:
            described = described_judge(judge, settings, workspace, locks, store, log)
            log(f"judge {judge.name}: {judge_quality(described)}")
            require_quality(described, settings.evaluate, settings.roles.test)
            gap = unmeasured(described, settings.roles.test)
            if gap is not None:
                log(gap)
        except (DataError, EvaluationError) as error:
            faults.append(str(error))
    return faults


def lacks_of_judges(settings: Settings, locks: tuple[Lock, Lock]) -> dict[str, list[str]]:
    """What each judge, by its name, lacks: its key, or its files in the pinned sources `judge` and `base`."""
    return {
        judge.name: [f"evaluate.judges[{index}] ({judge.name}): {item}" for item in _lacking(judge, locks)]
        for index, judge in enumerate(settings.evaluate.judges)
    }


def described_judge(
    judge: JudgeSettings,
    settings: Settings,
    workspace: Path,
    locks: tuple[Lock, Lock],
    store: ObjectStore | None,
    log: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """What a judge says of itself, with its worth.

    Measuring one takes seconds, which is too long for every run of the pipeline: the answer is kept until its
    settings, texts or weights, the labelled explanations, the tested label spaces, code or libraries change.

    Args:
        judge: its settings; of a kind in `MEASURED`.
        settings: all parameters.
        workspace: top of the repository.
        locks: of the sources `judge` and `base`.
        store: needed if one of them is in S3.
        log: called with a line before it is measured.

    Raises:
        DataError: a source can't be read.
        EvaluationError: the judge can't be made, or the labelled explanations can't be read.
    """
    from erv.evaluate.judges.worth import measure_worth, read_labelled

    library = Path(__file__).parents[1]
    code = [sha256_of(library / path) for path in _CODE]
    versions = [metadata.version(name) for name in _LIBRARIES]
    inputs = [file.sha256 for file in _inputs(judge, locks)]
    own = [(name, _digest(workspace / file)) for name in settings.roles.test if (file := own_file(name))]
    labels = [_digest(workspace / LABELLED), own]
    key = json.dumps([judge.model_dump(), inputs, labels, code, versions])
    path = workspace / FOLDER / f"{hashlib.sha256(key.encode()).hexdigest()}.json"
    try:
        kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if kept["worth"].keys() >= _FIGURES:
            return kept
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):  # missing or damaged
        pass
    log(
        f"judge {judge.name}: fetching what it is made of and judging the texts of {LABELLED}, which may take"
        f" minutes; what it finds is kept in {FOLDER}"
    )
    labelled = read_labelled(workspace / LABELLED, settings.roles.test)
    with _built(judge, settings, workspace, locks, store) as built:
        described = {**built.describe(), "worth": measure_worth(built, labelled)}
    write_document(described, path)
    return described


@contextmanager
def _built(
    judge: JudgeSettings,
    settings: Settings,
    workspace: Path,
    locks: tuple[Lock, Lock],
    store: ObjectStore | None,
) -> Iterator[Judge]:
    from erv.evaluate.judges.build import build_judges, model_folders
    from erv.evaluate.judges.lexical import TEXTS_FILE

    own, base = locks
    with model_folders(base, store, workspace / FOLDER) as folder_of:
        (built,) = build_judges(
            [judge],
            runtime=settings.runtime,
            texts=lambda: own.read(store, TEXTS_FILE),
            folder_of=folder_of,
        )
        yield built


def _inputs(judge: JudgeSettings, locks: tuple[Lock, Lock]) -> list[SourceFile]:
    """The pinned files that a judge is made of."""
    from erv.evaluate.judges.lexical import TEXTS_FILE

    own, base = locks
    if judge.kind == "lexical":
        return [file for file in own.files if file.path == TEXTS_FILE]
    if judge.kind == "openai":
        return []
    return [file for file in base.files if file.path.startswith(f"{judge.model}/")]


def _lacking(judge: JudgeSettings, locks: tuple[Lock, Lock]) -> Iterator[str]:
    if judge.kind == "openai":
        key = judge.api_key_env
        if key and not os.environ.get(key):
            yield f"the environment variable {key} is not set; put the key in it"
    elif not _inputs(judge, locks):
        if judge.kind == "lexical":
            yield "the judge source has no texts.csv; add it and pin again"
        else:
            remedy = "write it with `erv data encoder`" if judge.kind == "embedding" else "add it"
            yield f"the base source has no folder {judge.model}; {remedy} and pin again"


def _digest(path: Path) -> str | None:
    return sha256_of(path) if path.is_file() else None
