"""What a judge is worth, and when it is refused."""

import csv
from collections import Counter

import pytest

from erv.errors import EvaluationError
from erv.evaluate.judges import judge_quality, require_quality
from erv.evaluate.judges.lexical import LexicalJudge
from erv.evaluate.judges.protocol import placed
from erv.evaluate.judges.worth import LabelledText, measure_worth, read_labelled, unmeasured
from erv.evaluate.score_intervals import share_score
from erv.labels import LabelSpace
from erv.sentences import normalize, split_sentences
from erv.settings import load_settings
from tests.support.judging import Spoken
from tests.support.paths import ROOT

MAFW = LabelSpace.load("mafw")
TEXTS = ROOT / "data/judge_texts"


@pytest.fixture
def limits():
    return load_settings(ROOT / "params.yaml").evaluate


def labelled(*pairs):
    return [LabelledText(f"{text} {number}.", label) for number, (text, label) in enumerate(pairs)]


def test_worth_counts_by_emotion_and_keeps_the_texts_without_one_apart():
    texts = labelled(
        *[("angry", "anger")] * 6, *[("sad", "anger")] * 2, *[("sad", "sadness")] * 3, ("x", "fear")
    )
    texts += labelled(("nothing at all", None), ("worried, it seems", None))
    worth = measure_worth(Spoken(), texts)
    assert (worth["texts"], worth["right"], worth["accuracy"]) == (12, 9, 0.75)
    assert worth["emotions"]["anger"] == {"texts": 8, "right": 6}
    assert worth["emotions"]["disgust"] == {"texts": 0, "right": 0}
    assert worth["recall"] == pytest.approx((6 / 8 + 1 + 0) / 3, abs=1e-6)
    assert (worth["low"], worth["high"]) == pytest.approx(share_score([9], [12], 0.95), abs=1e-6)
    recall = share_score([6, 0, 3], [8, 1, 3], 0.95)
    assert (worth["recall_low"], worth["recall_high"]) == pytest.approx(recall, abs=1e-6)
    assert worth["none"] == {"texts": 2, "silent": 1}
    assert worth["outcomes"] == {"named": 12, "silent": 2}
    with pytest.raises(EvaluationError, match="no labelled explanation speaks of an emotion"):
        measure_worth(Spoken(), labelled(("x", None)))


def poor(**change):
    emotions = {name: {"texts": 0, "right": 0} for name in MAFW.names}
    emotions |= {"neutral": {"texts": 83, "right": 79}, "anger": {"texts": 11, "right": 0}}
    worth = {
        "texts": 94,
        "accuracy": 79 / 94,
        "recall": 0.4759,
        "recall_low": 0.4106,
        "recall_high": 0.6187,
        "emotions": emotions,
    }
    return {"name": "poor", "worth": worth | change}


GOOD = {
    "name": "good",
    "worth": {
        "texts": 110,
        "accuracy": 1.0,
        "recall": 1.0,
        "recall_low": 0.95,
        "recall_high": 1.0,
        "emotions": {name: {"texts": 10, "right": 10} for name in MAFW.names},
    },
}


def test_one_line_says_how_good_a_judge_is():
    assert judge_quality(poor()) == (
        "right on 84.0% of 94 hand-labelled explanations (88.3% are neutral); mean over 2 emotions 47.6% (95%"
        " interval 41.1 to 61.9); not measured: disgust, fear, happiness, sadness, surprise, contempt,"
        " anxiety, helplessness, disappointment"
    )


@pytest.mark.parametrize("described", [poor(), GOOD | {"worth": GOOD["worth"] | {"texts": 19}}])
def test_a_judge_that_is_poor_or_hardly_measured_is_refused(limits, described):
    require_quality(GOOD, limits, ["mafw", "dfew"])
    with pytest.raises(EvaluationError, match=r"the lower end must be 60% or more .* on 20 texts or more"):
        require_quality(described, limits, ["dfew"])
    lowered = {"minimum_judge_accuracy": 0.0, "minimum_judge_texts": 0, "minimum_judge_emotions": 0.0}
    require_quality(described, limits.model_copy(update=lowered), ["dfew"])


def test_a_judge_that_always_names_the_same_emotion_never_passes(limits):
    class Always(Spoken):
        def judge(self, explanations, space):
            return super().judge(["calm"] * len(explanations), space)

    texts = labelled(*[("x", "neutral")] * 80, *[("x", "anger")] * 10, *[("x", "fear")] * 10)
    described = Always().describe() | {"worth": measure_worth(Always(), texts)}
    assert described["worth"]["low"] > 0.7
    low = {"minimum_judge_accuracy": 0.01, "minimum_judge_emotions": 0.0}
    with pytest.raises(EvaluationError, match="of a judge that always names the same emotion"):
        require_quality(described, limits.model_copy(update=low), ["mafw"])


def test_a_judge_must_be_measured_on_the_emotions_that_are_tested(limits):
    texts = labelled(*[("angry", "anger")] * 20, *[("sad", "sadness")] * 20)
    described = Spoken().describe() | {"worth": measure_worth(Spoken(), texts)}
    assert described["worth"]["recall"] == 1.0
    said = (
        r"measured on 2 of the 7 emotions of dfew \(with 5 labelled explanations or more each\); not on"
        r" disgust, fear, happiness, neutral, surprise\. It must be at least 70% of them"
        r" \(evaluate\.minimum_judge_emotions\)"
    )
    with pytest.raises(EvaluationError, match=said):
        require_quality(described, limits, ["dfew"])
    with pytest.raises(EvaluationError, match="measured on 2 of the 11 emotions of dfew, mafw"):
        require_quality(described, limits, ["dfew", "mafw"])
    require_quality(described, limits.model_copy(update={"minimum_judge_emotions": 0.2}), ["dfew"])


def test_the_shipped_texts_are_what_their_page_says(limits):
    measured, choosing = (read_labelled(TEXTS / name) for name in ("policies.csv", "choosing.csv"))
    assert (len(measured), len(choosing)) == (200, 60)
    assert not {item.text for item in measured} & {item.text for item in choosing}
    counts = Counter(item.label for item in measured)
    assert min(counts[name] for name in MAFW.names) >= 7
    assert counts[None] == 23
    with (TEXTS / "policies.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert {row["policy"] for row in rows} == {"sft", "r1_omni", "erv"}
    assert all(row["note"].startswith("read alone; ") for row in rows)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("text\nx\n", "lacks the columns label"),
        ("text,label\nx,bored\n", "row 2 has the label 'bored'; expected none or one of anger"),
        ("text,label\nx,anger\nx,fear\n", "row 3 repeats a text"),
        ("", "lacks the columns label, text"),
    ],
)
def test_faulty_files_are_refused(tmp_path, content, said):
    path = tmp_path / "own.csv"
    with pytest.raises(EvaluationError, match="not found; restore it from git"):
        read_labelled(path)
    path.write_text(content)
    with pytest.raises(EvaluationError, match=said):
        read_labelled(path)
    path.write_bytes(b"text,label\n\xff,anger\n")
    with pytest.raises(EvaluationError, match="not a CSV file in UTF-8"):
        read_labelled(path)
    path.write_text("\ufefflabel,text\nSad,It rains.\nNone,Nothing.\n")
    assert read_labelled(path) == [LabelledText("It rains.", "sadness"), LabelledText("Nothing.", None)]


@pytest.mark.slow
def test_no_judge_learns_from_the_texts_that_measure_it(corpus):
    with (corpus / "judge" / "texts.csv").open(newline="") as stream:
        learned = {normalize(s) for row in csv.DictReader(stream) for s in split_sentences(row["text"])}
    measured = {
        normalize(s) for item in read_labelled(TEXTS / "policies.csv") for s in split_sentences(item.text)
    }
    assert not learned & measured


class Own(Spoken):
    """Names the first emotion of the space that it is given, or else MAFW's."""

    def judge(self, explanations, space):
        said = super().judge(explanations, space)
        own = [space.named_in(text) for text in explanations]
        return [placed(names[0]) if names else item for names, item in zip(own, said, strict=True)]


def test_emotions_of_a_tested_data_sets_own_space_count_too(tmp_path, monkeypatch):
    folder = tmp_path / "data/label_spaces"
    folder.mkdir(parents=True)
    labels = "[{id: 0, name: awe, synonyms: [awed]}, {id: 1, name: boredom}, {id: 2, name: joy}]"
    (folder / "moods.yaml").write_text(f"name: moods\nlabels: {labels}\nmaps: {{mafw: {{joy: happiness}}}}\n")
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "own.csv"
    rows = [f"awed {n}.,awe" for n in range(6)] + ["angry a.,awed", "angry b.,anger", "joy.,joy", "x.,none"]
    path.write_text("\n".join(["text,label", *rows]))
    with pytest.raises(EvaluationError, match=r"row 2 has the label 'awe'; .* needs that data set in roles"):
        read_labelled(path, ["mafw"])
    texts = read_labelled(path, ["mafw", "moods"])
    assert texts[0] == LabelledText("awed 0.", "awe", "moods")
    assert texts[-2:] == [LabelledText("joy.", "happiness"), LabelledText("x.", None)]
    worth = measure_worth(Own(), texts)
    assert worth["emotions"]["awe"] == {"texts": 7, "right": 6}
    assert worth["emotions"]["anger"] == {"texts": 1, "right": 1}
    assert (worth["texts"], worth["right"], worth["none"]) == (9, 8, {"texts": 1, "silent": 1})
    assert worth["recall"] == pytest.approx((6 / 7 + 1 + 1) / 3, abs=1e-6)
    assert list(worth["emotions"]) == [*MAFW.names, "awe"]
    described = {"name": "spoken", "worth": worth}
    assert unmeasured(described, ["mafw"]) is None
    assert unmeasured(described, ["mafw", "moods"]) == (
        "the worth of the judge spoken says nothing of boredom: fewer than 5 labelled explanations each;"
        " label some in data/judge_texts"
    )


def test_a_judge_is_not_measured_on_what_it_learned():
    learned = LexicalJudge(["She is glad. A smile.", "He shouts in rage."], ["happiness", "anger"])
    seen = LabelledText("Then he SHOUTS in rage!", "anger")
    measure_worth(learned, [seen])
    with pytest.raises(EvaluationError, match=r"lexical was trained on the sentence 'he shouts in rage!'"):
        measure_worth(learned, [LabelledText("The room is dark. he shouts in rage!", "anger")])
