"""The cost of a GRPO step compared with two other ways to run it, in one run, with random weights.

    python -m benchmarks.grpo                     # make bench-grpo
    python -m benchmarks.grpo --size tiny         # about two minutes
    python -m benchmarks.grpo --size 0.5b --largest      # on a GPU: bfloat16, and the largest batches

The ways (`grpo_ways.py`) are what the stage does; the same in one batch, but with towers and prompt run for
every completion; and the released trainer's way, one clip at a time. They train on clips that they have not
seen, write completions of the same length, and are compared on the same completions: log-probabilities, loss,
gradients.

On a CPU they take turns in one process, one step each, and the first turn does not count. A ratio is the
median over turns of CPU seconds of this process, so that it holds on a busy machine. Parts are timed around
the real calls, and time in a nested part counts only for that part. Peak memory is that of a process that
runs one way. On a GPU every way runs in its own process, and seconds are wall clock. Utilisation
(`grpo_flops.py`) covers the scoring of the policy and its backward pass. Sizes that are not selected keep
their results in the file.

What needs a GPU (bfloat16, 0.5b, utilisation, `--largest`) has not been run on one yet: the file has no such
result, and only the search and the count of operations are tested.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks.grpo_flops import Language, Work, peak_of
from benchmarks.grpo_measured import PARTS
from benchmarks.grpo_sizes import DATASET, SIZES, build_policy, write_clips
from benchmarks.grpo_ways import WAYS, step
from benchmarks.grpo_worker import load_trainer, prompts_of, seconds_of, settings_for
from benchmarks.workspace import positive
from erv.determinism import seed_everything
from erv.training.grpo.watch import quiet_libraries

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).with_suffix(".json")
TARGETS = {"before": 2.2, "reencoding": 1.3, "released": 3.0}
LARGEST_GAP = {"float32": 1e-3, "bfloat16": 0.3}  # of a log-probability; gradients as a share of the largest
STEPS = {"tiny": 4, "50m": 2, "0.5b": 4}

Row = dict[str, Any]


def in_turns(
    size: str, group: int, steps: int, policy: Path, shards: Path, dtype: str
) -> dict[str, list[Row]]:
    """Seconds of each way, which take turns step by step; the first turn is a warm-up."""
    grpo, runtime = settings_for(size, group, steps + 1, "cpu", dtype)
    trainers = {way: load_trainer(way, policy, shards, grpo, runtime) for way in WAYS}
    turns: dict[str, list[Row]] = {way: [] for way in WAYS}
    for turn in range(steps + 1):
        for way, trainer in trainers.items():
            watch, seen = step(trainer, prompts_of(trainer, turn, grpo.prompts_per_step))
            assert {len(ids) for ids in seen.completions} == {grpo.max_completion_length}
            if turn:
                turns[way].append(seconds_of(watch, "cpu"))
    return turns


def worker(way: str, size: str, scratch: Path, arguments: argparse.Namespace, *more: str) -> Row:
    """Runs one way in its own process."""
    command = [sys.executable, "-m", "benchmarks.grpo_worker", "--way", way, "--size", size, *more]
    command += ["--policy", str(scratch / "policy"), "--shards", str(scratch / DATASET)]
    command += ["--seen", str(scratch / "seen.pt"), "--group", str(arguments.group)]
    command += ["--device", arguments.device, "--dtype", arguments.dtype]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"the way {way} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def summary(turns: list[Row], found: Row, device: str) -> Row:
    """Medians over the steps of a way."""
    clock = "cpu" if device == "cpu" else "wall"
    total = median(turn[clock] for turn in turns)
    parts = {part: median(turn["parts"][part] for turn in turns) for part in PARTS}
    return {
        "seconds": round(total, 3),
        "wall_seconds": round(median(turn["wall"] for turn in turns), 3),
        "share": {part: round(value / total, 3) for part, value in parts.items()},
        "part_seconds": {part: round(value, 4) for part, value in parts.items()},
        "peak_mib": found["peak_mib"],
        "gaps": found["gaps"],
    }


def utilisation(row: Row, language: Language, work: Work, device: str, dtype: str) -> Row:
    """Tokens and operations per second of scoring the policy and its backward pass."""
    seconds = row["part_seconds"]
    operations = language.forward(work.tokens, work.scored, work.pairs)
    both = seconds["policy scoring"] + seconds["backward"]
    peak = peak_of(device) if dtype == "bfloat16" else None
    speed = {
        "scoring_tokens_per_second": round(work.tokens / seconds["reference scoring"]),
        "training_tokens_per_second": round(work.tokens / both),
        "scoring_tflops": round(operations / seconds["reference scoring"] / 1e12, 4),
        "training_tflops": round(3 * operations / both / 1e12, 4),
    }
    for name in ("scoring", "training"):
        speed[f"{name}_mfu"] = None if peak is None else round(speed[f"{name}_tflops"] / peak, 3)
    return speed


def measure(size: str, arguments: argparse.Namespace, device_name: str) -> Row:
    """Measures all figures of a size."""
    chosen, steps = SIZES[size], arguments.steps or STEPS[size]
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        policy = build_policy(chosen)
        policy.save(scratch / "policy")
        prompt = len(policy.processor.prompt_ids())
        language, weights = Language.of(policy.model), sum(w.numel() for w in policy.model.parameters())
        del policy
        write_clips(scratch / DATASET, chosen, chosen.prompts * (steps + 1))
        alone = 0 if arguments.device == "cpu" else steps
        found = {way: worker(way, size, scratch, arguments, "--steps", str(alone)) for way in WAYS}
        turns = (
            in_turns(size, arguments.group, steps, scratch / "policy", scratch / DATASET, arguments.dtype)
            if arguments.device == "cpu"
            else {way: found[way]["turns"] for way in WAYS}
        )
        largest = {}
        if arguments.largest:
            for name in (size, "7b"):
                largest[name] = worker("erv", name, scratch, arguments, "--largest")["largest"]
    ways = {way: summary(turns[way], found[way], arguments.device) for way in WAYS}
    rows = chosen.prompts * arguments.group
    for way, row in ways.items():
        row["generated_per_second"] = round(rows * chosen.completion / row["part_seconds"]["generation"])
        work = Work.of(chosen.prompts, arguments.group, prompt, chosen.completion, shared=way == "erv")
        row |= utilisation(row, language, work, device_name, arguments.dtype)
    clock = "cpu" if arguments.device == "cpu" else "wall"
    pairs = {
        way: [other[clock] / mine[clock] for other, mine in zip(turns[way], turns["erv"], strict=True)]
        for way in TARGETS
    }
    return {
        "weights": weights,
        "prompts": chosen.prompts,
        "group": arguments.group,
        "prompt_tokens": prompt,
        "completion_tokens": chosen.completion,
        "steps": steps,
        "ratio": {way: round(median(values), 2) for way, values in pairs.items()},
        "range": {way: [round(min(values), 2), round(max(values), 2)] for way, values in pairs.items()},
        "generation_against_plain_generate": round(
            ways["erv"]["generated_per_second"] / ways["released"]["generated_per_second"], 2
        ),
        "ways": ways,
        "largest": largest or None,
    }


def show(size: str, result: Row) -> None:
    """Prints the table of a size."""
    print(
        f"\n{size}: {result['weights'] / 1e6:.1f} million weights; a step is {result['prompts']} prompts of"
        f" {result['prompt_tokens']} tokens x {result['group']} completions of {result['completion_tokens']};"
        f" {result['steps']} steps"
    )
    print(f"{'way':<11}{'s/step':>8}{'wall':>8}{'written/s':>11}{'peak MiB':>10}   share of the step")
    for way, row in result["ways"].items():
        shares = ", ".join(f"{part} {share:.0%}" for part, share in row["share"].items() if share >= 0.005)
        print(
            f"{way:<11}{row['seconds']:>8.2f}{row['wall_seconds']:>8.2f}{row['generated_per_second']:>11,}"
            f"{row['peak_mib']:>10,}   {shares}"
        )
    for way, target in TARGETS.items():
        ratio, (low, high) = result["ratio"][way], result["range"][way]
        met = "met" if ratio >= target else "MISSED"
        print(
            f"against {way:<11}{ratio:>5.2f} times faster ({low:.2f} to {high:.2f}); target {target}: {met}"
        )
    print(
        f"generation against plain generate per prompt: {result['generation_against_plain_generate']} times"
    )
    row = result["ways"]["erv"]
    for name, part in (("scoring", "reference scoring"), ("training", "policy scoring and backward pass")):
        share = row[f"{name}_mfu"]
        known = "utilisation unknown" if share is None else f"utilisation {share:.1%}"
        pace, speed = row[f"{name}_tokens_per_second"], row[f"{name}_tflops"]
        print(f"{part}: {pace:,} tokens/s, {speed:.3f} TFLOP/s, {known}")
    for name, found in (result["largest"] or {}).items():
        kind = "adapters" if found["adapters"] else "all weights"
        print(
            f"largest batch of {name}, {kind}: {found['prompts']} prompts, {found['completions']} completions"
        )
    gaps = ", ".join(
        f"{way} {max(row['gaps'].values()):.1e}" for way, row in result["ways"].items() if row["gaps"]
    )
    print(f"largest gap to erv on the same completions: {gaps}", flush=True)


def main() -> int:
    """Measures, prints tables and writes the results."""
    gpu = torch.cuda.is_available()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--size", nargs="+", choices=list(STEPS), default=["0.5b"] if gpu else ["tiny", "50m"]
    )
    parser.add_argument("--steps", type=positive, help="steps that count; the default depends on the size")
    parser.add_argument("--group", type=int, default=8, help="completions per prompt")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda" if gpu else "cpu")
    parser.add_argument("--dtype", choices=list(LARGEST_GAP))
    parser.add_argument("--largest", action="store_true", help="also find the largest batches (GPU only)")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    arguments.dtype = arguments.dtype or ("float32" if arguments.device == "cpu" else "bfloat16")
    if arguments.device == "cpu" and (arguments.largest or arguments.dtype != "float32"):
        parser.error("--largest and bfloat16 need a GPU")
    _, runtime = settings_for("tiny", arguments.group, 1, arguments.device, arguments.dtype)
    seed_everything(0, runtime.threads)
    device_name = torch.cuda.get_device_name() if arguments.device == "cuda" else platform.machine()
    command = f"python -m benchmarks.grpo {' '.join(sys.argv[1:])}".strip()
    kept = json.loads(arguments.out.read_text())["results"] if arguments.out.is_file() else {}
    equal = True
    for size in arguments.size:
        with quiet_libraries():
            result = measure(size, arguments, device_name)
        show(size, result)
        kept[size] = {
            "command": command,
            "machine": f"{platform.machine()}, {os.cpu_count()} cores, {runtime.threads} threads",
            "device": device_name if arguments.device == "cuda" else "cpu",
            "dtype": arguments.dtype,
            **result,
        }
        gaps = [max(row["gaps"].values()) for row in result["ways"].values() if row["gaps"]]
        equal = equal and max(gaps) <= LARGEST_GAP[arguments.dtype]
    document = {
        "targets": TARGETS,
        "versions": {name: version(name) for name in ("torch", "transformers", "trl", "peft")},
        "results": kept,
    }
    arguments.out.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    if not equal:
        print(f"the ways are further apart than {LARGEST_GAP[arguments.dtype]}", file=sys.stderr)
    return 0 if equal else 1


if __name__ == "__main__":
    sys.exit(main())
