import random

import pytest

from erv.errors import EvaluationError
from erv.evaluate.evaluate import judge_completions
from erv.evaluate.judges import LexicalJudge, check_independence, judge_quality, require_quality
from erv.labels import LabelSpace
from erv.manifest import ClipRow
from erv.sample.emotions import EMOTIONS
from erv.sample.sample import stream
from erv.sample.wordings import compose_explanation
from erv.settings import load_settings
from erv.verifier import split_sentences


def join(sentences):
    return " ".join(text for text, _ in sentences)


MAFW, DFEW = LabelSpace.load("mafw"), LabelSpace.load("dfew")


def texts(family, count, name):
    rng = stream(0, "test", name)
    return [(join(compose_explanation(emotion, rng, family)), emotion) for emotion in EMOTIONS * count]


@pytest.fixture(scope="module")
def judge():
    rows = texts("b", 40, "judge")
    return LexicalJudge([text for text, _ in rows], [label for _, label in rows])


def test_it_reads_wordings_that_it_was_not_trained_on(judge):
    rows = texts("a", 20, "policy")
    read = judge.judge([text for text, _ in rows], MAFW)
    assert sum(heard == label for heard, (_, label) in zip(read, rows, strict=True)) / len(rows) > 0.9
    assert judge.held_out_accuracy > 0.95


def test_it_names_emotions_of_the_data_set(judge):
    rows = texts("a", 3, "dfew")
    read = judge.judge([text for text, _ in rows], DFEW)
    assert set(read) <= set(DFEW.names)
    to_dfew = MAFW.to(DFEW)
    known = [(heard, to_dfew(label)) for heard, (_, label) in zip(read, rows, strict=True) if to_dfew(label)]
    assert sum(heard == label for heard, label in known) / len(known) > 0.9


def test_nothing_to_read_is_nothing_not_neutral(judge):
    assert judge.judge([None, "", "  ", "..."], MAFW) == [None] * 4
    assert judge.judge([], MAFW) == []
    assert judge.judge(["Zxqv wplk.", "qqq"], MAFW) == [None] * 2
    assert judge.judge(["Zxqv", "Someone here is angry, anger."], MAFW) == [None, "anger"]


FOREIGN = [
    "他低着头，眼里含着泪水。声音低沉而缓慢。他看起来很悲伤。",
    "Ihre Mundwinkel sinken nach unten. Die Stimme ist leise. Sie wirkt traurig.",
    "Los ojos se llenan de lágrimas. La voz baja y tiembla.",
]


def test_another_language_is_unreadable_not_an_emotion(judge):
    assert judge.unreadable([*FOREIGN, None, "", "Someone here is angry."]) == [True] * 3 + [False] * 3
    assert judge.judge(FOREIGN, MAFW) == [None] * 3
    said = [text for text, _ in texts("a", 20, "policy")]
    assert judge.unreadable(said) == [False] * len(said)


@pytest.fixture
def limits(root):
    return load_settings(root / "params.yaml").evaluate


def test_a_judge_says_how_good_it_is(judge, limits):
    described = judge.describe()
    assert 0.9 < described["held_out_low"] < described["held_out_accuracy"] <= described["held_out_high"]
    assert 0.9 < described["held_out_recall_low"] < described["held_out_recall"]
    support = described["held_out_emotions"]
    assert set(support) == set(MAFW.names)
    assert sum(row["texts"] for row in support.values()) == described["held_out"]
    require_quality(described, limits, ["mafw", "dfew"])
    assert judge_quality(POOR) == (
        "right on 84.0% of 94 held-out texts (88.3% are neutral); mean over 2 emotions 47.6% (95% interval"
        " 41.1 to 61.9); not measured: disgust, fear, happiness, sadness, surprise, contempt, anxiety,"
        " helplessness, disappointment"
    )


SUPPORT = {name: {"texts": 0, "right": 0} for name in MAFW.names}
POOR = {
    "held_out": 94,
    "held_out_accuracy": 79 / 94,
    "held_out_recall": 0.4759,
    "held_out_recall_low": 0.4106,
    "held_out_recall_high": 0.6187,
    "held_out_emotions": SUPPORT
    | {"neutral": {"texts": 83, "right": 79}, "anger": {"texts": 11, "right": 0}},
}


@pytest.mark.parametrize("change", [POOR, {"held_out": 19}])
def test_a_judge_that_is_poor_or_hardly_measured_is_refused(judge, limits, change):
    described = {**judge.describe(), **change}
    with pytest.raises(EvaluationError, match=r"the lower end must be 60% or more .* on 20 texts or more"):
        require_quality(described, limits, ["dfew"])
    lowered = {"minimum_judge_accuracy": 0.0, "minimum_judge_texts": 0, "minimum_judge_emotions": 0.0}
    require_quality(described, limits.model_copy(update=lowered), ["dfew"])


def test_a_judge_of_noise_does_not_pass_because_most_texts_are_neutral(limits):
    """Its words say nothing, it calls everything neutral, and it was right on 84% of 94 texts."""
    rng = random.Random(0)
    words = ["".join(rng.choice("abcdefghijklmnop") for _ in range(6)) for _ in range(4000)]
    emotions = ["anger", "fear", "sadness", "happiness", "surprise", "disgust"]
    labels = ["neutral"] * 425 + rng.choices(emotions, k=75)
    described = LexicalJudge([" ".join(rng.choices(words, k=12)) for _ in labels], labels).describe()
    assert described["held_out_low"] > 0.7  # what the minimum was held against
    with pytest.raises(
        EvaluationError, match=r"84\.0% of 94 held-out texts \(8\d\.\d% are neutral\); mean over"
    ):
        require_quality(described, limits, ["mafw"])
    # However low the minimum, it must be better than a judge that always names the same emotion.
    low = {"minimum_judge_accuracy": 0.01, "minimum_judge_emotions": 0.0}
    with pytest.raises(EvaluationError, match="of a judge that always names the same emotion"):
        require_quality(described, limits.model_copy(update=low), ["mafw"])


def test_a_judge_must_be_measured_on_the_emotions_that_are_tested(limits):
    """One that knew 2 of 11 emotions, and nothing of the others, was right on 100% of 39 texts."""
    rows = [(f"He is angry, shouting number {index}, scowling", "anger") for index in range(100)]
    rows += [(f"She is sad, weeping number {index}, tearful", "sadness") for index in range(100)]
    described = LexicalJudge([text for text, _ in rows], [label for _, label in rows]).describe()
    assert described["held_out_recall"] == 1.0
    said = (
        r"measured on 2 of the 7 emotions of dfew \(with 5 held-out texts or more each\); not on disgust,"
        r" fear, happiness, neutral, surprise\. It must be at least 70% of them"
        r" \(evaluate\.minimum_judge_emotions\)"
    )
    with pytest.raises(EvaluationError, match=said):
        require_quality(described, limits, ["dfew"])
    with pytest.raises(EvaluationError, match="measured on 2 of the 11 emotions of dfew, mafw"):
        require_quality(described, limits, ["dfew", "mafw"])
    require_quality(described, limits.model_copy(update={"minimum_judge_emotions": 0.2}), ["dfew"])


def test_words_about_the_setting_are_no_emotion(judge):
    settings = ["The camera stays close to the head and shoulders.", "The shot is short and has no cut."]
    assert judge.judge(settings, MAFW) == [None, None]


def test_it_knows_a_word_by_its_stem(judge):
    said = ["The person must feel scornful.", "Altogether the person seems worried."]
    assert judge.judge(said, MAFW) == ["contempt", "anxiety"]


def test_equal_texts_make_an_equal_judge(judge):
    rows = texts("b", 40, "judge")[::-1]
    again = LexicalJudge([text for text, _ in rows], [label for _, label in rows])
    assert again.describe() == judge.describe()
    assert (again._model.coef_ == judge._model.coef_).all()
    assert again.digest == judge.digest


def test_another_text_label_or_seed_makes_another_digest(judge):
    rows = texts("b", 40, "judge")
    said, labels = [text for text, _ in rows], [label for _, label in rows]
    others = (
        LexicalJudge([*said, "One text more."], [*labels, "anger"]),
        LexicalJudge(said, ["fear", *labels[1:]]),
        LexicalJudge(said, labels, seed=1),
    )
    assert len({judge.digest, *(other.digest for other in others)}) == 4


def test_csv_and_refusals():
    rows = texts("b", 5, "csv")
    sheet = "text,label\n" + "".join(f'"{text}",{label}\n' for text, label in rows)
    assert LexicalJudge.from_csv(sheet).describe()["trained_on"] > 20
    with pytest.raises(EvaluationError, match="lacks the columns label"):
        LexicalJudge.from_csv("text\nx\n")
    with pytest.raises(EvaluationError, match="'bored' is not a name"):
        LexicalJudge(["x"], ["bored"])
    with pytest.raises(EvaluationError, match="too few"):
        LexicalJudge(["x"], ["anger"])


def test_a_judge_must_not_share_a_sentence_with_the_verifier(judge):
    ours = [sentence for text, _ in texts("a", 5, "verifier") for sentence in split_sentences(text)]
    check_independence(judge.texts, ours)
    shared = split_sentences(judge.texts[0])[-1].upper() + "  "
    with pytest.raises(EvaluationError, match="share the sentence"):
        check_independence(judge.texts, [*ours, shared])


def test_every_clip_needs_a_completion(judge):
    clip = ClipRow(
        "1", "dfew", 1, "test", "happy", "1", None, None, "video", "s3://x", 1, "0" * 64, "", "", None
    )
    text = join(compose_explanation("happiness", stream(0, "x"), "a"))
    completion = f"<think>{text}</think>\n<answer>happiness</answer>"
    (found,) = judge_completions([clip], {"1": completion}, judge)
    assert (found["predicted"], found["judged"]) == ("happy", "happy")
    assert found["sentences"] == len(split_sentences(text))
    with pytest.raises(EvaluationError, match="'1' of dfew has no completion"):
        judge_completions([clip], {}, judge)
