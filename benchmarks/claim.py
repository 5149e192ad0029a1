"""The claim: seeds named in advance, each with its own corpus, base checkpoint and trainings.

Command: `python -m benchmarks.claim`, from the top of the repository, after `make install`. It takes about
ten minutes per seed on two cores. `--check` only reads the results and says which targets hold.
`--compare-again` recomputes comparison and gates of the finished seeds with the present code, from the
predictions in their clones; it neither trains nor evaluates.

Each seed gets a clone of the current commit with its own stack; the parameters are those of params.yaml but
for the seed. Finished seeds are kept, and an interrupted one goes on where it stopped. A clone of another
commit moves to the present one; what depends on a change runs again there, as with any `erv run`. The table
shows every seed, good or bad. The targets, of `erv` against `r1_omni` on at least nine of ten seeds:

1. EEA, EPC and inconsistency are better, the interval of the difference on that side of zero, in the reading
   of every judge that has shown its worth;
2. WAR is not worse by 5 points or more, as the lower end of the interval says;
3. explanations are not shorter, and no more of them repeat a sentence: no interval lies on that side of zero.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from erv.evaluate.by_judge import worthy_judges
from erv.evaluate.compare import difference, format_table, in_reading
from erv.evaluate.evaluate import OVERALL
from erv.evaluate.metrics import METRICS
from erv.evaluate.significance import BETTER, WORSE, in_words
from erv.evaluate.spread import difference_rows, policy_rows, summarize
from erv.files import write_text
from erv.register.gates import decide
from erv.report.evidence import Evidence
from erv.report.report import build_comparison, load_evaluations
from erv.settings import load_settings
from erv.verifier.model import read_metrics

ROOT = Path(__file__).resolve().parents[1]
SEEDS = tuple(range(101, 111))  # chosen before the first run; never replaced by better ones
LATER, EARLIER = "erv", "r1_omni"
CLAIMED = ("EEA", "EPC", "inconsistency")
WORST_WAR = -0.05
SHARE = 0.9  # of the seeds, on which a target must hold

# Seed -> `commit` (trained and evaluated), `comparison` and `gates`; after --compare-again also `compared`,
# the commit whose code compared.
Results = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Target:
    """One of the targets, on how many seeds it holds, and how many of the named seeds have run."""

    text: str
    seeds: int
    ran: int

    @property
    def holds(self) -> bool:
        """Whether all named seeds have run, and it holds on enough of them."""
        return self.ran == len(SEEDS) and self.seeds >= math.ceil(SHARE * len(SEEDS))

    def line(self) -> str:
        """`holds: EEA better with every worthy judge, on 10 of 10 seeds`; `not yet` before all have run."""
        if self.ran < len(SEEDS):
            return f"not yet: {self.text}, on {self.seeds} of {self.ran} seeds that have run, of {len(SEEDS)}"
        return f"{'holds' if self.holds else 'fails'}: {self.text}, on {self.seeds} of {len(SEEDS)} seeds"


def main() -> None:
    """Runs the seeds that are missing, and prints table and targets; exit code 1 unless all targets hold."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "claim.json")
    parser.add_argument("--work", type=Path, default=ROOT / ".erv" / "claim")
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--check", action="store_true", help="run nothing")
    only.add_argument("--compare-again", action="store_true", help="recompute comparisons and gates only")
    options = parser.parse_args()
    results: Results = json.loads(options.out.read_text(encoding="utf-8")) if options.out.is_file() else {}
    if options.compare_again:
        commit = clean_commit()
        for seed in (seed for seed in options.seeds if str(seed) in results):
            results[str(seed)] = compared_again(results[str(seed)], options.work / str(seed), commit)
        write(results, options.out)
    elif not options.check:
        commit = clean_commit()
        missing = [seed for seed in options.seeds if str(seed) not in results]
        if missing and (refused := other_commits(results, commit)):
            sys.exit(f"{options.out}: {refused}")
        for seed in missing:
            results[str(seed)] = run_seed(seed, options.work / str(seed), commit)
            write(results, options.out)
    if not results:
        sys.exit(f"{options.out}: no results; run `python -m benchmarks.claim` without --check first")
    print(table(results))
    found = targets(results)
    print("\n".join(["", *(target.line() for target in found)]))
    if len(commits := commits_of(results)) > 1:
        sys.exit(
            f"\n{options.out}: its seeds were measured on several commits ({', '.join(commits)}), so they are"
            " no evidence together; delete the file and run all seeds on one commit"
        )
    if len(compared := {result.get("compared", result["commit"]) for result in results.values()}) > 1:
        names = ", ".join(sorted(name[:7] for name in compared))
        sys.exit(
            f"\n{options.out}: its seeds were compared by the code of several commits ({names}); run"
            " `python -m benchmarks.claim --compare-again` for all of them"
        )
    sys.exit(0 if all(target.holds for target in found) else 1)


def commits_of(results: Results) -> list[str]:
    """The commits on which the seeds were measured, shortened and sorted."""
    return sorted({result["commit"][:7] for result in results.values()})


def other_commits(results: Results, commit: str) -> str:
    """Why seeds of a commit may not be added to the results; empty if they may."""
    if not (others := [other for other in commits_of(results) if other != commit[:7]]):
        return ""
    return (
        f"its seeds were measured on {', '.join(others)}, and the present commit is {commit[:7]}; delete the"
        " file to run all seeds again, or check out that commit to run the missing ones"
    )


def write(results: Results, path: Path) -> None:
    """Writes the results as JSON, whole or not at all: each seed took minutes."""
    write_text(json.dumps(results, indent=1, sort_keys=True) + "\n", path)


def clean_commit() -> str:
    """The commit whose code is measured; exits if the workspace has changes that a clone would lack."""

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True
        ).stdout

    if changed := git("status", "--porcelain", "--untracked-files=no").strip():
        sys.exit(f"commit first; the seeds run in clones, which would lack these changes:\n{changed}")
    return git("rev-parse", "HEAD").strip()


def run_seed(seed: int, folder: Path, commit: str) -> dict[str, Any]:
    """Runs the pipeline in a clone; goes on with an interrupted one, and moves one of another commit."""
    params, mark = folder / "params.yaml", folder / ".erv" / "claim-commit"
    if not mark.is_file():
        if (folder / ".erv").is_dir():
            call("erv", "stack", "down", where=folder)
        shutil.rmtree(folder, ignore_errors=True)
        call("git", "clone", "--quiet", str(ROOT), str(folder), where=ROOT)
        mark.parent.mkdir(exist_ok=True)
        mark.touch()
    if mark.read_text(encoding="utf-8") != commit:
        call("git", "fetch", "--quiet", str(ROOT), "HEAD", where=folder)
        call("git", "checkout", "--quiet", "--force", "--detach", commit, where=folder)
        values = yaml.safe_load(params.read_text(encoding="utf-8"))
        params.write_text(yaml.safe_dump({**values, "seed": seed}, sort_keys=False), encoding="utf-8")
        mark.write_text(commit, encoding="utf-8")
    try:
        call("erv", "stack", "up", where=folder)
        call("erv", "sample-data", "--size", "demo", "--seed", str(seed), "--upload", where=folder)
        call("erv", "data", "pin", where=folder)
        call("erv", "run", "register", where=folder)
    finally:
        call("erv", "stack", "down", where=folder)
    read = {
        name: json.loads((folder / path).read_text(encoding="utf-8"))
        for name, path in (("comparison", "report/comparison.json"), ("gates", "models/candidate/gates.json"))
    }
    return {"commit": commit, "comparison": of_all_clips(read["comparison"]), "gates": read["gates"]}


def compared_again(result: Mapping[str, Any], folder: Path, compared: str) -> dict[str, Any]:
    """A seed's result with the present code's comparison and gates, from the predictions in its clone.

    Args:
        result: as `run_seed` returned it.
        folder: the clone; nothing in it changes.
        compared: the present commit.
    """
    mark, commit = folder / ".erv" / "claim-commit", result["commit"]
    found = mark.read_text(encoding="utf-8") if mark.is_file() else "no commit"
    if found != commit:
        sys.exit(
            f"{folder}: its predictions are of {found[:9]}, and the results of {commit[:9]}; name the folder"
            " of those results with --work, or run the seed again"
        )
    settings = load_settings(folder / "params.yaml")
    predictions, evaluations = load_evaluations(folder / "eval", settings.compare.policies)
    verifier = read_metrics(folder / "models" / "verifier")
    evidence = Evidence(evaluations=evaluations, verifier=verifier, sentences={}, data={})
    comparison = build_comparison(predictions, evidence, settings.report, seed=settings.seed)
    verdicts = decide(settings.register_.gates, settings.register_.policy, comparison)
    return {
        "commit": commit,
        "compared": compared,
        "comparison": of_all_clips(comparison),
        "gates": [verdict.as_dict() for verdict in verdicts],
    }


def call(*command: str, where: Path) -> None:
    """Runs a command of this environment on the clone's own code and shows its output."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith("ERV_")}
    variables["PYTHONPATH"] = str(where / "src")
    variables["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{variables['PATH']}"
    subprocess.run(command, cwd=where, env=variables, check=True)


def of_all_clips(comparison: Mapping[str, Any]) -> dict[str, Any]:
    """What the table and the targets need of a comparison: the figures over all clips, not by emotion."""

    def figures(read: Mapping[str, Any]) -> dict[str, Any]:
        return {
            key: {name: {OVERALL: scopes[OVERALL]} for name, scopes in read[key].items()}
            for key in ("policies", "differences", "verdicts")
        }

    kept = {"order", "confidence", "bootstrap_samples", "explanations", "decoding"}
    judges = {
        name: {"worth": judge["worth"], **figures(judge)}
        for name, judge in comparison.get("judges", {}).items()
    }
    return {
        **{key: comparison[key] for key in kept if key in comparison},
        "clips": {OVERALL: comparison["clips"][OVERALL]},
        **figures(comparison),
        "judges": judges,
    }


def targets(results: Results) -> list[Target]:
    """On how many seeds each target holds."""
    runs = [results[str(seed)]["comparison"] for seed in SEEDS if str(seed) in results]

    def count(text: str, holds: Sequence[bool]) -> Target:
        return Target(text, sum(holds), len(runs))

    def gap(run: Mapping[str, Any], metric: str) -> dict[str, Any]:
        return difference(run, LATER, EARLIER, OVERALL, metric)

    found = [
        count(
            f"{metric} better in the reading of every worthy judge",
            [_better_for_all(run, metric) for run in runs],
        )
        for metric in CLAIMED
    ]
    wars = [gap(run, "WAR") for run in runs]
    words = [gap(run, "words") for run in runs]
    repetitive = [in_words("repetitive", gap(run, "repetitive")) for run in runs]
    return [
        *found,
        count(f"WAR not worse by {-100 * WORST_WAR:.0f} points", [war["low"] > WORST_WAR for war in wars]),
        count("explanations not shorter", [item["high"] >= 0 for item in words]),
        count("explanations not more repetitive", [said != WORSE for said in repetitive]),
    ]


def _better_for_all(run: Mapping[str, Any], metric: str) -> bool:
    """Whether every judge that has shown its worth finds the metric better; False if none has."""
    read = [in_reading(run, judge) for judge in worthy_judges(run)]
    gaps = [difference(reading, LATER, EARLIER, OVERALL, metric) for reading in read]
    return bool(gaps) and all(in_words(metric, gap) == BETTER for gap in gaps)


def table(results: Results) -> str:
    """Means and spread, then each seed in the reading of each judge, as Markdown; in percent."""
    ordered = dict(sorted(results.items(), key=lambda item: int(item[0])))
    runs = {seed: result["comparison"] for seed, result in ordered.items()}
    summary = summarize(runs)
    pairs = [difference_rows(summary, LATER, EARLIER, judge) for judge in (None, *summary["judges"])]
    columns = dict.fromkeys(name for row in pairs for name in row)
    lines = [
        format_table(policy_rows(summary)),
        "",
        format_table([{name: row.get(name, "") for name in columns} for row in pairs]),
        "",
        format_table([row for seed, run in runs.items() for row in seed_rows(seed, run)]),
    ]
    if len(commits := commits_of(results)) > 1:
        lines += ["", f"Measured on several commits: {', '.join(commits)}."]
    return "\n".join(lines)


def seed_rows(seed: str, run: Mapping[str, Any]) -> list[dict[str, str]]:
    """A row per judge with the differences of a seed and their intervals."""
    worthy = worthy_judges(run)
    rows = []
    for judge in run["judges"]:
        reading = in_reading(run, judge)
        row = {"seed": seed, "read by": judge if judge in worthy or judge == "majority" else f"({judge})"}
        for metric in METRICS:
            if metric in reading["differences"][f"{LATER}-{EARLIER}"][OVERALL]:
                gap = difference(reading, LATER, EARLIER, OVERALL, metric)
            else:
                gap = difference(run, LATER, EARLIER, OVERALL, metric)  # the same for every judge
            row[metric] = _interval(gap)
        rows.append(row)
    return rows


def _interval(gap: Mapping[str, Any]) -> str:
    if gap["value"] is None:
        return "none right"
    value, low, high = (f"{100 * gap[name]:+.1f}" for name in ("value", "low", "high"))
    return f"{value} ({low} to {high})"


if __name__ == "__main__":
    main()
