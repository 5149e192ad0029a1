"""The sample corpus: small trees in exactly the official layouts, made of drawn and synthetic clips.

MAFW and DFEW can't be shipped. `write_sample` writes stand-ins in the same format, a cold-start reasoning set
with its own clips, texts for the lexical judge, and models to start from. `cues.parquet` beside the clips
records what each really shows. A planted, systematic share of the reasoning set's explanations contradicts
the answer (`erv.sample.emotions.contradiction_rate`).
"""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

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
CODE = ("claims.py", "files.py", "labels", "manifest.py", "prompts.py", "sample", "sentences.py")
BASE_CODE = (
    *CODE,
    "determinism.py",
    "media",
    "model_folders.py",
    "policies/__init__.py",
    "policies/common",
    "policies/humanomni",
    "shards.py",
)
_SIZES = {"demo": (660, 420, 560, 60), "tiny": (66, 42, 66, 12)}
_DFEW_EMOTIONS = ("happiness", "sadness", "neutral", "anger", "surprise", "disgust", "fear")
_FOLDS = 5
_CONTRASTS_PER_CLIP = 4  # labelled sentences without a clip, per clip of the reasoning set
_NICE = 3  # of processes that draw beside the training of the base checkpoint, which ends last


class _ClipTree(NamedTuple):
    """How a tree of clips is made: its emotions, the folder of the clips, what writes the lists."""

    emotions: Sequence[str]
    clips: str
    write: Callable[[Path, Sequence[layouts.Item], np.random.Generator], None]


_CLIP_TREES = {
    "mafw": _ClipTree(EMOTIONS, "data/clips", layouts.write_mafw),
    "dfew": _ClipTree(_DFEW_EMOTIONS, "Clip/original", layouts.write_dfew),
    "reasoning": _ClipTree(EMOTIONS, "video", layouts.write_reasoning),
}


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
        workers: processes that draw clips; those of mafw and dfew while the base checkpoint is trained.
        skip_base: leave out the models to start from: the base checkpoint has to be trained.
        progress: called with a line per step, from two threads.

    Returns:
        The folders of the trees.
    """
    counts = size if isinstance(size, SampleSize) else SampleSize.parse(size)
    write = _Trees(out, seed, counts, progress)
    with ExitStack() as stack:
        # The base checkpoint is trained on the reasoning set, so that one comes first. The training keeps one
        # core busy, and another for half of its time; the other sets are drawn on what is left.
        write.clips(["reasoning"], workers, nice=0)
        others = stack.enter_context(ThreadPoolExecutor(1)).submit(
            write.clips, ["mafw", "dfew"], workers, nice=_NICE
        )
        write.judge()
        if not skip_base:
            write.base()
        others.result()
    return [out / name for name in TREES if name != "base" or not skip_base]


@dataclass(frozen=True)
class _Trees:
    """Writes trees below `out`; keeps those that are current."""

    out: Path
    seed: int
    counts: SampleSize
    say: Callable[[str], None]

    def clips(self, names: Sequence[str], workers: int, *, nice: int) -> None:
        """Writes trees of clips, drawn by `workers` processes with this niceness."""
        missing = [name for name in names if not self._is_kept(name)]
        if not missing:
            return
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(
            max(1, workers), mp_context=context, initializer=os.nice, initargs=(nice,)
        ) as pool:
            for name in missing:
                with _whole_tree(self.out, name, self.seed, self.counts) as folder:
                    self._write(name, folder, pool)

    def _write(self, name: str, folder: Path, pool: ProcessPoolExecutor) -> None:
        spec = _CLIP_TREES[name]
        plan = _plan(name, getattr(self.counts, name), spec.emotions, self.seed)
        (folder / spec.clips).mkdir(parents=True)
        jobs = [(self.seed, name, item.cues, folder / spec.clips) for item in plan]
        for done, _ in enumerate(pool.map(_render, jobs, chunksize=8), start=1):
            if done % 100 == 0 or done == len(jobs):
                self.say(f"{name}: {done}/{len(jobs)} clips")
        spec.write(folder, plan, stream(self.seed, name, "texts"))
        if name == "reasoning":
            contrasts = stream(self.seed, name, "contrasts")
            layouts.write_sentences(folder, compose_contrasts(_CONTRASTS_PER_CLIP * len(plan), contrasts))

    def judge(self) -> None:
        """Writes the judge's texts."""
        if not _is_current(self.out, "judge", self.seed, self.counts):
            with _whole_tree(self.out, "judge", self.seed, self.counts) as folder:
                layouts.write_judge(folder, _judge_texts(self.counts.judge, self.seed))
                layouts.write_mark(folder)

    def base(self) -> None:
        """Trains and writes the base checkpoint; the reasoning tree must be there."""
        if self._is_kept("base"):
            return
        from erv.sample.base_checkpoint import write_base
        from erv.sample.encoder import FOLDER, unpack_encoder

        self.say("base: training the towers of the base checkpoint")
        with _whole_tree(self.out, "base", self.seed, self.counts) as folder:
            layouts.write_mark(folder)
            unpack_encoder(folder / FOLDER)
            write_base(
                self.out / "reasoning", folder, self.seed, progress=lambda line: self.say(f"base: {line}")
            )

    def _is_kept(self, name: str) -> bool:
        kept = _is_current(self.out, name, self.seed, self.counts)
        if kept:
            self.say(f"{name}: unchanged")
        return kept


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
