"""Variants with rewards or credit beyond the paper against `erv`, at equal compute, on validation clips.

    python -m benchmarks.variants                                 # in a workspace where `make demo` has run
    python -m benchmarks.variants --workspace PATH --variants erv sentences --seeds 0 1 2
    python -m benchmarks.variants --variants erv --set learning_rate=1e-4 --name lr1   # one change

Each variant of params.yaml trains the workspace's cold start on its training clips, with its own rewards and
credit and nothing else changed: the same clips in the same order, as many completions, steps and updates.
Then it answers the validation clips greedily. No test clip is opened. Results of finished runs are kept in
the output file, so that an interrupted comparison goes on.

The explanations of the sample corpus are read by its own wordings: every sentence of its texts ends in words
that belong to one emotion, and a policy that learned from them writes them word for word. This reader has no
part in the rewards, has no weights and doesn't err on such a sentence; it says nothing of other texts.
Columns:

    WAR           the answer is right             EEA, EPC, FCR   as in docs/metrics.md, by this reader
    inconsistent  of the right answers, the share whose explanation names another emotion
    true_claims   share of claimed cues that the clip has
    words         in an explanation               repeated        share of sentences said before in it
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import yaml

from benchmarks.workspace import demanded, settings_demanded
from erv.claims import cues_in
from erv.cues import read_cues
from erv.errors import SettingsError
from erv.evaluate.metrics import explanation_metrics, read_completion
from erv.exclusions import Excluded, without
from erv.files import read_document, write_text
from erv.labels import LabelSpace
from erv.lineage.excluded import left_out
from erv.manifest import ClipRow, read_manifests
from erv.policies import load_policy
from erv.policies.common.generate import generate_completions
from erv.prompts import parse_completion
from erv.rewards import Shaping, build_rewards
from erv.rewards.answers import mafw_name
from erv.sample.wordings import emotions_said
from erv.sentences import explanation_shape, split_sentences
from erv.settings import GrpoSettings, Settings, VariantSettings
from erv.shards import ShardReader
from erv.training.grpo.grpo import build_rows, train_grpo, variant_settings
from erv.training.grpo.watch import quiet_libraries
from erv.verifier.memory import SentenceMemory
from erv.verifier.model import load_for_training

VARIANTS = ("erv", "sentences", "coherent", "grounded")
COLUMNS = ("WAR", "EEA", "EPC", "FCR", "inconsistent", "true_claims", "words", "repeated")


class Bench:
    """One workspace and the runs on it."""

    def __init__(self, workspace: Path, changes: Sequence[tuple[str, str, str]]) -> None:
        self._root = workspace
        self._settings: Settings = settings_demanded(workspace)
        self._changes = {key: yaml.safe_load(value) for key, _, value in changes}
        names = self._settings.roles.train
        # The record has validation clips, too, which no training reads.
        record = read_document(workspace / "data/leakage.json", "leakage")
        excluded = [Excluded(*clip) for clip in left_out(record)]
        manifests = read_manifests(workspace / "data/manifest", names)
        self._clips = {name: without(rows, excluded) for name, rows in manifests.items()}
        self._shards = {name: ShardReader(workspace / "data/shards" / name) for name in names}
        self._cues = read_cues(workspace / "data/cues", names)

    def variant(self, name: str) -> VariantSettings:
        """A variant of params.yaml; ends the script if it is trained in another way or doesn't explain."""
        try:
            variant = variant_settings(self._settings.variants, name)
        except SettingsError as error:
            sys.exit(f"error: {error}")
        if variant.method != "grpo" or not variant.thinks:
            sys.exit(f"error: variant {name} is not trained by grpo with explanations; choose another")
        return variant

    def run(self, name: str, seed: int) -> dict[str, Any]:
        """Trains a variant and measures it."""
        variant = self.variant(name)
        changed = GrpoSettings.model_validate(self._settings.grpo.model_dump() | self._changes)
        grpo = variant.applied_to(changed)
        memory = SentenceMemory()
        verifier = load_for_training(self._root / "models/verifier", self._settings.runtime, memory)
        shaping = Shaping(**grpo.shaping.model_dump())
        rewards = build_rewards(variant.rewards, verifier, grpo.semantics, shaping=shaping, cues=self._cues)
        curve: list[dict[str, float]] = []
        began = time.process_time()
        with tempfile.TemporaryDirectory() as scratch:
            folder = train_grpo(
                self._root / "models/policy/sft",
                build_rows(self._clips.values(), self._shards),
                self._shards,
                rewards,
                grpo,
                output=Path(scratch) / "policy",
                checkpoints=Path(scratch) / "checkpoints",
                on_metrics=lambda metrics, step: curve.append(metrics),
                seed=seed,
                runtime=self._settings.runtime,
                machine=self._settings.machine,
                kept=[memory],
            )
            seconds = time.process_time() - began
            measured = self.measure(folder)
        return {**measured, "cpu_seconds": round(seconds), "curve": tenths(curve), "changes": self._changes}

    def measure(self, folder: Path) -> dict[str, float]:
        """What a policy answers and says on the validation clips."""
        policy = load_policy(folder)
        rows: list[ClipRow] = []
        texts: list[str] = []
        for name, clips in self._clips.items():
            shown = [row for row in clips if row.split == "validation" and row.clip_id in self._shards[name]]
            reader, settings = self._shards[name], self._settings.evaluate
            said = generate_completions(
                policy,
                (reader.get(row.clip_id) for row in shown),
                batch_size=settings.batch_size,
                max_new_tokens=settings.max_new_tokens,
                temperature=0.0,
                seed=0,
            )
            rows += shown
            texts += [said[row.clip_id] for row in shown]
        return {**self._read(rows, texts), **explanation_shape(texts), "clips": float(len(rows))}

    def _read(self, rows: Sequence[ClipRow], texts: Sequence[str]) -> dict[str, float]:
        truth, predicted, told, claims = [], [], [], []
        for row, text in zip(rows, texts, strict=True):
            truth.append(mafw_name(row.label, row.dataset))
            answer = read_completion(text, LabelSpace.load(row.dataset)).predicted
            predicted.append(None if answer is None else mafw_name(answer, row.dataset))
            explanation = parse_completion(text).explanation or ""
            told.append(emotion_told(explanation))
            shown = self._cues[row.dataset][row.clip_id].all
            claims += [cue in shown for cue in cues_in(explanation)]
        agreement = explanation_metrics(truth, predicted, told)
        named = [
            heard not in (None, true)
            for true, answer, heard in zip(truth, predicted, told, strict=True)
            if true == answer
        ]
        return {
            "WAR": len(named) / len(rows),
            **{name: agreement[name] for name in ("EEA", "EPC", "FCR")},
            "inconsistent": fmean(named) if named else 0.0,
            "true_claims": fmean(claims) if claims else 0.0,
        }


def emotion_told(explanation: str) -> str | None:
    """The emotion that more sentences speak of than of any other; None if there is no such emotion."""
    sentences = split_sentences(explanation, semantics="strict")
    counts = Counter(name for sentence in sentences for name in emotions_said(sentence)).most_common(2)
    if not counts or (len(counts) == 2 and counts[0][1] == counts[1][1]):
        return None
    return counts[0][0]


def tenths(curve: Sequence[Mapping[str, float]]) -> dict[str, list[float]]:
    """Means over each tenth of a run, of what shows how it learns."""
    size = max(1, len(curve) // 10)
    names = [name for name in curve[0] if name.startswith("reward") and "class" not in name]
    names += ["kl", "entropy", "grad_norm", "zero_std_share", "explanations/words"]
    return {
        name: [
            round(fmean(step[name] for step in curve[start : start + size] if name in step), 4)
            for start in range(0, len(curve), size)
        ]
        for name in names
    }


def table(results: Mapping[str, Mapping[str, Any]]) -> str:
    """All runs as Markdown, then the mean over seeds of each variant."""
    lines = ["| run | " + " | ".join(COLUMNS) + " |", "|---|" + "---|" * len(COLUMNS)]
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for name, found in sorted(results.items()):
        groups.setdefault(name.rpartition("/")[0], []).append(found)
        lines.append(f"| {name} | " + " | ".join(f"{found[column]:.3f}" for column in COLUMNS) + " |")
    for name, runs in groups.items():
        means = " | ".join(f"{fmean(run[column] for run in runs):.3f}" for column in COLUMNS)
        lines.append(f"| **{name}, mean of {len(runs)}** | {means} |")
    return "\n".join(lines)


def main() -> None:
    """Trains the runs that are missing, measures them, writes the results and prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workspace", type=Path, default=Path())
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS))
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="other values of grpo")
    parser.add_argument("--name", default="", help="what runs with --set are called")
    parser.add_argument(
        "--policies", nargs="+", default=[], help="policies of the workspace to measure as they are"
    )
    parser.add_argument("--out", type=Path, default=Path("benchmarks/variants.json"))
    options = parser.parse_args()
    demanded(options.workspace, "params.yaml", "models/policy/sft", "models/verifier", "data/shards")
    results = json.loads(options.out.read_text(encoding="utf-8")) if options.out.is_file() else {}
    bench = Bench(options.workspace, [item.partition("=") for item in options.set])
    for variant in options.variants:
        bench.variant(variant)  # a wrong name ends here, not after the first training
    for policy in options.policies:
        results[f"workspace/{policy}"] = bench.measure(options.workspace / "models/policy" / policy)
        write_text(json.dumps(results, indent=1, sort_keys=True) + "\n", options.out)
    for seed in options.seeds:
        for variant in options.variants:
            name = "/".join(part for part in (options.name, variant, str(seed)) if part)
            if name not in results:
                results[name] = bench.run(variant, seed)
                write_text(json.dumps(results, indent=1, sort_keys=True) + "\n", options.out)
    print(table(results))


if __name__ == "__main__":
    with quiet_libraries():
        main()
