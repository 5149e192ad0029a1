"""The report finds what was planted, and says what it can't know."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from erv.errors import DataError, SettingsError
from erv.study.analysis.charts import Chart, Line
from erv.study.analysis.checks import Rules
from erv.study.analysis.draws import Draws
from erv.study.analysis.instruments import OTHERS, Scores
from erv.study.analysis.page import page_of, sentence, span, verdicts
from erv.study.analysis.report import Level, measure, write_report
from erv.study.answers.connection import Answerbase
from erv.study.answers.database import Database
from erv.study.answers.table import write_answers
from erv.study.plan import Study, read_key, read_study
from erv.study.simulation import Model, simulate
from tests.support.large_study import write_large_study

LEVEL = Level(confidence=0.95, samples=60, seed=7)


def answered(folder: Path, model: Model, *, raters: int, seed: int = 1) -> Study:
    """A study whose raters have answered by a model."""
    study = read_study(folder)
    base = Answerbase(f"sqlite:///{folder.parent}/{folder.name}.db")
    simulate(base, study, read_key(study), model, raters=raters, seed=seed)
    write_answers(Database(base, study).log(), study)
    base.close()
    return study


@pytest.fixture(scope="module")
def model() -> Model:
    return Model({"sft": 0.0, "erv": 1.0}, ties=0.15, alpha=0.5, careless=0.2)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, model: Model) -> Study:
    folder = write_large_study(tmp_path_factory.mktemp("studies") / "planted", clips=40, raters=12)
    return answered(folder, model, raters=12)


@pytest.fixture(scope="module")
def found(study: Study) -> dict:
    return measure(study, oracles(study), LEVEL, Rules())


def oracles(study: Study) -> dict[str, Scores]:
    """A judge that always prefers `erv`, one that always prefers `sft`, and one that says nothing."""
    texts = [
        (policy, (about.dataset, about.clip_id))
        for about in read_key(study).items.values()
        for policy in ("sft", "erv")
    ]
    right = {text: float(text[0] == "erv") for text in texts}
    wrong = {text: 1 - value for text, value in right.items()}
    nothing = dict.fromkeys(texts, None)
    return {
        "right": Scores(right, right),
        "wrong": Scores(wrong, wrong),
        "silent": Scores(nothing, nothing),
    }


def test_the_planted_preference_and_alpha_are_found(found: dict, model: Model) -> None:
    passed = found["passed"]
    share = passed["preference"]["pairs"]["sft-erv"]["share"]
    assert share["low"] < model.share("sft", "erv") < share["high"] < 0.5
    strengths = passed["preference"]["strengths"]
    apart = np.log(1 / model.share("sft", "erv") - 1)  # of odds with ties as halves
    assert 2 * strengths["erv"]["low"] < apart < 2 * strengths["erv"]["high"]
    assert strengths["erv"]["value"] == pytest.approx(-strengths["sft"]["value"], abs=1e-5)
    alpha = passed["reliability"]["emotion"]["alpha"]
    assert alpha["low"] < model.alpha < alpha["high"]
    rated = passed["ratings"]["differences"]["sft-erv"]["true"]
    assert rated["low"] < -1.0 + 0.2 < rated["high"] + 0.4


def test_who_answers_at_random_fails_and_what_that_changes_is_told(found: dict, model: Model) -> None:
    failed = found["checks"]["failed"]
    assert 0 < len(failed) < 8
    assert found["everyone"]["raters"] == 12 == found["passed"]["raters"] + len(failed)
    seconds = found["times"]["raters"]
    passed = [time["median"] for rater, time in seconds.items() if rater not in failed]
    assert max(seconds[rater]["median"] for rater in failed) < min(passed)
    shares = [
        found[who]["preference"]["pairs"]["sft-erv"]["share"]["value"] for who in ("passed", "everyone")
    ]
    assert abs(shares[0] - 0.5) > abs(shares[1] - 0.5)  # chance draws to the middle
    alphas = [found[who]["reliability"]["emotion"]["alpha"]["value"] for who in ("passed", "everyone")]
    assert alphas[0] > alphas[1]


def test_a_rater_can_be_left_out_by_hand(found: dict, study: Study) -> None:
    gone = next(rater for rater, one in found["checks"]["raters"].items() if one["passed"])
    level = Level(confidence=0.95, samples=20, seed=7)
    without = measure(study, {}, level, Rules(without=(gone,)))
    assert gone in without["checks"]["failed"]
    assert without["passed"]["raters"] == found["passed"]["raters"] - 1
    assert f"Left out by hand: {gone}." in page_of(without)
    with pytest.raises(DataError, match="rater 'nobody' has no answer in the table"):
        measure(study, {}, level, Rules(without=("nobody",)))


def test_who_was_not_checked_yet_has_not_passed(tmp_path: Path) -> None:
    """Nobody of six has come to the attention checks, which were the last items, but one."""
    folder = write_large_study(tmp_path / "begun", clips=12, raters=6, ratings=False)
    study, base = read_study(folder), Answerbase(f"sqlite:///{tmp_path}/begun.db")
    database, key = Database(base, study), read_key(study)
    for number, invitation in enumerate(database.invite(6)):
        rater = database.enter(invitation.token)
        for name in rater.items:
            item, codes = study.item(name), {policy: c for c, policy in key.items[name].policies.items()}
            if item.role == "main" or number == 0:
                preferred = codes["erv"] if item.expected is None else item.expected.preferred
                database.add(
                    rater, name, {"emotion": "anger", "preferred": preferred}, 1.0, f"{rater.id}-{name}"
                )
    write_answers(database.log(), study)
    base.close()
    found = measure(study, {}, LEVEL, Rules())
    assert sorted(str(one["passed"]) for one in found["checks"]["raters"].values()) == ["None"] * 5 + ["True"]
    assert found["checks"]["failed"] == []
    pair = found["passed"]["preference"]["pairs"]["sft-erv"]
    assert (pair["raters"], pair["checked"], found["passed"]["checked"]) == (6, 1, 1)
    page = page_of(found)
    assert (page.count("not checked yet"), page.count(">passed<")) == (5, 1)
    assert "Only 1 rater of 6 answered a check so far: the figures" in page


def test_judges_are_compared_with_people(found: dict) -> None:
    by_name = found["passed"]["instruments"]
    right, wrong, silent = (by_name[name]["preference"] for name in ("right", "wrong", "silent"))
    assert right["same"]["low"] > 0.5 > wrong["same"]["high"]
    assert right["same"]["value"] == pytest.approx(1 - wrong["same"]["value"], abs=1e-5)
    assert right["decided"] == right["answers"] == silent["answers"]
    assert (silent["decided"], silent["same"]["value"]) == (0, None)
    assert by_name["right"]["ratings"]["emotion"]["tau"]["low"] > 0
    assert by_name["wrong"]["ratings"]["own_answer"]["tau"]["high"] < 0
    assert by_name["silent"]["ratings"]["emotion"] == {
        "explanations": 0,
        "tau": {"value": None, "low": None, "high": None},
    }
    others = by_name[OTHERS]["preference"]
    assert others["same"]["low"] > 0.5
    assert others["decided"] < others["answers"]


def test_equal_answers_give_equal_bytes(found: dict, study: Study, tmp_path: Path, model: Model) -> None:
    page = write_report(found, study)
    again = answered(write_large_study(tmp_path / "planted", clips=40, raters=12), model, raters=12)
    other = write_report(measure(again, oracles(again), LEVEL, Rules()), again)
    for name in ("report.html", "report.json"):
        assert (page.parent / name).read_bytes() == (other.parent / name).read_bytes()
    assert (study.folder / "answers.parquet").read_bytes() == (again.folder / "answers.parquet").read_bytes()
    assert json.loads((page.parent / "report.json").read_text()) == found


def test_the_page_says_it_in_words(found: dict) -> None:
    page = page_of(found)
    assert "People prefer <strong>ERV (+ explanation reward)</strong> to <strong>Cold start</strong>" in page
    assert f"Without the {len(found['checks']['failed'])} raters that failed checks" in page
    assert "script" not in page
    assert "nan" not in page.lower().replace("dominant", "")
    everyone = {**found, "checks": {**found["checks"], "failed": []}}
    assert "that failed checks" not in page_of(everyone)


def test_charts_and_tables_use_the_same_words(found: dict) -> None:
    page = page_of(found)
    assert "<svg" not in page  # its text would shrink on a phone
    assert '<span class="name">ERV (+ explanation reward) over Cold start</span>' in page
    assert '<span class="name">Cold start</span>' in page
    assert "<h3>Agrees with its own answer</h3>" in page
    assert not re.search(
        r"\b(own_answer|r1_omni|erv:|sft\b)", re.sub(r"<style>.*?</style>", "", page, flags=re.S)
    )


def test_points_and_intervals_are_where_the_axis_says(found: dict) -> None:
    chart = Chart("t", [], ends=(1, 5), ticks=(1, 5), even=None, unit="u")
    line = Line("a", {"value": 3.0, "low": 2.0, "high": 4.0}, "p0", "3")
    assert (chart.place(1), chart.place(3), chart.place(5), chart.width(line)) == ("0%", "50%", "100%", "50%")


def test_what_checks_do_is_said_in_english(found: dict) -> None:
    checks = found["checks"]
    nobody = {**found, "checks": {**checks, "failed": []}}
    assert "A rater fails with any wrong attention check, or" in page_of(nobody)
    assert "None of 12 left out." in page_of(nobody)
    lenient = {**checks, "rules": {**checks["rules"], "failed_attention": 1}, "failed": checks["failed"][:1]}
    page = page_of({**found, "checks": lenient})
    assert "fails with more than 1 wrong attention check, or" in page
    assert "1 of 12 left out." in page
    assert "Without the 1 rater that failed checks" in page


def test_what_scrolls_can_be_reached_by_keys_and_its_caption_is_not_cut(found: dict) -> None:
    page = page_of(found)
    assert "<caption>" not in page
    assert (
        page.count('<div class="scroll" tabindex="0" role="region" aria-labelledby="about')
        == page.count("<table ")
        > 4
    )


def test_answers_per_item_are_told_by_kind(found: dict) -> None:
    """A plan that wants fewer ratings than preferences looked short when it was complete."""
    changed = {
        "pair": {"fewest": 5, "most": 5, "wanted": 5},
        "rating": {"fewest": 3, "most": 3, "wanted": 3},
    }
    assert found["per_item"] == {kind: {"fewest": 3, "most": 3, "wanted": 2} for kind in ("pair", "rating")}
    page = page_of({**found, "per_item": changed})
    assert "pair 5 to 5, of 5 that the plan wants; rating 3 to 3, of 3 that the plan wants." in page


def test_what_an_interval_is_about_is_said_beside_it(found: dict) -> None:
    page = page_of(found)
    assert page.count("over other clips with these raters") == 2  # of alpha and of tau
    assert "except where a table says otherwise" in page


def test_no_preference_is_no_finding(tmp_path: Path) -> None:
    folder = write_large_study(tmp_path / "even", clips=20, raters=8, ratings=False)
    model = Model({"sft": 0.0, "erv": 0.0}, ties=0.2)
    found = measure(answered(folder, model, raters=8), {}, LEVEL, Rules())
    share = found["passed"]["preference"]["pairs"]["sft-erv"]["share"]
    assert share["low"] < 0.5 < share["high"]
    assert found["passed"]["ratings"] == {"policies": {}, "differences": {}}
    page = page_of(found)
    assert "Can&#39;t tell whether" in page or "Can't tell whether" in page
    assert "<h2>Ratings</h2>" not in page


def test_a_few_answers_that_say_the_same_are_no_proof() -> None:
    draws = Draws(["a", "b"], list(range(4)), samples=200, seed=1, confidence=0.95)
    found = draws.share([1.0] * 8, ["a", "b"] * 4, [0, 0, 1, 1, 2, 2, 3, 3])
    assert found["value"] == found["high"] == 1.0
    assert found["low"] < 0.6
    assert draws.share([], [], []) == {"value": None, "low": None, "high": None}


def test_raters_count_as_clusters() -> None:
    """What one of three raters says differs from what the others say: the interval is that of three."""
    raters, clips = ["a", "b", "c"] * 60, [clip for clip in range(60) for _ in range(3)]
    draws = Draws(["a", "b", "c"], list(range(60)), samples=400, seed=1, confidence=0.95)
    apart = draws.mean([1.0 if rater == "a" else 3.0 for rater in raters], raters, clips)
    together = draws.mean(
        [1.0 if (clip + ord(r)) % 3 else 3.0 for clip, r in zip(clips, raters, strict=True)], raters, clips
    )
    assert apart["high"] - apart["low"] > 1.0 > 2 * (together["high"] - together["low"])


def test_what_can_t_be_reported(study: Study, tmp_path: Path) -> None:
    folder = write_large_study(tmp_path / "unanswered", clips=3, raters=2, overlap=1)
    base = Answerbase(f"sqlite:///{tmp_path}/empty.db")
    unanswered = read_study(folder)
    write_answers(Database(base, unanswered).log(), unanswered)
    base.close()
    with pytest.raises(DataError, match="nobody has answered a main item of study unanswered yet"):
        measure(unanswered, {}, LEVEL, Rules())


@pytest.mark.parametrize(
    ("model", "raters", "message"),
    [
        (Model({"sft": 0.0}), 1, "expected one for each policy of the study: erv, sft"),
        (Model({"sft": 0.0, "erv": 1.0}, alpha=1.5), 1, "alpha is 1.5, expected 0 to 1"),
        (Model({"sft": 0.0, "erv": 1.0}), 3, "has 2 places, which is fewer than 3 raters"),
    ],
)
def test_models_that_don_t_fit(tmp_path: Path, model: Model, raters: int, message: str) -> None:
    study = read_study(write_large_study(tmp_path / "small", clips=2, raters=2, overlap=1))
    base = Answerbase(f"sqlite:///{tmp_path}/small.db")
    with pytest.raises(SettingsError, match=message):
        simulate(base, study, read_key(study), model, raters=raters, seed=1)
    base.close()


def test_figures_in_words() -> None:
    assert span({"value": 0.583, "low": 0.5, "high": 0.66}) == "58 (50 to 66)"
    assert span({"value": None, "low": None, "high": None}) == "–"


def test_a_pair_with_too_few_answers_is_no_finding(tmp_path: Path) -> None:
    """Two answers by one of five raters: most draws have neither, so there is no interval."""
    folder = write_large_study(
        tmp_path / "early", policies=("a", "b", "c"), clips=6, raters=6, overlap=1, ratings=False, checks=0
    )
    study = read_study(folder)
    key = read_key(study)
    base = Answerbase(f"sqlite:///{tmp_path}/early.db")
    database = Database(base, study)
    pair = {item: set(about.policies.values()) for item, about in key.items.items()}
    told = 0
    for number, invitation in enumerate(database.invite(5)):
        rater = database.enter(invitation.token)
        if number == 0:  # this one is asked about the rare pair
            rater = replace(rater, items=tuple(item.id for item in study.items))
        for item in rater.items:
            rare = pair[item] == {"a", "c"}
            if rare != (number == 0) or (rare and told == 2):
                continue
            told += rare
            code = {policy: code for code, policy in key.items[item].policies.items()}
            value = {"emotion": "anger", "preferred": code["c"] if rare else "tie"}
            database.add(rater, item, value, 1.0, f"{rater.id}-{item}")
    write_answers(database.log(), study)
    base.close()
    found = measure(study, {}, LEVEL, Rules())
    names = {policy: policy for policy in found["policies"]}
    rare = found["passed"]["preference"]["pairs"]["c-a"]
    assert (rare["preferred"], rare["opposed"], rare["share"]["value"]) == (2, 0, None)
    (verdict,) = [
        one for one in verdicts(found["passed"], names) if {one["winner"], one["loser"]} == {"a", "c"}
    ]
    assert (verdict["winner"], verdict["preferred"], verdict["opposed"]) == ("c", 2, 0)
    assert (verdict["sure"], set(verdict["share"].values())) == (False, {None})
    assert sentence(verdict) == (
        "c can't be told from a: too few answers for an interval (2 for c, 0 for a, 0 ties, 1 rater)"
    )
    page = page_of(found)
    assert "Can't tell whether people prefer <strong>c</strong> or <strong>a</strong>" in page
    assert "Too few answers for an interval: 2 for c, 0 for a, 0 ties" in page
    assert "100% of preferences" not in page


def test_a_strength_that_one_rater_knows_of_has_no_interval(tmp_path: Path) -> None:
    """Only one of five raters was asked about `c`; draws without that rater took it for a tie with all."""
    folder = write_large_study(
        tmp_path / "lonely", policies=("a", "b", "c"), clips=6, raters=6, overlap=1, ratings=False, checks=0
    )
    study, base = read_study(folder), Answerbase(f"sqlite:///{tmp_path}/lonely.db")
    key, database = read_key(study), Database(base, study)
    for number, invitation in enumerate(database.invite(5)):
        rater = replace(database.enter(invitation.token), items=tuple(item.id for item in study.items))
        for item in rater.items:
            code = {policy: code for code, policy in key.items[item].policies.items()}
            if ("c" in code) != (number == 0):
                continue
            preferred = code.get("c", code.get("b"))
            database.add(rater, item, {"emotion": "anger", "preferred": preferred}, 1.0, f"{rater.id}-{item}")
    write_answers(database.log(), study)
    base.close()
    found = measure(study, {}, LEVEL, Rules())
    strengths = found["passed"]["preference"]["strengths"]
    assert strengths["c"]["value"] > 0
    assert (strengths["c"]["low"], strengths["c"]["high"]) == (None, None)
    assert strengths["a"]["low"] is not None
    page = page_of(found)
    assert f'<th>c</th><td class="num">{strengths["c"]["value"]:+.2f}</td>' in page
    assert "A policy that only one rater has compared has no interval" in page
