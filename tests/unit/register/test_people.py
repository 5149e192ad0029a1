"""Gates on what people prefer: decided by a study's report if it is about these very predictions."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from erv.errors import RegistryError
from erv.register.gates import decide
from erv.register.people import decided_by_people
from erv.register.register import Bundle
from erv.register.verdict import CANT_TELL, FAIL, PASS, gate_of, read_verdict
from erv.settings import GateSettings, Settings, load_settings

GATE = GateSettings(metric="preference", against="sft", minimum=0.0, study="pilot")


@pytest.fixture(scope="module")
def settings(root: Path) -> Settings:
    return load_settings(root / "params.yaml")


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bundle:
    """A candidate and the policy that it is compared with, in a workspace with answers to a study."""
    monkeypatch.chdir(tmp_path)
    for path in (
        "candidate/predictions.parquet",
        "eval/sft/predictions.parquet",
        "studies/pilot/answers.parquet",
    ):
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).write_text(path)
    verdicts = decide([GATE], "erv", {"policies": {"erv": {}}})
    return Bundle(tmp_path / "candidate", "b", {}, verdicts)


RATERS = [f"r{number:010x}" for number in range(8)]
RULES: dict[str, Any] = {"failed_attention": 0, "gold_share": 0.5, "without": []}


def checked(**rules: Any) -> dict[str, Any]:
    """The part of a report that says who was left out."""
    return {
        "checks": {"rules": RULES | rules, "raters": {rater: {} for rater in RATERS}, "failed": RATERS[:1]}
    }


def digest(path: str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def report(settings: Settings, low: float, high: float, pair: str = "erv-sft", **change: Any) -> None:
    """Writes a report in which people prefer one policy by a net share."""
    content = {
        "version": 2,
        "answers_sha256": digest("studies/pilot/answers.parquet"),
        "policies": {
            "erv": digest("candidate/predictions.parquet"),
            "sft": digest("eval/sft/predictions.parquet"),
        },
        "confidence": settings.register_.confidence,
        "bootstrap_samples": settings.register_.bootstrap_samples,
        "seed": settings.seed,
        "checks": {"rules": RULES, "raters": {rater: {} for rater in RATERS}, "failed": []},
        "passed": {
            "preference": {
                "pairs": {pair: {"net": {"value": (low + high) / 2, "low": low, "high": high}, "checked": 8}}
            }
        },
        **change,
    }
    path = Path("studies/pilot/report/report.json")
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content))


def test_it_waits_for_the_publication_and_then_for_a_report(bundle: Bundle, settings: Settings) -> None:
    (kept,) = bundle.verdicts
    assert (kept.outcome, kept.is_open) == (CANT_TELL, False)
    assert "when the candidate is published" in kept.text()
    (found,) = decided_by_people(bundle.verdicts, bundle, settings)
    # What it needs is said where something was measured.
    assert found.text() == "can't tell: preference over sft (study pilot): there is no report of study pilot"


@pytest.mark.parametrize(
    ("low", "high", "pair", "outcome"),
    [
        (0.1, 0.4, "erv-sft", PASS),
        (-0.1, 0.4, "erv-sft", CANT_TELL),
        (-0.4, -0.1, "erv-sft", FAIL),
        (-0.4, -0.1, "sft-erv", PASS),
        (0.1, 0.4, "sft-erv", FAIL),
    ],
)
def test_the_interval_decides(
    bundle: Bundle, settings: Settings, low: float, high: float, pair: str, outcome: str
) -> None:
    report(settings, low, high, pair)
    (found,) = decided_by_people(bundle.verdicts, bundle, settings)
    assert found.outcome == outcome
    assert (found.low, found.high) == ((low, high) if pair == "erv-sft" else (-high, -low))
    assert read_verdict(found.as_dict()) == found
    assert gate_of(found) == gate_of(bundle.verdicts[0])
    assert f"preference over sft (study pilot) {found.low:+.4f} to" in found.text()


def test_a_loss_may_be_allowed(bundle: Bundle, settings: Settings) -> None:
    report(settings, -0.04, 0.2)
    (strict,) = decided_by_people(bundle.verdicts, bundle, settings)
    lenient = [replace(bundle.verdicts[0], minimum=-0.05)]
    assert (strict.outcome, decided_by_people(lenient, bundle, settings)[0].outcome) == (CANT_TELL, PASS)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"confidence": 0.8}, "has intervals of other settings"),
        (checked(without=[RATERS[0]]), "leaves out raters by other rules than study.rules; run `erv study"),
        (checked(gold_share=0.0), "leaves out raters by other rules"),
        (checked(failed_attention=3), "leaves out raters by other rules"),
        ({"answers_sha256": "0" * 64}, "are not those of its report"),
        ({"policies": {"erv": "0" * 64, "sft": "0" * 64}}, "about other predictions of erv"),
        ({"policies": {"sft": "0" * 64}}, "is not about erv"),
        ({"passed": {"preference": {"pairs": {}}}}, "has no answers that compare erv with sft"),
    ],
)
def test_what_is_about_something_else_decides_nothing(
    bundle: Bundle, settings: Settings, change: dict[str, Any], reason: str
) -> None:
    report(settings, 0.1, 0.4, **change)
    (found,) = decided_by_people(bundle.verdicts, bundle, settings)
    assert (found.outcome, found.low) == (CANT_TELL, None)
    assert reason in found.reason


def test_rules_of_the_parameters_count_and_the_verdict_names_them(bundle: Bundle, settings: Settings) -> None:
    rules = settings.study.rules.model_copy(
        update={"gold_share": 0.25, "without": (RATERS[0], "r" + "f" * 10)}
    )
    changed = settings.model_copy(update={"study": settings.study.model_copy(update={"rules": rules})})
    report(settings, 0.1, 0.4, **checked(gold_share=0.25, without=[RATERS[0]]))
    (found,) = decided_by_people(bundle.verdicts, bundle, changed)
    assert found.outcome == PASS
    assert found.text().endswith(
        "; 1 rater left out by study.rules (attention checks failed: 0 at most, gold items as expected: 25%,"
        f" without {RATERS[0]})"
    )
    assert read_verdict(found.as_dict()) == found
    report(settings, 0.1, 0.4)
    assert decided_by_people(bundle.verdicts, bundle, changed)[0].outcome == CANT_TELL


def test_too_few_raters_and_another_evaluation_decide_nothing(bundle: Bundle, settings: Settings) -> None:
    net = {"net": {"value": 0.2, "low": 0.1, "high": 0.4}, "raters": 8, "checked": 4}
    report(settings, 0.1, 0.4, passed={"preference": {"pairs": {"erv-sft": net}}})
    assert (
        "has 4 raters that passed its checks"
        in decided_by_people(bundle.verdicts, bundle, settings)[0].reason
    )
    report(settings, 0.1, 0.4)
    Path("eval/sft/predictions.parquet").write_text("anew")
    assert "other predictions of sft" in decided_by_people(bundle.verdicts, bundle, settings)[0].reason


@pytest.mark.parametrize("text", ["{", "[]", '{"version": 3}'])
def test_a_damaged_report_is_an_error(bundle: Bundle, settings: Settings, text: str) -> None:
    report(settings, 0.1, 0.4)
    Path("studies/pilot/report/report.json").write_text(text)
    with pytest.raises(RegistryError, match="run `erv study report pilot`"):
        decided_by_people(bundle.verdicts, bundle, settings)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"metric": "preference", "against": "sft", "minimum": 0.0}, "a study goes with preference"),
        ({"metric": "WAR", "minimum": 0.5, "study": "pilot"}, "a study goes with preference"),
        ({"metric": "preference", "minimum": 0.0, "study": "pilot"}, "name one of them in against"),
        (
            {"metric": "preference", "against": "champion", "minimum": 0.0, "study": "pilot"},
            "name one of them",
        ),
        ({"metric": "preference", "against": "sft", "maximum": 0.0, "study": "pilot"}, "give a minimum"),
        (
            {"metric": "preference", "against": "sft", "minimum": 0.0, "study": "../pilot"},
            "the name of a study",
        ),
    ],
)
def test_gates_that_make_no_sense(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        GateSettings(**fields)
