import pytest

from erv.errors import EvaluationError
from erv.evaluate.significance import in_words
from erv.report import verdicts


def interval(value, reach):
    return {"value": value, "low": value - reach, "high": value + reach}


def comparison(second=None):
    """Two policies: EPC rises, inconsistency falls, WAR stays; a second judge reads `second`."""
    values = {"WAR": interval(0.0, 0.1), "EPC": interval(0.2, 0.1), "inconsistency": interval(-0.2, 0.1)}
    judged = {name: item for name, item in values.items() if name != "WAR"}

    def figures(items):
        scopes = {"overall": items}
        differences = {"erv-sft": scopes}
        return {
            "policies": {"sft": scopes, "erv": scopes},
            "differences": differences,
            "verdicts": {"erv-sft": {"overall": {m: {"verdict": in_words(m, i)} for m, i in items.items()}}},
        }

    worth = {"accuracy": 0.9, "low": 0.8, "high": 0.95, "recall": 0.85, "texts": 50}
    return {
        "order": ["sft", "erv"],
        **figures(values),
        "judges": {
            "lexical": {"worth": worth, **figures(judged)},
            "embedding": {"worth": worth, **figures({**judged, **(second or {})})},
            "majority": {"worth": None, **figures({**judged, "EPC": interval(0.0, 0.1)})},
        },
    }


def test_the_headline_sorts_metrics_by_verdict():
    (found,) = verdicts.headline(comparison())
    assert found.other == "sft"
    assert found.metrics == {"better": ["EPC", "inconsistency"], "worse": [], "can't tell": ["WAR"]}
    assert (found.agree, found.dissent) == (2, {})  # the majority is no judge


def test_the_words_are_those_of_the_comparison_not_of_the_interval():
    found = comparison()
    found["verdicts"]["erv-sft"]["overall"]["EPC"]["verdict"] = "can't tell"  # as a corrected test may say
    (headline,) = verdicts.headline(found)
    assert headline.metrics["can't tell"] == ["WAR", "EPC"]


def test_a_judge_that_reads_otherwise_is_named():
    (found,) = verdicts.headline(comparison({"EPC": interval(0.05, 0.1)}))
    assert (found.agree, found.dissent) == (0, {"embedding": {"EPC": "can't tell"}})


def test_the_subject_may_be_any_policy():
    """The comparison holds each pair once, as the later minus the earlier."""
    (found,) = verdicts.headline(comparison(), "sft")
    assert found.other == "erv"
    assert found.metrics == {"better": [], "worse": ["EPC", "inconsistency"], "can't tell": ["WAR"]}
    whole = comparison()
    turned = verdicts.difference(whole, "sft", "erv", "EPC")
    assert (turned["value"], turned["low"], turned["high"]) == pytest.approx((-0.2, -0.3, -0.1))
    assert f"{verdicts.difference(whole, 'sft', 'erv', 'WAR')['value']:+.1f}" == "+0.0"
    assert verdicts.difference(whole, "erv", "sft", "EPC")["value"] == 0.2
    whole["differences"]["erv-sft"]["overall"]["EPC"] = dict.fromkeys(("value", "low", "high"))
    assert verdicts.difference(whole, "sft", "erv", "EPC")["value"] is None


def test_a_policy_is_compared_with_those_before_it_first():
    order = ["sft", "r1_omni", "erv", "direct", "released"]
    assert verdicts.others(order, "erv") == ["r1_omni", "sft", "direct", "released"]
    assert verdicts.others(["sft"], "sft") == []


def test_what_does_not_apply_is_no_verdict():
    """An arm that doesn't explain lacks the figures that judges decide."""
    found = comparison()
    for part in (found, *found["judges"].values()):
        for key in ("verdicts", "differences"):
            applies = {m: item for m, item in part[key]["erv-sft"]["overall"].items() if m == "WAR"}
            part[key]["erv-sft"] = {"overall": applies}
    (headline,) = verdicts.headline(found)
    assert headline.metrics == {
        "better": [],
        "worse": [],
        "can't tell": ["WAR"],
        "doesn't apply": ["EPC", "inconsistency"],
    }
    assert (headline.agree, headline.dissent) == (0, {}), "no judge gave a verdict"
    assert verdicts.verdict(found, "sft", "erv", "EPC") == "doesn't apply"


def test_one_policy_has_no_headline():
    assert verdicts.headline({**comparison(), "order": ["sft"]}) == []


def test_worth_is_in_words():
    worth = {"accuracy": 0.87, "low": 0.81, "high": 0.912, "recall": 0.8, "texts": 200}
    assert verdicts.worth_in_words("lexical", worth) == {
        "figure": "87.0% right",
        "about": "81.0 to 91.2, on 200 texts; 80.0% over emotions",
    }
    assert verdicts.worth_in_words("lexical", None)["figure"] == "not measured"
    assert verdicts.worth_in_words("majority", None)["figure"] == "no judge"


def test_a_comparison_without_judges_is_refused():
    with pytest.raises(EvaluationError, match="no figures by judge"):
        verdicts.judges_of({**comparison(), "judges": {}})
    with pytest.raises(EvaluationError, match="judge 'a' lacks worth, policies, differences, verdicts, sft"):
        verdicts.judges_of({**comparison(), "judges": {"a": {}}})
