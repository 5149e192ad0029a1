"""The sample corpus: small trees in exactly the official layouts, made of drawn and synthetic clips.

MAFW and DFEW can't be shipped. `write_sample` writes stand-ins in the same format, a cold-start reasoning set
with its own clips, and texts for the lexical judge. `cues.parquet` beside the clips records what each really
shows. A planted, systematic share of the reasoning set's explanations contradicts the answer
(`erv.sample.emotions.contradiction_rate`).
"""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from erv.determinism import PACKAGE, code_version
from erv.errors import DataError
from erv.files import sha256_of_text, whole_folder, write_text
from erv.sample import layouts
from erv.sample.clips import ClipCues, draw_cues, render_clip, stream
from erv.sample.contrasts import compose_contrasts
from erv.sample.emotions import EMOTIONS, EXPRESSIONS, contradiction_rate
from erv.sample.wordings import compose_explanation

TREES = ("mafw", "dfew", "reasoning", "judge", "base")
# The rooms that a tree is made with, and those of the base checkpoint; a test compares them with the imports.
CODE = ("files.py", "labels", "manifest.py", "sample")
BASE_CODE = (
    *CODE,
    "determinism.py",
    "media",
    "model_folders.py",
    "policies/__init__.py",
    "policies/common",
    "policies/humanomni",
    "prompts.py",
    "shards.py",
)
_SIZES = {"demo": (660, 420, 560, 60), "tiny": (66, 42, 66, 12)}
_DFEW_EMOTIONS = ("happiness", "sadness", "neutral", "anger", "surprise", "disgust", "fear")
_FOLDS = 5
_CONTRASTS_PER_CLIP = 4  # labelled sentences without a clip, per clip of the reasoning set


@dataclass(frozen=True)
class SampleSize:
    """Clips per tree, and judge texts per emotion."""

    mafw: int
    dfew: int
    reasoning: int
    judge: int

    @staticmethod
    def parse(text: str) -> SampleSize:
        """`demo`, `tiny`, or a number of MAFW clips, from which the other counts follow.

        Raises:
            DataError: none of these, or fewer than 55 clips (each fold needs every emotion).
        """
        if text in _SIZES:
            return SampleSize(*_SIZES[text])
        if not text.isdigit() or int(text) < len(EMOTIONS) * _FOLDS:
            raise DataError(
                f"sample size {text!r}: expected demo, tiny or a number from {len(EMOTIONS) * _FOLDS} up"
            )
        count = int(text)
        return SampleSize(count, max(35, count * 7 // 11), count, 60)


def write_sample(
    out: Path,
    seed: int = 0,
    size: str | SampleSize = "demo",
    *,
    workers: int = 2,
    skip_base: bool = False,
    progress: Callable[[str], None] = lambda line: None,
) -> list[Path]:
    """Writes the trees `mafw`, `dfew`, `reasoning`, `judge` and `base` below `out`, each whole or not at all.

    An existing tree that the same code made from the same arguments is kept.

    Args:
        out: folder, made if missing.
        seed: of every choice; the files depend on it and on `size`, not on `workers`.
        size: `demo`, `tiny`, a number, or counts.
        workers: processes that render clips.
        skip_base: leave out the base checkpoint, which has to be trained.
        progress: called with a line per step.

    Returns:
        The folders of the trees.
    """
    counts = size if isinstance(size, SampleSize) else SampleSize.parse(size)
    plans = {
        "mafw": _plan("mafw", counts.mafw, EMOTIONS, seed),
        "dfew": _plan("dfew", counts.dfew, _DFEW_EMOTIONS, seed),
        "reasoning": _plan("reasoning", counts.reasoning, EMOTIONS, seed),
    }
    writers = {"mafw": layouts.write_mafw, "dfew": layouts.write_dfew, "reasoning": layouts.write_reasoning}
    clips = {"mafw": "data/clips", "dfew": "Clip/original", "reasoning": "video"}
    say = progress
    missing = [name for name in plans if not _is_current(out, name, seed, counts)]
    with ExitStack() as stack:
        if missing:
            context = multiprocessing.get_context("spawn")
            pool = stack.enter_context(ProcessPoolExecutor(max(1, workers), mp_context=context))
        for name, plan in plans.items():
            if name not in missing:
                say(f"{name}: unchanged")
                continue
            with _whole_tree(out, name, seed, counts) as folder:
                (folder / clips[name]).mkdir(parents=True)
                jobs = [(seed, name, item.cues, folder / clips[name]) for item in plan]
                for done, _ in enumerate(pool.map(_render, jobs, chunksize=8), start=1):
                    if done % 100 == 0 or done == len(jobs):
                        say(f"{name}: {done}/{len(jobs)} clips")
                writers[name](folder, plan, stream(seed, name, "texts"))
                if name == "reasoning":
                    contrasts = stream(seed, name, "contrasts")
                    layouts.write_sentences(
                        folder, compose_contrasts(_CONTRASTS_PER_CLIP * len(plan), contrasts)
                    )
    if not _is_current(out, "judge", seed, counts):
        with _whole_tree(out, "judge", seed, counts) as folder:
            layouts.write_judge(folder, _judge_texts(counts.judge, seed))
            layouts.write_mark(folder)
    written = [out / name for name in (*plans, "judge")]
    if skip_base:
        return written
    if _is_current(out, "base", seed, counts):
        say("base: unchanged")
    else:
        from erv.sample.base_checkpoint import write_base

        say("base: training the towers of the base checkpoint")
        with _whole_tree(out, "base", seed, counts) as folder:
            layouts.write_mark(folder)
            write_base(out / "reasoning", folder, seed, progress=lambda line: say(f"base: {line}"))
    return [*written, out / "base"]


def _plan(name: str, count: int, emotions: Sequence[str], seed: int) -> list[layouts.Item]:
    """Clip ids, emotions, folds and cues of a tree: balanced, every fold with every emotion."""
    rng = stream(seed, name, "plan")
    order = rng.permutation(count)
    items, number, seen = [], 18, dict.fromkeys(emotions, 0)
    for index in range(count):
        emotion = emotions[int(order[index]) % len(emotions)]
        number += int(rng.integers(1, 4))
        clip_id = {"mafw": f"{number:05d}", "dfew": str(index + 1), "reasoning": f"sample_{index + 1:08d}"}[
            name
        ]
        cues = draw_cues(clip_id, emotion, stream(seed, name, clip_id, "cues"))
        fold = seen[emotion] % _FOLDS + 1
        seen[emotion] += 1
        items.append(layouts.Item(cues, fold))
    if name != "reasoning":
        return items
    return [_with_explanation(item, stream(seed, name, item.cues.clip_id, "words")) for item in items]


def _with_explanation(item: layouts.Item, rng: np.random.Generator) -> layouts.Item:
    cues = item.cues
    contradicts = bool(rng.random() < contradiction_rate(cues.emotion))
    if contradicts:
        sentences = compose_explanation(EXPRESSIONS[cues.emotion].partner, rng, "a")
    else:
        # Doesn't describe a channel that shows nothing of the emotion.
        face = cues.face_cues if cues.channel in ("both", "face") or cues.emotion == "anxiety" else ()
        voice = cues.voice_cues if cues.channel in ("both", "voice") else ()
        sentences = compose_explanation(cues.emotion, rng, "a", face_cues=face, voice_cues=voice)
    return layouts.Item(cues, item.fold, tuple(sentences), contradicts)


def _judge_texts(per_emotion: int, seed: int) -> list[tuple[str, str]]:
    rng = stream(seed, "judge")
    texts = []
    for _ in range(per_emotion):
        for emotion in EMOTIONS:
            sentences = compose_explanation(emotion, rng, "b", fillers=int(rng.integers(0, 2)))
            texts.append((" ".join(text for text, _ in sentences), emotion))
    return texts


def _render(job: tuple[int, str, ClipCues, Path]) -> None:
    seed, name, cues, folder = job
    content = render_clip(cues, stream(seed, name, cues.clip_id, "clip"))
    (folder / f"{cues.clip_id}.mp4").write_bytes(content)


@contextmanager
def _whole_tree(out: Path, name: str, seed: int, counts: SampleSize) -> Iterator[Path]:
    """Yields a folder that becomes a tree when it is finished; its stamp is written last."""
    stamp = _stamp_path(out, name)
    with whole_folder(out / name) as folder:
        yield folder
        stamp.unlink(missing_ok=True)
    write_text(json.dumps(_stamp(out / name, name, seed, counts), sort_keys=True), stamp)


def _is_current(out: Path, name: str, seed: int, counts: SampleSize) -> bool:
    """Whether the tree exists, is whole, and was made by this code from these arguments."""
    try:
        stamp = json.loads(_stamp_path(out, name).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError, RecursionError):
        return False
    return bool(stamp == _stamp(out / name, name, seed, counts))


def _stamp_path(out: Path, name: str) -> Path:
    # Beside the trees, not in them: a tree contains the official layout and nothing else.
    return out / ".stamps" / f"{name}.json"


def _stamp(folder: Path, name: str, seed: int, counts: SampleSize) -> dict[str, object]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    listing = "\n".join(f"{p.relative_to(folder).as_posix()} {p.stat().st_size}" for p in files)
    return {
        "seed": seed,
        "counts": [counts.mafw, counts.dfew, counts.reasoning, counts.judge],
        "code": _code_digest(name),
        "files": sha256_of_text(listing),
    }


def _code_digest(name: str) -> str:
    """The code and the library versions that determine a tree's bytes."""
    libraries = ["av", "numpy", "pillow", "pyarrow"]
    if name == "base":
        libraries += ["torch", "transformers", "tokenizers"]
    return code_version([f"{PACKAGE}/{room}" for room in (BASE_CODE if name == "base" else CODE)], libraries)
