"""The base checkpoint of the sample corpus: a tiny HumanOmni with trained towers, and an encoder.

It stands in for HumanOmni-0.5B and RoBERTa, which can't be shipped. Its language model is random: everything
it says is learned in `sft`. Its towers and projectors have seen only the clips of the reasoning set, which
are in no fold of the other sets.
"""

from __future__ import annotations

import csv
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow.parquet as pq

from erv.errors import DataError
from erv.files import model_folder
from erv.prompts import format_completion

if TYPE_CHECKING:
    from erv.sample.pretraining import LabelledClip

logger = logging.getLogger(__name__)

_RATE = 16000
_ENCODER_VOCABULARY = 1200
_ENCODER_WIDTH = 64


def write_base(
    tree: Path,
    out: Path,
    seed: int,
    *,
    vision_steps: int | None = None,
    audio_steps: int | None = None,
    progress: Callable[[str], None] | None = None,
) -> None:
    """Writes `out/policy` and `out/encoder` from the reasoning tree; equal tree and seed give equal bytes.

    `out/trained_on.csv` names the clips that they learned from, for `erv lineage`.

    Args:
        tree: the raw reasoning tree (`EMER.csv`, `cues.parquet`, `video/*.mp4`).
        out: folder to write into.
        seed: of weights and training.
        vision_steps: training steps of the vision tower; None for the demo's number (less for a small tree).
        audio_steps: the same for the audio tower.
        progress: called with a line now and then; None logs it.

    Raises:
        DataError: the tree lacks a file.
    """
    import torch

    from erv.policies import Policy
    from erv.sample.pretraining import AUDIO_STEPS, VISION_STEPS, train_towers
    from erv.sample.projectors import STEPS, align_projectors
    from erv.sample.tiny_policy import TinySizes, build_tiny_policy

    say = progress or (lambda line: logger.info("base: %s", line))
    explanations = _explanations(tree)
    sizes = TinySizes()
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(1)  # sums, and so every weight, depend on the number of threads
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        model, processor = build_tiny_policy(
            [format_completion(text, emotion) for text, emotion in explanations.values()], seed, sizes
        )
        clips = _labelled_clips(tree, sizes.num_frames, sizes.image_size)
        say(f"{len(clips)} clips decoded")
        share = min(1.0, len(clips) / 400)
        train_towers(
            model,
            processor,
            clips,
            seed,
            vision_steps=int(VISION_STEPS * share) if vision_steps is None else vision_steps,
            audio_steps=int(AUDIO_STEPS * share) if audio_steps is None else audio_steps,
            progress=say,
        )
        align_projectors(model, processor, clips, seed, steps=int(STEPS * share), progress=say)
        Policy(model, processor).save(out / "policy")
        _write_encoder(
            [*(text for text, _ in explanations.values()), *_sentences(tree)], out / "encoder", seed
        )
        _write_trained_on(tree.name, sorted({clip.clip.clip_id for clip in clips} | set(explanations)), out)
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic)


def _write_trained_on(dataset: str, clips: Sequence[str], out: Path) -> None:
    """The encoder's weights are random, but its vocabulary comes from the explanations: that is learning."""
    with (out / "trained_on.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(("model", "dataset", "clip_id"))
        writer.writerows((model, dataset, clip) for model in ("policy", "encoder") for clip in clips)


def _explanations(tree: Path) -> dict[str, tuple[str, str]]:
    """Clip id to (explanation, answer), sorted by clip id."""
    path = tree / "EMER.csv"
    if not path.is_file():
        raise DataError(f"{path}: not found; write the reasoning tree first (`erv sample-data`)")
    with path.open(encoding="utf-8", newline="") as stream:
        rows = {row["names"]: (row["reasons"], row["emotions"]) for row in csv.DictReader(stream)}
    return dict(sorted(rows.items()))


def _sentences(tree: Path) -> list[str]:
    """The sentences without a clip; empty for a tree without `sentences.csv`."""
    path = tree / "sentences.csv"
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as stream:
        return [row["sentence"] for row in csv.DictReader(stream)]


def _labelled_clips(tree: Path, frames: int, size: int) -> list[LabelledClip]:
    """The clips of the tree with what they really show, sorted by clip id."""
    import numpy as np

    from erv.media.decode import DecodeRule, MediaError, decode
    from erv.sample.pretraining import LabelledClip
    from erv.shards import Clip

    rule = DecodeRule(frames=frames, size=size, geometry="stretch", sample_rate=_RATE)
    labelled = []
    for row in sorted(pq.read_table(tree / "cues.parquet").to_pylist(), key=lambda row: row["clip_id"]):
        path = tree / "video" / f"{row['clip_id']}.mp4"
        try:
            decoded = decode(path, rule)
        except MediaError as error:
            raise DataError(f"{path}: {error}; write the sample corpus again") from error
        sound = np.zeros(0, np.int16) if decoded.audio is None else decoded.audio
        clip = Clip(row["clip_id"], decoded.frames, sound, _RATE)
        labelled.append(LabelledClip(clip, row["emotion"], tuple(row["face_cues"]), tuple(row["voice_cues"])))
    return labelled


def _write_encoder(texts: list[str], folder: Path, seed: int) -> None:
    """A small BERT with random weights and a WordPiece tokenizer of the sentences' words."""
    import torch
    from transformers import BertConfig, BertModel

    from erv.sample.tiny_policy import train_wordpiece

    tokenizer = train_wordpiece(texts, _ENCODER_VOCABULARY, max_length=64)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=_ENCODER_WIDTH,
        intermediate_size=2 * _ENCODER_WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=128,
        pad_token_id=tokenizer.pad_token_id,
        # BERT's 0.02 suits a width of 768; an encoder this narrow would hardly learn with it in 300 steps.
        initializer_range=0.1,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = BertModel(config)
    with model_folder(folder) as whole:
        model.save_pretrained(whole)
        tokenizer.save_pretrained(whole)
