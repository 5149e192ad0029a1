"""Gates: only on test clips, and against a champion that was measured in the same way."""

import pytest

from erv.errors import EvaluationError, RegistryError
from erv.evaluate.compare import compare
from erv.register.gates import decide, decide_against_champion, judged, require_test_split
from erv.register.verdict import Verdict, read_verdict
from erv.settings import GateSettings

METRICS = {
    "judge": {"digest": "a" * 64},
    "decoding": {"max_new_tokens": 96, "temperature": 0.0, "split": "test"},
}
OPEN = (Verdict("WAR", "champion", -0.05), Verdict("WAR", None, 0.5, 0.8, 0.9, "pass"))


def rows(split="test"):
    return [
        {
            "dataset": "mafw",
            "clip_id": f"{index:05d}",
            "split": split,
            "label": "anger",
            "completion": "<answer>anger</answer>",
            "predicted": "anger",
            "judged": "anger",
            "sha256": f"{index:064x}",
        }
        for index in range(100)
    ]


def verdicts(**metrics):
    return decide_against_champion(OPEN, rows(), rows(), samples=100, confidence=0.95, seed=0, **metrics)


def test_a_champion_measured_alike_is_compared():
    found = verdicts(candidate_metrics=METRICS, champion_metrics={**METRICS, "mafw": {"WAR": 1.0}})
    # Equal answers: no worse, as far as 100 clips can say, and surely no better.
    assert (found[0].passed, found[0].value) == (True, pytest.approx(-0.037, abs=1e-3))
    assert found == verdicts()
    few = decide_against_champion(OPEN, rows()[:20], rows()[:20], samples=100, confidence=0.95, seed=0)
    assert (few[0].outcome, few[0].value) == ("can't tell", pytest.approx(-0.161, abs=1e-3))
    better = (Verdict("WAR", "champion", 0.0),)
    assert not decide_against_champion(better, rows(), rows(), samples=100, confidence=0.95, seed=0)[0].passed


@pytest.mark.parametrize(
    "other",
    [
        {**METRICS, "judge": {"digest": "b" * 64}},
        {**METRICS, "decoding": {**METRICS["decoding"], "temperature": 0.7}},
        {"judge": {"name": "lexical"}},
        None,
    ],
)
def test_against_a_champion_measured_otherwise_nothing_can_be_told(other):
    found = verdicts(candidate_metrics=METRICS, champion_metrics=other)
    assert (found[0].outcome, found[0].value) == ("can't tell", None)
    assert found[0].reason == "the champion had a different judge or different decoding"
    assert found[1] == OPEN[1]


def test_predictions_of_an_older_erv_are_said_to_lack_the_content():
    """The champion was said to be evaluated on other clips, or both were paired by ids in silence."""
    old = [{**row, "sha256": None} for row in rows()]
    settings = {"samples": 100, "confidence": 0.95, "seed": 0}
    for champion in (rows(), old):
        reason = decide_against_champion(OPEN, old, champion, **settings)[0].reason
        assert reason == (
            "the candidate's predictions lack the content of their clips, as an older erv wrote them:"
            " run `erv run --force evaluate`"
        )
    reason = decide_against_champion(OPEN, rows(), old, **settings)[0].reason
    assert reason == "the champion's answers don't say which content its clips had"


def test_a_champion_whose_answers_other_code_read_is_not_compared():
    """They counted as read by the same judge, as a judge's digest says nothing of its code."""
    mine = {**METRICS, "code": {"reading": "r", "figures": "f"}}
    for other in ({**METRICS, "code": {"reading": "s", "figures": "f"}}, METRICS):
        found = verdicts(candidate_metrics=mine, champion_metrics=other)
        assert (found[0].outcome, found[0].value) == ("can't tell", None)
        assert found[0].reason == "the champion's answers were read by other code"
    counted = {**mine, "code": {"reading": "r", "figures": "g"}}  # anew, from the kept readings
    assert verdicts(candidate_metrics=mine, champion_metrics=counted)[0].passed


def test_gates_are_decided_on_test_clips_only():
    require_test_split(rows())
    for wrong, name in (([*rows(), *rows("validation")], "test, validation"), ([], "none")):
        with pytest.raises(RegistryError, match=name):
            require_test_split(wrong)


WORTHY, UNWORTHY = {"recall_low": 0.9}, {"recall_low": 0.3}


def read(named, answer="anger", clips=60):
    """Rows whose verdicts are `named`: judge -> emotion by clip."""
    return [
        {
            **row,
            "completion": f"{named} {index}",
            "predicted": answer,
            "judged": next(iter(named.values()))[index],
            "verdicts": [
                {"judge": judge, "outcome": "named", "emotion": said[index]} for judge, said in named.items()
            ],
        }
        for index, row in enumerate(rows()[:clips])
    ]


def both(lexical, embedding, r1_lexical, r1_embedding, **worth):
    """A comparison of erv and r1_omni: how many of 60 right answers each judge finds inconsistent."""

    def named(count):
        return ["fear"] * count + ["anger"] * (60 - count)

    predictions = {
        "r1_omni": read({"lexical": named(r1_lexical), "embedding": named(r1_embedding)}),
        "erv": read({"lexical": named(lexical), "embedding": named(embedding)}),
    }
    found = compare(
        predictions,
        samples=200,
        confidence=0.95,
        seed=0,
        worth={"lexical": WORTHY, "embedding": WORTHY, **worth},
    )
    return {**found, "judge": {"name": "lexical"}}


def verdict_of(comparison, **gate):
    (verdict,) = decide([GateSettings(**gate)], "erv", comparison)
    return verdict


@pytest.fixture(scope="module")
def better_for_one():
    return both(lexical=30, embedding=5, r1_lexical=30, r1_embedding=40)


def test_less_inconsistency_than_a_policy_is_a_maximum(better_for_one):
    gate = {"metric": "inconsistency", "against": "r1_omni", "maximum": 0.0}
    found = verdict_of(better_for_one, **gate, judge="embedding")
    interval = better_for_one["judges"]["embedding"]["differences"]["erv-r1_omni"]["overall"]["inconsistency"]
    assert (found.passed, found.value) == (True, interval["high"])
    assert found.text() == (
        f"pass: inconsistency minus r1_omni (judge embedding) {found.low:+.4f} to {found.high:+.4f}"
        " (95%), needs less than +0.0000"
    )
    # The headline judge hears no difference.
    assert not verdict_of(better_for_one, **gate).passed


def test_a_maximum_of_the_metric_itself_applies_to_the_upper_end(better_for_one):
    for maximum, passed in ((0.25, True), (0.1, False)):
        gate = {"metric": "inconsistency", "maximum": maximum, "judge": "embedding"}
        found = verdict_of(better_for_one, **gate)
        assert found.passed is passed
        assert found.value > 5 / 60
    assert "needs 0.1000 or less" in found.text()


def test_every_worthy_judge_must_agree(better_for_one):
    gate = {"metric": "EEA", "against": "r1_omni", "minimum": 0.0, "judge": "every"}
    found = verdict_of(better_for_one, **gate)
    interval = better_for_one["judges"]["lexical"]["differences"]["erv-r1_omni"]["overall"]["EEA"]
    assert (found.passed, found.value) == (False, interval["low"])  # of the least favourable judge
    alone = {**better_for_one, "judges": {**better_for_one["judges"]}}
    alone["judges"]["lexical"] = {**alone["judges"]["lexical"], "worth": UNWORTHY}
    found = verdict_of(alone, **gate)
    assert found.passed
    assert "(every worthy judge) +" in found.text()


@pytest.mark.parametrize(
    ("judge", "reason"),
    [
        ("every", "no judge has shown its worth"),
        ("embedding", "the judge embedding has not shown its worth, so it decides no gate"),
        (None, "the judge lexical has not shown its worth, so it decides no gate"),
        ("majority", "lexical, embedding may vote without having shown worth, so no majority decides"),
    ],
)
def test_a_judge_that_has_not_shown_its_worth_decides_no_gate(better_for_one, judge, reason):
    poor = {name: {**item, "worth": None} for name, item in better_for_one["judges"].items()}
    poor["embedding"]["worth"] = UNWORTHY
    found = verdict_of({**better_for_one, "judges": poor}, metric="EPC", minimum=0.0, judge=judge)
    assert (found.outcome, found.value, found.reason) == ("can't tell", None, reason)
    # What no judge decides stays as it is.
    assert verdict_of({**better_for_one, "judges": poor}, metric="WAR", minimum=0.5).passed


@pytest.mark.parametrize("judge", ["majority", None])
@pytest.mark.parametrize("against", [None, "r1_omni"])
def test_one_doubtful_vote_is_enough_for_a_majority_to_decide_nothing(better_for_one, judge, against):
    gate = {"metric": "EPC", "against": against, "minimum": -1.0 if against else 0.0, "judge": judge}
    assert verdict_of(better_for_one, **gate).passed
    judges = dict(better_for_one["judges"])
    judges["embedding"] = {**judges["embedding"], "worth": UNWORTHY}
    # The headline judge is lexical, which has shown its worth.
    assert verdict_of({**better_for_one, "judges": judges}, **gate).passed is (judge is None)


def test_a_headline_judge_of_which_nothing_is_recorded_decides_no_gate(better_for_one):
    bare = {key: value for key, value in better_for_one.items() if key not in ("judges", "judge")}
    found = verdict_of(bare, metric="EPC", minimum=0.0)
    assert (found.outcome, found.reason) == (
        "can't tell",
        "the headline judge has not shown its worth, so it decides no gate",
    )


@pytest.mark.parametrize("judge", [None, "lexical", "majority", "every"])
@pytest.mark.parametrize("worth", [WORTHY, UNWORTHY, None])
def test_against_the_champion_too_only_judges_with_worth_decide(judge, worth):
    gate = (Verdict("EPC", "champion", 0.0, judge=judge),)
    judges = {name: {"digest": name, "worth": worth} for name in ("embedding", "lexical")}
    metrics = {**METRICS, "judge": {**METRICS["judge"], "name": "lexical"}, "judges": judges}
    half = {"lexical": ["fear", "anger"] * 30, "embedding": ["fear", "anger"] * 30}
    all_of_them = {"lexical": ["anger"] * 60, "embedding": ["anger"] * 60}
    (found,) = decide_against_champion(
        gate,
        read(all_of_them),
        read(half),
        samples=100,
        confidence=0.95,
        seed=0,
        candidate_metrics=metrics,
        champion_metrics=metrics,
    )
    assert found.passed is (worth is WORTHY)
    assert bool(found.reason) is not found.passed


def test_a_judge_that_did_not_read_is_named(better_for_one):
    with pytest.raises(
        EvaluationError, match="no figures of judge 'local', only of lexical, embedding, majority"
    ):
        verdict_of(better_for_one, metric="EPC", minimum=0.0, judge="local")


def test_a_verdict_is_read_as_it_was_written(better_for_one):
    found = verdict_of(better_for_one, metric="WAR", minimum=0.5)
    always = {"metric", "against", "minimum", "low", "high", "outcome", "reason"}
    assert set(found.as_dict()) == {*always, "confidence"}
    by_judge = verdict_of(better_for_one, metric="inconsistency", maximum=0.5, judge="embedding")
    assert read_verdict(by_judge.as_dict()) == by_judge


@pytest.mark.parametrize(
    ("gate", "message"),
    [
        ({"metric": "EPC"}, "give either minimum or maximum"),
        ({"metric": "EPC", "minimum": 0.1, "maximum": 0.2}, "give either minimum or maximum"),
        ({"metric": "WAR", "minimum": 0.1, "judge": "lexical"}, "no judge decides it"),
    ],
)
def test_a_gate_that_contradicts_itself_is_refused(gate, message):
    with pytest.raises(ValueError, match=message):
        GateSettings(**gate)


def test_a_gate_of_a_judge_against_the_champion():
    open_gate = (Verdict("inconsistency", "champion", None, maximum=0.0, judge="every"),)
    half = {"lexical": ["fear", "anger"] * 30, "embedding": ["fear", "anger"] * 30}
    none = {"lexical": ["anger"] * 60, "embedding": ["anger"] * 60}
    judges = {name: {"digest": name, "worth": WORTHY} for name in ("lexical", "embedding")}
    metrics = {**METRICS, "judges": judges}
    shared = {"samples": 200, "confidence": 0.95, "seed": 0}
    found = decide_against_champion(
        open_gate, read(none), read(half), candidate_metrics=metrics, champion_metrics=metrics, **shared
    )
    assert found[0].passed
    other = {**metrics, "judges": {**judges, "embedding": {"digest": "another"}}}
    found = decide_against_champion(
        open_gate, read(none), read(half), candidate_metrics=metrics, champion_metrics=other, **shared
    )
    assert (found[0].passed, found[0].reason) == (
        False,
        "the champion was read by a different panel of judges",
    )


@pytest.mark.parametrize(("silent", "who"), [("candidate", "the candidate"), ("champion", "the champion")])
def test_a_gate_on_explanations_fails_where_a_policy_gives_none(silent, who):
    open_gates = (
        Verdict("inconsistency", "champion", None, maximum=0.0, judge="every"),
        Verdict("EPC", "champion", -0.5),
        Verdict("WAR", "champion", -0.2),
    )
    worth = {"judges": {name: {"digest": name, "worth": WORTHY} for name in ("lexical", "embedding")}}
    measured = {name: {**METRICS, **worth, "explains": name != silent} for name in ("candidate", "champion")}
    nothing = read({"lexical": [None] * 60, "embedding": [None] * 60})
    half = read({"lexical": ["fear", "anger"] * 30, "embedding": ["fear", "anger"] * 30})
    mine, other = (nothing, half) if silent == "candidate" else (half, nothing)
    found = decide_against_champion(
        open_gates,
        mine,
        other,
        samples=100,
        confidence=0.95,
        seed=0,
        candidate_metrics=measured["candidate"],
        champion_metrics=measured["champion"],
    )
    assert [gate.passed for gate in found] == [False, False, True]
    for gate in found[:2]:
        assert gate.reason == f"doesn't apply, as {who} has no figure for it (it answers without explaining)"


@pytest.mark.parametrize(
    ("verdict", "interval", "text"),
    [
        (Verdict("WAR", minimum=0.5), (0.49996, 0.6), "can't tell: WAR 0.49996 to 0.60000, needs 0.50000 or"),
        (Verdict("WAR", minimum=0.5), (0.49990, 0.49996), "fail: WAR 0.49990 to 0.49996, needs 0.50000 or"),
        (
            Verdict("WAR", maximum=0.5),
            (0.4, 0.500004),
            "can't tell: WAR 0.400000 to 0.500004, needs 0.500000",
        ),
        (Verdict("WAR", "sft", 0.0), (0.00002, 0.1), "pass: WAR minus sft +0.00002 to +0.10000, needs more"),
        (
            Verdict("WAR", "sft", 0.0),
            (0.0, 0.1),
            "can't tell: WAR minus sft +0.0000 to +0.1000, needs more than",
        ),
        (Verdict("WAR", minimum=0.5), (0.5, 0.6), "pass: WAR 0.5000 to 0.6000, needs 0.5000 or more"),
    ],
)
def test_no_figure_contradicts_its_outcome(verdict, interval, text):
    decided = judged(verdict, dict(zip(("low", "high"), interval, strict=True)))
    assert decided.text().startswith(text)


def test_a_verdict_says_at_which_confidence_it_was_decided(better_for_one):
    gates = [GateSettings(metric="WAR", minimum=0.1), GateSettings(metric="verifier_f1", minimum=0.5)]
    comparison = {**better_for_one, "confidence": 0.9, "verifier": {"macro_f1": 0.8, "n": 424}}
    on_answers, on_verifier = decide(gates, "erv", comparison)
    assert on_answers.as_dict()["confidence"] == 0.9
    assert read_verdict(on_answers.as_dict()) == on_answers
    assert " (90%), needs 0.1000 or more" in on_answers.text()
    assert "confidence" not in on_verifier.as_dict(), "it has no interval of this level"
