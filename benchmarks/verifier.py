"""Sentences per second of the explanation reward, compared with one padded batch of the same sentences.

    python benchmarks/verifier.py                 # make bench-verifier
    python benchmarks/verifier.py --rounds 5 --steps 80 --device cuda --dtype bfloat16

The verifier is an encoder of RoBERTa-base's size (12 layers, 768 wide, 50,265 tokens) with random weights and
eleven outputs. All ways compute the whole reward (splitting, labels, share) with the same weights; they
differ in how sentences reach the encoder:

- plain: all sentences of the batch, including repeated ones, padded to the longest, in one batch
- erv: `EmotionVerifier.predict`: each different sentence once, in batches of similar length
- memory: also skips what an earlier step has read, as the stage grpo does

over these batches of 64 completions:

- distinct: 8 different sentences per completion, of mixed length (4 to 40 words, evenly spread)
- skewed: the same with lengths as in prose (log-normal, median 14 words, 4 to 60)
- recorded: what the policy of `make demo` wrote in its GRPO, step by step, in groups of 8
  (`rollouts.parquet`, written by `record_rollouts.py`)

The ways take turns in one process, so that the ratio holds on a busy machine. Generated sets are repeated,
and the ratio is the median over rounds; the first recorded steps are run once, in order, and the ratio is
that of all of them, first step included. Rewards and probabilities of all ways are compared. Sets that are
not selected keep their results in the file.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for `benchmarks`

from benchmarks.workspace import positive

RESULTS = Path(__file__).with_suffix(".json")
ROLLOUTS = Path(__file__).with_name("rollouts.parquet")
COMPLETIONS, SENTENCES = 64, 8
LARGEST_GAP = 1e-5
SETS = ("distinct", "skewed", "recorded")

Batch = tuple[list[str], list[str], list[str]]  # completions, truths, data sets


class OnePaddedBatch:
    """The plain way, with a verifier's weights."""

    def __init__(self, verifier: Any) -> None:
        self.labels, self.thresholds = verifier.labels, verifier.thresholds
        self._verifier = verifier

    @torch.inference_mode()
    def predict(self, sentences: Sequence[str]) -> torch.Tensor:
        """Probabilities, float32 [n, labels]."""
        verifier = self._verifier
        options = {"padding": True, "truncation": True, "max_length": verifier.max_length}
        inputs = verifier.tokenizer(list(sentences), return_tensors="pt", **options)
        logits = verifier.model(**inputs.to(verifier.model.device)).logits
        return torch.sigmoid(logits.float()).cpu()


class Noted:
    """A verifier that keeps its last answer, for comparison."""

    def __init__(self, verifier: Any) -> None:
        self.labels, self.thresholds = verifier.labels, verifier.thresholds
        self._verifier = verifier
        self.sentences: list[str] = []
        self.answer = torch.zeros(0)

    def predict(self, sentences: list[str]) -> torch.Tensor:
        """Probabilities, float32 [n, labels]."""
        self.sentences, self.answer = sentences, self._verifier.predict(sentences)
        return self.answer


def build_verifiers(texts: Sequence[str], device: str, dtype: str) -> dict[str, Noted]:
    """The three ways, with one encoder of RoBERTa-base's size and random weights."""
    from transformers import RobertaConfig, RobertaForSequenceClassification

    from erv.labels import LabelSpace
    from erv.sample.tiny_policy import train_wordpiece
    from erv.verifier import EmotionVerifier
    from erv.verifier.memory import SentenceMemory

    labels = LabelSpace.load("mafw").names
    tokenizer = train_wordpiece(list(texts), 8000, 128)
    torch.manual_seed(0)
    # RoBERTa-base's sizes are the configuration's defaults.
    config = RobertaConfig(num_labels=len(labels), pad_token_id=tokenizer.pad_token_id)
    model = RobertaForSequenceClassification(config).to(device, getattr(torch, dtype))
    options = {"labels": labels, "thresholds": [0.5] * len(labels), "max_length": 128}
    erv = EmotionVerifier(model, tokenizer, **options)
    return {
        "plain": Noted(OnePaddedBatch(erv)),
        "erv": Noted(erv),
        "memory": Noted(EmotionVerifier(model, tokenizer, memory=SentenceMemory(), **options)),
    }


def drawn(lengths: np.ndarray, words: Sequence[str], rng: np.random.Generator) -> Batch:
    """Completions made of different sentences with these lengths in words."""
    sentences = [
        " ".join([f"no{index}", *rng.choice(words, size - 1)]) + "." for index, size in enumerate(lengths)
    ]
    groups = [sentences[i : i + SENTENCES] for i in range(0, len(sentences), SENTENCES)]
    texts = [f"<think>{' '.join(group)}</think>\n<answer>anger</answer>" for group in groups]
    return texts, ["anger"] * len(texts), ["mafw"] * len(texts)


def recorded(steps: int, completions: int) -> list[Batch]:
    """The first completions of the first `steps` steps of the demo's GRPO."""
    rows = pq.read_table(ROLLOUTS).to_pylist()
    batches = []
    for step in sorted({row["step"] for row in rows})[:steps]:
        chosen = [row for row in rows if row["step"] == step][:completions]
        batches.append(tuple([row[name] for row in chosen] for name in ("completion", "truth", "dataset")))
    return batches


def walk(batches: Sequence[Batch], ways: dict[str, Noted]) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """Seconds per batch of each way, in turns; sentences per batch, and how far apart the ways are."""
    from erv.rewards import explanation_reward

    rewards: dict[str, Callable[..., Any]] = {name: explanation_reward(way) for name, way in ways.items()}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    gap, same, sentences, different = 0.0, True, 0, 0
    for completions, truths, datasets in batches:
        values = {}
        for name, reward in rewards.items():
            began = time.perf_counter()
            values[name] = reward(completions, truths, dataset=datasets)
            seconds[name].append(time.perf_counter() - began)
        first = next(iter(ways.values()))
        sentences += len(first.sentences)
        different += len(set(first.sentences))
        for name, way in ways.items():
            gap = max(gap, float((way.answer - first.answer).abs().max()))
            same = same and values[name] == next(iter(values.values()))
    return seconds, {
        "sentences": round(sentences / len(batches)),
        "different": round(different / len(batches)),
        "largest_gap": gap,
        "same_rewards": same,
    }


def show(name: str, row: dict[str, Any]) -> None:
    """Prints the line of a set."""
    ratios = ", ".join(f"{way} {ratio:.2f} times" for way, ratio in row["ratio"].items())
    pace = row["sentences"] * row.get("steps", 1) / row["seconds"]["plain"]
    print(
        f"{name:<9} {row['sentences']:>4} sentences per batch, {row['different']:>4} different;"
        f" plain {pace:>6.1f}/s; {ratios}; gap {row['largest_gap']:.1e}",
        flush=True,
    )


def main() -> int:
    """Measures all sets, prints a line for each and writes the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=positive, default=3)
    parser.add_argument("--steps", type=positive, default=20)
    parser.add_argument("--completions", type=positive, default=COMPLETIONS, help="in a batch, at most")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    rollouts = recorded(arguments.steps, arguments.completions)
    words = sorted(
        {word for texts, *_ in rollouts for text in texts for word in text.split() if word.isalpha()}
    )
    count = arguments.completions * SENTENCES
    skewed = np.clip(np.exp(rng.normal(np.log(14), 0.5, count)).astype(int), 4, 60)
    sets = {"distinct": drawn(rng.integers(4, 41, count), words, rng), "skewed": drawn(skewed, words, rng)}
    texts = [text for batch in [*sets.values(), *rollouts] for text in batch[0]]
    ways = build_verifiers(texts, arguments.device, arguments.dtype)
    results: dict[str, Any] = {}
    for name, batch in sets.items():
        if name not in arguments.sets:
            continue
        two = {way: ways[way] for way in ("plain", "erv")}
        walk([tuple(column[:4] for column in batch)], two)  # a warm-up
        seconds, found = walk([batch] * arguments.rounds, two)
        pairs = [plain / mine for plain, mine in zip(seconds["plain"], seconds["erv"], strict=True)]
        results[name] = {
            **found,
            "seconds": {way: round(median(times), 3) for way, times in seconds.items()},
            "ratio": {"erv": round(median(pairs), 2)},
            "range": [round(min(pairs), 2), round(max(pairs), 2)],
        }
        show(name, results[name])
    if "recorded" in arguments.sets:
        seconds, found = walk(rollouts, ways)
        total = {way: sum(times) for way, times in seconds.items()}
        results["recorded"] = {
            **found,
            "steps": len(rollouts),
            "seconds": {way: round(value, 3) for way, value in total.items()},
            "ratio": {way: round(total["plain"] / total[way], 2) for way in ("erv", "memory")},
        }
        show("recorded", results["recorded"])
    command = f"python benchmarks/verifier.py {' '.join(sys.argv[1:])}".strip()
    before = json.loads(arguments.out.read_text())["results"] if arguments.out.is_file() else {}
    document = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads",
        "device": torch.cuda.get_device_name() if arguments.device == "cuda" else arguments.device,
        "dtype": arguments.dtype,
        "versions": {name: version(name) for name in ("torch", "transformers", "tokenizers")},
        "results": before | {name: {"command": command, **row} for name, row in results.items()},
    }
    arguments.out.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    worst = max(row["largest_gap"] for row in results.values())
    equal = worst <= LARGEST_GAP and all(row["same_rewards"] for row in results.values())
    return 0 if equal or arguments.dtype != "float32" else 1


if __name__ == "__main__":
    sys.exit(main())
