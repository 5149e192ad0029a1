"""Every figure in the reading of each judge, and of the majority of them."""

import pytest

from erv.errors import EvaluationError
from erv.evaluate.by_judge import is_worthy, shared_panel, worth_of_judges
from erv.evaluate.compare import compare, difference
from erv.evaluate.evaluate import measure, read_by_panel
from erv.evaluate.figures import Scope
from erv.evaluate.judges.panel import read_by
from erv.evaluate.outcomes import answer_terms, explanation_terms

WORTH = {"lexical": {"recall_low": 0.3}, "embedding": {"recall_low": 0.9}, "local": {"recall_low": 0.9}}


def row(clip, judges, answer="anger", completion="x"):
    """Verdicts as `judge: emotion`, or `judge: outcome!` where no emotion was named."""
    verdicts = [
        {"judge": judge, "outcome": said[:-1], "emotion": None}
        if said.endswith("!")
        else {"judge": judge, "outcome": "named", "emotion": said}
        for judge, said in judges.items()
    ]
    first = next(iter(judges.values()), "silent!")
    return {
        "dataset": "mafw",
        "clip_id": f"{clip:03d}",
        "split": "test",
        "label": "anger",
        "completion": completion,
        "predicted": answer,
        "judged": None if first.endswith("!") else first,
        "sentences": 1,
        "verdicts": verdicts,
    }


def panel(lexical, embedding, local="silent!"):
    return {"lexical": lexical, "embedding": embedding, "local": local}


def test_a_reading_is_what_the_judge_named():
    rows = [
        row(0, panel("fear", "anger")),
        row(1, panel("outside!", "anger")),
        row(2, panel("failed!", "fear")),
    ]
    assert [r["judged"] for r in read_by(rows, "lexical")] == ["fear", None, None]
    assert [r["judged"] for r in read_by(rows, "embedding")] == ["anger", "anger", "fear"]


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (("anger", "anger", "fear"), "anger"),
        (("anger", "fear", "sadness"), None),
        (("anger", "silent!", "anger"), "anger"),
        (("anger", "silent!", "failed!"), None),  # one vote of three is no majority
        (("silent!", "outside!", "unreadable!"), None),
    ],
)
def test_the_majority_is_more_than_half_of_the_judges(said, expected):
    assert read_by([row(0, panel(*said))], "majority")[0]["judged"] == expected


def test_two_judges_that_disagree_have_no_majority():
    rows = [row(0, {"a": "anger", "b": "fear"}), row(1, {"a": "anger", "b": "anger"})]
    assert [r["judged"] for r in read_by(rows, "majority")] == [None, "anger"]


@pytest.fixture(scope="module")
def found():
    return compare(policies(), samples=200, confidence=0.95, seed=0, worth=WORTH)


def policies():
    before = [
        row(i, panel("fear", "fear" if i % 2 else "anger", "fear" if i % 2 else "anger")) for i in range(60)
    ]
    after = [row(i, panel("fear", "anger", "anger")) for i in range(60)]
    return {"before": before, "after": after}


def test_the_comparison_has_each_judge_and_the_majority(found):
    assert list(found["judges"]) == ["lexical", "embedding", "local", "majority"]
    assert found["judges"]["embedding"]["worth"] == {"recall_low": 0.9}
    assert found["judges"]["majority"]["worth"] is None
    values = {
        judge: item["policies"]["before"]["overall"]["EEA"]["value"]
        for judge, item in found["judges"].items()
    }
    assert values == {"lexical": 0.0, "embedding": 0.5, "local": 0.5, "majority": 0.5}
    headline = found["policies"]["before"]["overall"]
    for metric in ("EEA", "EPC", "FCR", "inconsistency"):
        assert found["judges"]["lexical"]["policies"]["before"]["overall"][metric] == headline[metric]
    said = {
        judge: {m: v["verdict"] for m, v in item["verdicts"]["after-before"]["overall"].items()}
        for judge, item in found["judges"].items()
    }
    assert said["lexical"] == dict.fromkeys(("EEA", "EPC", "FCR", "inconsistency"), "can't tell")
    assert said["embedding"] == dict.fromkeys(("EEA", "EPC", "FCR", "inconsistency"), "better")
    assert "WAR" not in found["judges"]["lexical"]["policies"]["before"]["overall"]


def test_a_judges_figures_are_those_of_its_reading_as_the_headline(found):
    """Another judge's figures don't depend on which judge is the first of the panel."""
    alone = {name: read_by(rows, "embedding") for name, rows in policies().items()}
    expected = compare(alone, samples=200, confidence=0.95, seed=0)
    mine = found["judges"]["embedding"]
    for metric in ("EEA", "EPC", "FCR", "inconsistency", "inconsistency_all"):
        for key, name in (("policies", "after"), ("differences", "after-before")):
            assert mine[key][name]["overall"][metric] == expected[key][name]["overall"][metric]
    merged = {**found, **mine}
    assert difference(merged, "before", "after", "overall", "EEA")["value"] == -0.5


def test_without_a_panel_there_are_no_judges():
    assert "judges" not in compare(policies(), samples=200, confidence=0.95, seed=0)


def test_old_predictions_are_named():
    rows = policies()
    for item in rows["after"]:
        del item["verdicts"]
    with pytest.raises(EvaluationError, match=r"policy 'after'.*no verdicts of judges.*evaluate.*again"):
        compare(rows, samples=200, confidence=0.95, seed=0, worth=WORTH)


def test_a_panel_is_the_same_for_all_rows_and_for_the_metrics():
    rows = policies()
    with pytest.raises(
        EvaluationError, match=r"read by lexical, embedding, local, but metrics\.json describes"
    ):
        compare(rows, samples=200, confidence=0.95, seed=0, worth={"lexical": None})
    rows["after"][3]["verdicts"].pop()
    with pytest.raises(EvaluationError, match=r"policy 'after': clip '003'.*was read by lexical, embedding"):
        shared_panel(rows)


def test_worth_comes_from_the_metrics():
    assert worth_of_judges({"erv": {"overall": {}}}) is None
    assert worth_of_judges({"erv": {"judges": {"a": {"worth": {"recall_low": 0.9}}, "b": {}}}}) == {
        "a": {"recall_low": 0.9},
        "b": None,
    }


@pytest.mark.parametrize(
    ("worth", "worthy"),
    [({"recall_low": 0.6}, True), ({"recall_low": 0.59}, False), ({"accuracy": 1.0}, False), (None, False)],
)
def test_a_judge_is_worthy_if_it_is_right_often_enough(worth, worthy):
    assert is_worthy(worth) is worthy


def test_a_scope_without_a_clip_has_no_figures():
    """All clips of a run may have emotions that the pooled space doesn't know."""
    terms = {("", m): t for m, t in {**answer_terms([]), **explanation_terms([])}.items()}
    keys = ("policies", "classes")
    target = {key: {"a": {}, "b": {}} for key in keys} | {"differences": {"b-a": {}}, "verdicts": {"b-a": {}}}
    Scope("overall", {"a": terms, "b": terms}, [], {"a": [], "b": []}, 0.95, 0).fill({"": target}, 100)
    nothing = {"value": None, "low": None, "high": None}
    assert target["policies"]["a"]["overall"]["WAR"] == nothing
    assert target["differences"]["b-a"]["overall"]["UAR"] == nothing
    assert {item["verdict"] for item in target["verdicts"]["b-a"]["overall"].values()} == {"can't tell"}


def test_an_emotion_outside_the_list_contradicts_the_answer():
    said = [("anger",) * 3, ("outside!",) * 3, ("fear", "outside!", "outside!"), ("silent!",) * 3]
    said += [("failed!", "outside!", "anger"), ("unreadable!", "anger", "outside!")]
    rows = [row(clip, panel(*each)) for clip, each in enumerate(said)]
    shares = {"lexical": 2 / 6, "embedding": 3 / 6, "local": 3 / 6, "majority": 2 / 6}
    scopes = measure(rows)
    described = [{"name": name} for name in WORTH]
    of_panel = read_by_panel(rows, described)
    compared = compare({"sft": rows, "erv": rows}, samples=20, confidence=0.95, seed=0, worth=WORTH)
    for scope in ("overall", "mafw"):
        for metric in ("inconsistency", "inconsistency_all"):
            assert scopes[scope][metric] == pytest.approx(shares["lexical"], abs=1e-6)
            assert compared["policies"]["erv"][scope][metric]["value"] == pytest.approx(2 / 6, abs=1e-6)
            for judge, share in shares.items():
                figure = compared["judges"][judge]["policies"]["erv"][scope][metric]
                assert figure["value"] == pytest.approx(share, abs=1e-6)
        for judge, share in shares.items():
            read = of_panel["majority"] if judge == "majority" else of_panel["judges"][judge]["metrics"]
            assert read[scope]["inconsistency"] == pytest.approx(share, abs=1e-6)
        assert scopes[scope]["EPC"] == pytest.approx(1 / 6, abs=1e-6)  # it agrees with nothing


def test_rows_without_verdicts_contradict_only_with_an_emotion():
    rows = [{**row(0, panel("outside!", "fear")), "verdicts": None}]
    assert explanation_terms(rows)["inconsistency"].value == 0.0
