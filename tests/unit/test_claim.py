"""The claim's table and targets, on results made by hand."""

import json
import subprocess
from dataclasses import replace

import pytest
import yaml

from benchmarks import claim
from benchmarks.claim import (
    SEEDS,
    Target,
    compared_again,
    main,
    of_all_clips,
    other_commits,
    run_seed,
    table,
    targets,
)
from erv.evaluate.evaluate import write_json, write_predictions
from erv.register.gates import decide
from erv.report.report import build_comparison
from erv.settings import load_settings
from tests.support.paths import ROOT
from tests.support.reports import MEASURED, evidence_of, predictions_of

WORTHY, POOR = {"recall_low": 0.9}, {"recall_low": 0.2}
JUDGED = ("EEA", "EPC", "FCR", "inconsistency")


def interval(value, low, high):
    return {"value": value, "low": low, "high": high}


def reading(gap, metrics):
    """Two policies whose metrics differ by `gap`, for the better."""
    signs = {metric: -1 if metric in ("inconsistency", "repetitive") else 1 for metric in metrics}
    return {
        "policies": {
            "r1_omni": {"overall": dict.fromkeys(metrics, interval(0.5, 0.4, 0.6))},
            "erv": {"overall": {m: interval(0.5 + s * gap, 0.4, 0.7) for m, s in signs.items()}},
        },
        "differences": {
            "erv-r1_omni": {
                "overall": {
                    m: interval(s * gap, *sorted((s * (gap - 0.04), s * (gap + 0.04))))
                    for m, s in signs.items()
                }
            }
        },
        "verdicts": {"erv-r1_omni": {"overall": {}}},
        "classes": {"erv": {"overall": {"anger": {"WAR": 1.0}}}},
    }


def result(embedding=0.2, lexical=0.2, worth=WORTHY, **gaps):
    own = reading(0.0, ("WAR", "UAR", *JUDGED, "repetitive", "words"))
    for metric, (low, high) in gaps.items():
        own["differences"]["erv-r1_omni"]["overall"][metric] = interval((low + high) / 2, low, high)
    comparison = {
        "order": ["r1_omni", "erv"],
        "clips": {"overall": 216, "dfew": 84},
        "confidence": 0.95,
        **own,
        "judges": {
            "lexical": {"worth": worth, **reading(lexical, JUDGED)},
            "embedding": {"worth": WORTHY, **reading(embedding, JUDGED)},
            "majority": {"worth": None, **reading(0.0, JUDGED)},
        },
    }
    return {"commit": "0123456789", "comparison": of_all_clips(comparison), "gates": []}


def lines(results):
    return {target.text: (target.holds, target.seeds) for target in targets(results)}


def test_the_seeds_are_those_of_the_claim():
    assert SEEDS == (101, 102, 103, 104, 105, 106, 107, 108, 109, 110)


@pytest.mark.parametrize(
    ("seeds", "ran", "holds", "line"),
    [
        (10, 10, True, "holds: x, on 10 of 10 seeds"),
        (9, 10, True, "holds: x, on 9 of 10 seeds"),
        (8, 10, False, "fails: x, on 8 of 10 seeds"),
        (9, 9, False, "not yet: x, on 9 of 9 seeds that have run, of 10"),
        (0, 0, False, "not yet: x, on 0 of 0 seeds that have run, of 10"),
    ],
)
def test_nine_of_the_ten_named_seeds_are_enough(seeds, ran, holds, line):
    target = Target("x", seeds, ran)
    assert target.holds is holds
    assert target.line() == line


def test_only_named_seeds_count():
    results = {str(seed): result() for seed in (*SEEDS[:-1], 200)}
    assert {(target.holds, target.ran) for target in targets(results)} == {(False, 9)}


def test_seeds_of_another_commit_are_not_added():
    results = {"101": result()}
    assert other_commits({}, "0123456789") == ""
    assert other_commits(results, "0123456789") == ""
    assert "measured on 0123456, and the present commit is fedcba9; delete" in other_commits(
        results, "fedcba9876"
    )


def test_results_of_several_commits_fail_the_check(tmp_path, monkeypatch, capsys):
    results = {str(seed): result() for seed in SEEDS}
    path = tmp_path / "claim.json"
    monkeypatch.setattr("sys.argv", ["claim", "--check", "--out", str(path)])
    path.write_text(json.dumps(results), encoding="utf-8")
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    results["110"]["commit"] = "fedcba9876"
    path.write_text(json.dumps(results), encoding="utf-8")
    with pytest.raises(SystemExit, match=r"several commits \(0123456, fedcba9\).*delete the file"):
        main()
    assert "holds: EEA" in capsys.readouterr().out


def test_the_targets_hold_where_every_worthy_judge_agrees():
    results = {str(seed): result() for seed in SEEDS}
    assert all(holds for holds, _ in lines(results).values())
    results["101"] = result(lexical=0.0)
    assert lines(results)["EEA better in the reading of every worthy judge"] == (True, 9)
    results["102"] = result(lexical=0.0)
    assert lines(results)["inconsistency better in the reading of every worthy judge"] == (False, 8)
    # A judge that has not shown its worth counts in no target.
    results["102"] = result(lexical=0.0, worth=POOR)
    assert lines(results)["EPC better in the reading of every worthy judge"] == (True, 9)


def test_what_must_not_get_worse():
    found = lines(
        {
            "101": result(WAR=(-0.06, 0.01), words=(-3.0, -1.0), repetitive=(0.01, 0.04)),
            "102": result(WAR=(-0.04, 0.01), words=(-3.0, 1.0), repetitive=(-0.01, 0.04)),
        }
    )
    for text in ("WAR not worse by 5 points", "explanations not shorter", "explanations not more repetitive"):
        assert found[text] == (False, 1)


def test_the_table_has_every_seed_and_judge():
    found = table({"102": result(worth=POOR), "101": result()})
    assert "| 101  | lexical" in found
    assert "| 102  | (lexical)" in found  # in brackets: it has not shown its worth
    assert found.index("| 101 ") < found.index("| 102 ")
    assert "+20.0 (+16.0 to +24.0)" in found
    assert "-20.0 ± 0.0 (-20.0 to -20.0), better in 2 of 2" in found
    assert "Measured on several commits" not in found


def test_results_are_kept_small():
    kept = result()["comparison"]
    assert "classes" not in kept
    assert set(kept["clips"]) == {"overall"}


@pytest.fixture
def finished(tmp_path):
    """What a seed's run leaves behind, and the comparison and gates of its predictions."""
    folder = tmp_path / "101"
    (folder / ".erv").mkdir(parents=True)
    (folder / ".erv" / "claim-commit").write_text("0123456789", encoding="utf-8")
    (folder / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    settings = load_settings(folder / "params.yaml")
    predictions = predictions_of(tuple(settings.compare.policies))
    for policy, rows in predictions.items():
        (folder / "eval" / policy).mkdir(parents=True)
        write_predictions(rows, folder / "eval" / policy / "predictions.parquet")
        write_json(MEASURED, folder / "eval" / policy / "metrics.json")
    (folder / "models" / "verifier").mkdir(parents=True)
    evidence = replace(evidence_of(), evaluations=dict.fromkeys(predictions, MEASURED))
    write_json(evidence.verifier, folder / "models" / "verifier" / "metrics.json")
    fresh = build_comparison(predictions, evidence, settings.report, seed=settings.seed)
    gates = [verdict.as_dict() for verdict in decide(settings.register_.gates, "erv", fresh)]
    return folder, of_all_clips(fresh), gates


def test_comparing_again_gives_what_a_fresh_comparison_gives(finished):
    folder, comparison, gates = finished
    before = {"commit": "0123456789", "comparison": {}, "gates": []}
    assert compared_again(before, folder, "fedcba9876") == {
        "commit": "0123456789",
        "compared": "fedcba9876",
        "comparison": comparison,
        "gates": gates,
    }
    with pytest.raises(SystemExit, match="its predictions are of 012345678, and the results of aaaa; name"):
        compared_again({**before, "commit": "aaaa"}, folder, "fedcba9876")
    (folder / ".erv" / "claim-commit").unlink()
    with pytest.raises(SystemExit, match="its predictions are of no commit"):
        compared_again(before, folder, "fedcba9876")


def test_a_clone_of_another_commit_moves_to_the_present_one(tmp_path, monkeypatch):
    """Made anew, it ran all stages again although only GRPO had changed."""
    source, folder, commands = tmp_path / "source", tmp_path / "101", []
    source.mkdir()

    def git(*arguments):
        named = ("-c", "user.name=erv", "-c", "user.email=erv@localhost")
        done = subprocess.run(["git", *named, *arguments], cwd=source, check=True, capture_output=True)
        return done.stdout.decode().strip()

    def commit(beta):
        (source / "params.yaml").write_text(f"seed: 0\nbeta: {beta}\n")
        git("add", ".")
        git("commit", "--quiet", "-m", f"beta {beta}")
        return git("rev-parse", "HEAD")

    def call(*command, where):
        if command[0] == "git":
            subprocess.run(command, cwd=where, check=True)
            return
        commands.append(command)
        for path in ("report/comparison.json", "models/candidate/gates.json"):
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(json.dumps({}))

    git("init", "--quiet")
    monkeypatch.setattr(claim, "ROOT", source)
    monkeypatch.setattr(claim, "call", call)
    monkeypatch.setattr(claim, "of_all_clips", dict)
    first = commit(0.1)
    assert run_seed(101, folder, first)["commit"] == first
    assert yaml.safe_load((folder / "params.yaml").read_text()) == {"seed": 101, "beta": 0.1}
    (folder / "dvc.lock").write_text("what ran")
    second = commit(0.2)
    commands.clear()
    assert run_seed(101, folder, second)["commit"] == second
    assert yaml.safe_load((folder / "params.yaml").read_text()) == {"seed": 101, "beta": 0.2}
    assert (folder / "dvc.lock").read_text() == "what ran"
    assert [command[:3] for command in commands] == [
        ("erv", "stack", "up"),
        ("erv", "sample-data", "--size"),
        ("erv", "data", "pin"),
        ("erv", "run", "register"),
        ("erv", "stack", "down"),
    ]


def test_comparisons_by_several_commits_fail_the_check(tmp_path, monkeypatch):
    results = {str(seed): {**result(), "compared": "aaaaaaaaaa"} for seed in SEEDS}
    path = tmp_path / "claim.json"
    monkeypatch.setattr("sys.argv", ["claim", "--check", "--out", str(path)])
    path.write_text(json.dumps(results), encoding="utf-8")
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    del results["110"]["compared"]
    path.write_text(json.dumps(results), encoding="utf-8")
    with pytest.raises(SystemExit, match=r"compared by the code of several commits.*--compare-again"):
        main()
