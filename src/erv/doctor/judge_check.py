"""How good the pinned judge is: it is trained to find out, and the answer is kept."""

from __future__ import annotations

import hashlib
import json
from importlib import metadata
from pathlib import Path
from typing import Any

from erv.files import sha256_of, write_document

FOLDER = Path(".erv/judges")
_CODE = ("evaluate", "sentences.py", "labels")
_FIGURES = {
    "held_out", "held_out_accuracy", "held_out_low", "held_out_high",
    "held_out_emotions", "held_out_recall", "held_out_recall_low", "held_out_recall_high",
}  # fmt: skip
_LIBRARIES = ("numpy", "scipy", "scikit-learn")


def described_judge(texts: bytes, seed: int, folder: Path) -> dict[str, Any]:
    """What `LexicalJudge.describe` says of a judge of these texts.

    Training one takes over a second, which is not worth it in every run of the pipeline: the answer is kept
    until texts, seed, code or libraries change.

    Args:
        texts: the content of `texts.csv`.
        seed: seed of the choice of held-out texts.
        folder: where answers are kept.

    Raises:
        UnicodeDecodeError: the texts are not UTF-8.
        EvaluationError: no judge can be trained on them.
    """
    library = Path(__file__).parents[1]
    code = [sha256_of(library / path) for path in _CODE]
    versions = [metadata.version(name) for name in _LIBRARIES]
    key = json.dumps([hashlib.sha256(texts).hexdigest(), seed, code, versions])
    path = folder / f"{hashlib.sha256(key.encode()).hexdigest()}.json"
    try:
        kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if kept.keys() >= _FIGURES:
            return kept
    except (OSError, ValueError, AttributeError, RecursionError):  # not there, or damaged
        pass
    from erv.evaluate.judges import LexicalJudge

    described = LexicalJudge.from_csv(texts.decode("utf-8"), seed=seed).describe()
    write_document(described, path)
    return described
