"""The candidate bundle: equal inputs, equal bytes; gates decided on lower ends; nothing that runs code."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from erv.commands.publish import command
from erv.errors import RegistryError
from erv.evaluate.compare import compare
from erv.evaluate.evaluate import write_predictions
from erv.files import content_digest, sha256_of_text
from erv.lineage.model_versions import lock_check
from erv.pipeline import PipelineError
from erv.register.aliases import _extended
from erv.register.gates import decide, decide_against_champion
from erv.register.publish import check_lock
from erv.register.register import Bundle, read_bundle, write_candidate
from erv.register.verdict import Verdict, read_verdict
from erv.settings import GateSettings, RegisterSettings
from tests.conftest import ROOT
from tests.support.tiny_bundle import SERVING

GATES = (
    GateSettings(metric="WAR", minimum=0.5),
    GateSettings(metric="EPC", minimum=0.0, against="r1_omni"),
    GateSettings(metric="WAR", minimum=-0.05, against="champion"),
)
SETTINGS = RegisterSettings(
    model_name="m", policy="erv", confidence=0.95, bootstrap_samples=200, require_lineage=True, gates=GATES
)

WORTH = {
    "texts": 147,
    "accuracy": 1.0,
    "recall": 1.0,
    "recall_low": 0.968,
    "recall_high": 1.0,
    "emotions": {"anger": {"texts": 97, "right": 97}, "fear": {"texts": 50, "right": 50}},
}


def predictions(
    right: int, agreeing: int, clips: int = 60, prefix: str = "", content: str = ""
) -> list[dict]:
    """`clips` rows of which `right` are answered rightly and `agreeing` explain their answer.

    The names of the clips begin with `prefix`; another `content` is that of other files.
    """
    rows = []
    for index in range(clips):
        label = ("anger", "sadness", "surprise")[index % 3]
        predicted = label if index < right else "fear"
        judged = predicted if index % clips < agreeing else "disgust"
        rows.append(
            {
                "dataset": "mafw",
                "clip_id": f"{prefix}{index:05d}",
                "split": "test",
                "label": label,
                "completion": f"<think>x</think>\n<answer>{predicted}</answer>",
                "predicted": predicted,
                "judged": judged,
                "sentences": 1,
                "sha256": sha256_of_text(f"{content}{index}"),
                "verdicts": [{"judge": "lexical", "outcome": "named", "emotion": judged}],
            }
        )
    return rows


def comparison_of(**policies: list[dict]) -> dict:
    quality = {"verifier": {"macro_f1": 0.9789, "n": 424}, "judge": {"name": "lexical", "worth": WORTH}}
    compared = compare(policies, samples=200, confidence=0.95, seed=0, worth={"lexical": WORTH})
    return {**compared, **quality}


def write_evaluation(folder: Path, rows: list[dict], **metrics: object) -> None:
    """What `evaluate` leaves of a policy, as far as gates read it."""
    folder.mkdir(parents=True, exist_ok=True)
    write_predictions(rows, folder / "predictions.parquet")
    measured = {"judges": {"lexical": {"worth": WORTH}}, **metrics}
    (folder / "metrics.json").write_text(json.dumps(measured))


@pytest.fixture
def inputs(tmp_path: Path) -> dict[str, Path]:
    for name, content in {"policy/model.safetensors": b"weights", "policy/sub/config.json": b"{}"}.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (tmp_path / "verifier").mkdir()
    (tmp_path / "verifier/verifier.json").write_text("{}")
    mine, base = predictions(54, 55), predictions(50, 20)
    for name, rows in {"erv": mine, "r1_omni": base}.items():
        write_evaluation(tmp_path / "eval" / name, rows)
    compared = comparison_of(r1_omni=base, erv=mine)
    (tmp_path / "comparison.json").write_text(json.dumps(compared))
    return {
        "policy": tmp_path / "policy",
        "verifier": tmp_path / "verifier",
        "evaluations": tmp_path / "eval",
        "comparison": tmp_path / "comparison.json",
    }


def write(folder: Path, inputs: dict[str, Path]) -> Bundle:
    return write_candidate(folder, **inputs, serving=SERVING, settings=SETTINGS, seed=0)


def test_equal_inputs_give_equal_bundles(tmp_path: Path, inputs: dict[str, Path]) -> None:
    one, two = write(tmp_path / "one", inputs), write(tmp_path / "two", inputs)
    assert one.hash == two.hash
    assert one.files == two.files
    assert set(one.files) == {
        "card.md", "comparison.json", "gates.json", "metrics.json", "policy/model.safetensors",
        "policy/sub/config.json", "predictions.parquet", "serving.json", "verifier/verifier.json",
    }  # fmt: skip
    (inputs["policy"] / "model.safetensors").write_bytes(b"other")
    assert write(tmp_path / "two", inputs).hash != one.hash


def test_a_bundle_says_what_it_was_tested_with_and_has_spaces_of_one_s_own(
    tmp_path: Path, inputs: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing said whose emotions a question lists, so a served version was asked without them."""
    assert write(tmp_path / "bundle", inputs).json("serving.json") == {**SERVING, "datasets": {"mafw": None}}
    own = tmp_path / "work/data/label_spaces/team.yaml"
    own.parent.mkdir(parents=True)
    own.write_text("uses: mafw\n")
    monkeypatch.chdir(tmp_path / "work")
    for name, rows in {"erv": predictions(54, 55), "r1_omni": predictions(50, 20)}.items():
        some = [{**row, "dataset": "team"} if row["clip_id"].endswith("0") else row for row in rows]
        write_evaluation(tmp_path / "eval" / name, some)
    bundle = write(tmp_path / "bundle", inputs)
    spaces = {"mafw": None, "team": "label_spaces/team.yaml"}
    assert bundle.json("serving.json")["datasets"] == spaces
    assert (bundle.folder / "label_spaces/team.yaml").read_text() == "uses: mafw\n"


def test_verdicts_are_written_and_the_champion_is_left_open(tmp_path: Path, inputs: dict[str, Path]) -> None:
    verdicts = write(tmp_path / "bundle", inputs).verdicts
    assert [v.outcome for v in verdicts] == ["pass", "pass", "open"]
    card = (tmp_path / "bundle/card.md").read_text()
    assert "- pass: WAR 0." in card
    assert "- open: WAR minus champion: open, needs more than -0.0500" in card


def test_the_reports_settings_move_no_gate(tmp_path: Path, inputs: dict[str, Path]) -> None:
    before = write(tmp_path / "bundle", inputs).verdicts
    compared = json.loads(inputs["comparison"].read_text())
    for scopes in compared["policies"].values():
        scopes["overall"]["WAR"] |= {"low": 0.0, "high": 0.01}
    inputs["comparison"].write_text(json.dumps(compared))
    assert write(tmp_path / "bundle", inputs).verdicts == before


def test_between_the_ends_nothing_can_be_told() -> None:
    compared = comparison_of(erv=predictions(40, 55))
    interval = compared["policies"]["erv"]["overall"]["WAR"]
    inside = (interval["low"] + interval["high"]) / 2
    found = [
        decide([GateSettings(metric="WAR", minimum=minimum)], "erv", compared)[0]
        for minimum in (interval["low"] - 0.01, inside, interval["high"] + 0.01)
    ]
    assert [verdict.outcome for verdict in found] == ["pass", "can't tell", "fail"]
    low, high = round(interval["low"], 6), round(interval["high"], 6)
    assert found[1].text() == f"can't tell: WAR {low:.4f} to {high:.4f} (95%), needs {inside:.4f} or more"


@pytest.mark.parametrize(
    ("metric", "minimum", "outcome"),
    [
        ("verifier_f1", 0.9, "pass"),
        ("verifier_f1", 0.99, "fail"),
        ("judge_accuracy", 0.9, "pass"),
        ("judge_accuracy", 0.97, "fail"),
    ],
)
def test_what_measured_has_gates_of_its_own(metric: str, minimum: float, outcome: str) -> None:
    compared = comparison_of(erv=predictions(54, 55))
    (verdict,) = decide([GateSettings(metric=metric, minimum=minimum)], "erv", compared)
    assert verdict.outcome == outcome
    assert verdict.text().startswith(f"{outcome}: {metric} 0.9")
    with pytest.raises(ValueError, match="all policies are measured by the same, so leave out against"):
        GateSettings(metric=metric, minimum=minimum, against="r1_omni")


def test_a_verdict_of_an_earlier_version_is_read() -> None:
    gate = {"metric": "WAR", "against": None, "minimum": 0.5, "value": 0.8, "passed": True, "reason": ""}
    assert read_verdict(gate) == Verdict("WAR", None, 0.5, 0.8, 0.8, "pass")
    assert read_verdict({**gate, "passed": None, "value": None}).outcome == "open"
    assert read_verdict({**gate, "passed": False}).outcome == "fail"


def test_a_changed_missing_or_added_file_is_found(tmp_path: Path, inputs: dict[str, Path]) -> None:
    folder = tmp_path / "bundle"
    for damage in (
        lambda: (folder / "policy/model.safetensors").write_bytes(b"changed"),
        lambda: (folder / "serving.json").unlink(),
        lambda: (folder / "policy/extra.json").write_text("{}"),
    ):
        write(folder, inputs)
        damage()
        with pytest.raises(RegistryError, match=r"does not match bundle\.json"):
            read_bundle(folder)


def test_files_that_run_code_are_refused(tmp_path: Path, inputs: dict[str, Path]) -> None:
    (inputs["policy"] / "training_args.bin").write_bytes(b"")
    with pytest.raises(RegistryError, match=r"training_args\.bin: such a file runs code"):
        write(tmp_path / "bundle", inputs)
    assert not (tmp_path / "bundle").exists()
    assert not list(tmp_path.glob(".bundle*"))


def test_figures_of_another_split_are_refused(tmp_path: Path, inputs: dict[str, Path]) -> None:
    rows = [{**row, "split": "validation"} for row in predictions(54, 55)]
    write_predictions(rows, inputs["evaluations"] / "erv/predictions.parquet")
    with pytest.raises(RegistryError, match="of the split validation, but gates are decided on test only"):
        write(tmp_path / "bundle", inputs)
    assert not (tmp_path / "bundle").exists()


def test_the_card_says_how_good_verifier_and_judge_are(tmp_path: Path, inputs: dict[str, Path]) -> None:
    write(tmp_path / "bundle", inputs)
    card = (tmp_path / "bundle/card.md").read_text()
    assert "- verifier: macro F1 0.979 on 424 held-out sentences" in card
    assert (
        "- judge: right on 100.0% of 147 hand-labelled explanations (66.0% are anger); mean over 2 emotions"
        in card
    )


@pytest.mark.parametrize("missing", ["verifier", "judge"])
def test_without_the_quality_of_verifier_and_judge_nothing_is_registered(
    tmp_path: Path, inputs: dict[str, Path], missing: str
) -> None:
    compared = json.loads(inputs["comparison"].read_text())
    del compared[missing]
    inputs["comparison"].write_text(json.dumps(compared))
    with pytest.raises(RegistryError, match="lacks the quality of the verifier"):
        write(tmp_path / "bundle", inputs)
    assert not (tmp_path / "bundle").exists()


def test_missing_inputs_name_the_stage_to_run(tmp_path: Path, inputs: dict[str, Path]) -> None:
    inputs["comparison"].unlink()
    with pytest.raises(RegistryError, match=r"comparison\.json: not found; run `dvc repro report` first"):
        write(tmp_path / "bundle", inputs)


def test_a_floor_holds_for_the_lower_end_only() -> None:
    compared = comparison_of(erv=predictions(54, 55))
    low = compared["policies"]["erv"]["overall"]["WAR"]["low"]
    value = compared["policies"]["erv"]["overall"]["WAR"]["value"]
    between = (low + value) / 2
    assert [
        decide([GateSettings(metric="WAR", minimum=m)], "erv", compared)[0].passed
        for m in (low - 0.01, between)
    ] == [True, False]


def test_differences_are_read_in_either_direction() -> None:
    better, worse = predictions(58, 55), predictions(30, 55)
    gate = [GateSettings(metric="WAR", minimum=0.0, against="other")]
    for compared in (
        comparison_of(other=worse, erv=better),
        comparison_of(erv=better, other=worse),
    ):
        assert decide(gate, "erv", compared)[0].passed
    assert not decide(gate, "erv", comparison_of(other=better, erv=worse))[0].passed
    with pytest.raises(RegistryError, match=r"register\.policy is 'erv', but the comparison has only: other"):
        decide(gate, "erv", comparison_of(other=worse))


def test_a_policy_that_answers_like_the_other_passes_no_gate_against_it() -> None:
    gates = [GateSettings(metric="EPC", minimum=m, against="r1_omni") for m in (0.0, -0.05)]
    twice = comparison_of(r1_omni=predictions(54, 55), erv=predictions(54, 55))
    for verdict in decide(gates, "erv", twice):
        assert (verdict.passed, verdict.value) == (False, None)
        assert "both gave the same completion for every clip, so there is nothing" in verdict.text()
    itself = decide(gates, "r1_omni", twice)
    assert [verdict.passed for verdict in itself] == [False, False]
    assert "this is the candidate itself" in itself[0].text()
    # Other words, but the metric counts the same clips: no evidence of a gain, and little of a loss.
    reworded = [{**row, "completion": row["completion"] + " "} for row in predictions(54, 55)]
    found = decide(gates, "erv", comparison_of(r1_omni=predictions(54, 55), erv=reworded))
    assert [verdict.passed for verdict in found] == [False, False]
    assert found[0].value == pytest.approx(-0.06, abs=1e-3)


def test_a_gain_on_a_single_clip_is_no_evidence() -> None:
    gate = [GateSettings(metric="WAR", minimum=0.0, against="r1_omni")]
    verdict = decide(gate, "erv", comparison_of(r1_omni=predictions(54, 55), erv=predictions(55, 55)))[0]
    assert (verdict.passed, verdict.value) == (False, pytest.approx(-0.0445, abs=1e-4))
    assert verdict.text().startswith("can't tell: WAR minus r1_omni -0.0445 to +0.")


def test_the_champion_is_compared_on_the_same_clips_or_nothing_can_be_told() -> None:
    open_gate = (Verdict("WAR", "champion", -0.1), Verdict("WAR", None, 0.5, 0.8, 0.9, "pass"))
    settings = {"samples": 200, "confidence": 0.95, "seed": 0}
    equal = decide_against_champion(open_gate, predictions(54, 55), predictions(54, 55), **settings)
    assert (equal[0].passed, equal[0].value) == (True, pytest.approx(-0.06, abs=1e-3))
    assert equal[1] == open_gate[1]
    worse = decide_against_champion(open_gate, predictions(30, 55), predictions(54, 55), **settings)
    assert worse[0].outcome == "fail"
    other = decide_against_champion(
        open_gate, predictions(54, 55), predictions(54, 55, prefix="x"), **settings
    )
    assert other[0].text() == (
        "can't tell: WAR minus champion: the champion was not evaluated on the same clips"
    )


def test_a_publication_taken_up_again_is_in_the_history_once() -> None:
    assert _extended([], "1") == ["1"]
    assert _extended(["1"], "2") == ["1", "2"]
    assert _extended(["1", "2"], "2") == ["1", "2"]
    assert _extended(["1", "2"], "1") == ["1", "2", "1"]


def test_only_the_bundle_of_the_lock_is_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "models/candidate"
    folder.mkdir(parents=True)
    (folder / "card.md").write_text("one")
    for nothing in (None, "schema: '2.0'\n", "schema: '2.0'\nstages:\n  other: {cmd: x}\n"):
        if nothing is not None:
            Path("dvc.lock").write_text(nothing)
        with pytest.raises(RegistryError, match=r"no entry of dvc\.lock describes it"):
            check_lock(folder)
    Path("dvc.lock").write_text("")
    with pytest.raises(PipelineError, match=r"dvc\.lock: empty; "):
        check_lock(folder)
    out = f"{{path: models/candidate, md5: {content_digest(folder)}}}"
    Path("dvc.lock").write_text(f"schema: '2.0'\nstages:\n  register:\n    cmd: x\n    outs: [{out}]\n")
    check_lock(folder)
    (folder / "card.md").write_text("another")
    with pytest.raises(RegistryError, match=r"dvc\.lock describes; run `dvc repro register`"):
        check_lock(Path("models/candidate"))
    with pytest.raises(RegistryError, match=r"no entry of dvc\.lock describes it"):
        check_lock(tmp_path)  # not what `register` writes


def test_a_lock_without_the_stages_before_register_publishes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("src").symlink_to(ROOT / "src")  # the code of another folder is refused
    subprocess.run(["git", "init", "-q"], check=True)
    subprocess.run([sys.executable, "-m", "dvc", "init", "-q"], check=True)
    Path("params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    stages = "a: {cmd: x, outs: [made]}\n  register: {cmd: x, deps: [made], outs: [models/candidate]}"
    Path("dvc.yaml").write_text(f"stages:\n  {stages}\n")
    Path("dvc.lock").write_text("schema: '2.0'\nstages:\n  register: {cmd: x}\n")
    result = CliRunner().invoke(command, [])
    assert isinstance(result.exception, RegistryError)
    assert str(result.exception).startswith("dvc.lock: no entry of a, which models/candidate comes from")


def test_a_version_with_the_lock_of_another_bundle_is_a_broken_link(tmp_path: Path) -> None:
    (tmp_path / "card.md").write_text("one")
    outs = [{"path": "models/candidate", "md5": content_digest(tmp_path)}]
    assert lock_check(tmp_path, {"outs": outs}).ok is True
    (tmp_path / "card.md").write_text("another")
    assert lock_check(tmp_path, {"outs": outs}).ok is False
