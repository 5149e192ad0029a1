"""Loopholes in the released reward code, each closed: `official` pays, `strict` does not.

`official` reproduces these loopholes on purpose; `strict` is the default.
"""

from dataclasses import asdict, replace

import pytest
import torch

from erv.rewards import NO_SHAPING, Shaping, accuracy_reward, explanation_reward, format_reward
from erv.sentences import Vocabulary
from erv.settings.grpo import ShapingSettings
from erv.verifier import split_sentences

LABELS = ("anger", "disgust", "fear", "happiness", "neutral", "sadness")


class WordVerifier:
    """Hears an emotion wherever its word is in a sentence, and neutral where there is none."""

    labels = LABELS

    def predict(self, sentences):
        words = {"anger": "rage", "fear": "afraid", "happiness": "joy", "sadness": "tears", "disgust": "foul"}
        rows = []
        for sentence in sentences:
            row = [0.9 if words.get(label, label) in sentence.lower() else 0.0 for label in LABELS]
            if not any(row):
                row[LABELS.index("neutral")] = 0.9
            rows.append(row)
        return torch.tensor(rows)


def explain(text, truth="anger", **columns):
    """(official, strict) rewards of an explanation, the strict one without shaping."""
    completion = text if "<think>" in text else f"<think>{text}</think>\n<answer>{truth}</answer>"
    return tuple(
        explanation_reward(WordVerifier(), semantics=semantics, shaping=NO_SHAPING)(
            [completion], [f"<answer>{truth}</answer>"], **columns
        )[0]
        for semantics in ("official", "strict")
    )


def answer(text, truth, dataset):
    """(official, strict) rewards of an answer."""
    return tuple(
        accuracy_reward([f"<think>x</think>\n{text}"], [truth], [dataset], semantics=semantics)[0]
        for semantics in ("official", "strict")
    )


# --- accuracy ---


@pytest.mark.parametrize(
    ("truth", "dataset"), [("Happy", "mafw"), ("happy", "mafw"), ("Happiness", "dfew"), ("anger", "dfew")]
)
def test_the_truth_is_normalised_too(truth, dataset):
    right = "happy" if "app" in truth else "angry"
    assert answer(f"<answer>{right}</answer>", truth, dataset) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("said", "truth", "dataset"),
    [
        ("unhappy", "happiness", "mafw"),
        ("not happy", "happiness", "mafw"),
        ("danger", "angry", "dfew"),
        ("unhappiness", "happy", "dfew"),
        ("uncontemptuous", "contempt", "mafw"),
    ],
)
def test_a_part_of_a_word_is_no_answer(said, truth, dataset):
    assert answer(f"<answer>{said}</answer>", truth, dataset) == (1.0, 0.0)


def test_an_answer_may_stand_on_a_line_of_its_own():
    assert answer("<answer>\nsadness\n</answer>", "sadness", "mafw") == (0.0, 1.0)


@pytest.mark.parametrize(
    "said", ["happy, sad, angry", "happy or sad", "happy</answer><answer>sad", "sad happy anger fear"]
)
def test_several_answers_are_no_answer(said):
    assert answer(f"<answer>{said}</answer>", "happiness", "mafw") == (1.0, 0.0)


def test_a_word_in_a_text_without_tags_is_no_answer():
    assert answer("I would say she is happy about it.", "happiness", "mafw") == (1.0, 0.0)


# --- format ---


@pytest.mark.parametrize(
    "text",
    [
        "<think>a</think><answer>b</answer><answer>c</answer>",
        "<think>a</think><think>b</think><answer>c</answer>",
        "<think></think><answer></answer>",
        "<think>  </think><answer>b</answer>",
    ],
)
def test_further_or_empty_blocks_are_no_format(text):
    assert format_reward([text], semantics="official") == [1.0]
    assert format_reward([text]) == [0.0]


def test_a_newline_at_the_end_is_no_fault():
    text = "<think>a</think>\n<answer>b</answer>\n"
    assert format_reward([text], semantics="official") == [0.0]
    assert format_reward([text]) == [1.0]


# --- explanation ---


def test_one_sentence_said_ten_times_counts_once():
    text = " ".join(["She is in rage."] * 9 + ["He is full of joy."])
    assert explain(text) == (0.9, 0.5)


def test_case_and_punctuation_make_no_new_sentence():
    assert explain("Pure rage. pure rage! PURE, RAGE... Joy here.") == (0.75, 0.5)


def test_a_lone_quote_does_not_swallow_the_sentences_before_it():
    text = 'Rage in the eyes. Joy in the voice. Then a lone " quote.'
    assert split_sentences(text) == [text]
    assert explain(text) == (1.0, 0.5)


def test_a_stop_inside_quotes_ends_its_sentence():
    assert explain('He shouts "rage." He hums with joy.') == (1.0, 0.5)


def test_an_abbreviation_ends_no_sentence():
    assert explain("Dr. Joy is in rage.", "happiness") == (1.0, 1.0)
    assert len(split_sentences("Dr. Joy is in rage.")) == 2
    assert len(split_sentences("Dr. Joy is in rage.", semantics="strict")) == 1


def test_an_explanation_hidden_behind_a_second_block_is_read():
    text = "<think>Rage.</think><think>Joy. Tears. Foul.</think>\n<answer>anger</answer>"
    assert explain(text) == (1.0, 0.25)


class NeutralBeside(WordVerifier):
    """Neutral beside every emotion."""

    def predict(self, sentences):
        rows = super().predict(sentences)
        rows[:, LABELS.index("neutral")] = 0.5
        return rows


def test_neutral_is_nothing_beside_an_emotion():
    """The hole: a sentence of rage counts for a neutral truth as well."""
    text, truth = ["<think>He is in rage.</think>"], ["neutral"]
    assert explanation_reward(NeutralBeside(), semantics="official")(text, truth) == [1.0]
    assert explanation_reward(NeutralBeside(), shaping=NO_SHAPING)(text, truth) == [0.0]


def test_the_truth_is_read_in_its_own_space():
    """The released code reads every truth by the rules of MAFW, of which `fearful` is no name."""
    assert explain("She is afraid.", "fearful", dataset=["ravdess"]) == (None, 1.0)


# --- shaping: off in official, on in strict ---

EMOTIONS = "There is anger, fear, happiness and rage here now."


def shaped(text, truth="anger", verifier=None, **parts):
    """Rewards of an explanation: without shaping, and with the given parts of it alone."""
    completion = f"<think>{text}</think>"
    return tuple(
        explanation_reward(verifier or WordVerifier(), shaping=replace(NO_SHAPING, **chosen))(
            [completion], [truth]
        )[0]
        for chosen in ({}, parts)
    )


def test_a_sentence_that_lists_emotions_matches_none():
    assert shaped(EMOTIONS, max_named=2) == (1.0, 0.0)
    assert shaped(EMOTIONS, "neutral", max_named=2) == (0.0, 0.0)
    assert shaped("Rage, or anger and annoyed: one emotion.", max_named=2) == (1.0, 1.0)
    assert shaped("Plain text. " + EMOTIONS, "happiness", max_named=2)[1] == 0.0


def test_few_sentences_earn_in_proportion():
    assert shaped("He is in rage.", min_sentences=3) == (1.0, pytest.approx(1 / 3))
    assert shaped("He is in rage. He is in rage. He is in rage.", min_sentences=3) == (
        1.0,
        pytest.approx(1 / 3),
    )
    assert shaped("Rage 1. Rage 2. Rage 3.", min_sentences=3) == (1.0, 1.0)


def test_too_few_and_too_many_words_earn_in_proportion():
    assert shaped("Rage.", min_words=4) == (1.0, 0.25)
    assert shaped("Rage " + "on and on " * 33 + ".", max_words=50)[1] == pytest.approx(0.5, abs=0.01)
    assert shaped("He is in rage.", min_words=4, max_words=4) == (1.0, 1.0)


def test_an_empty_explanation_earns_nothing():
    for text in ("", " ", "...", "\n\n", '"'):
        for truth in ("anger", "neutral"):
            assert shaped(text, truth, min_sentences=3)[1] == 0.0


@pytest.mark.parametrize("text", ["Rage.", "He is in rage. He is in rage.", EMOTIONS])
def test_official_knows_no_shaping(text):
    completion = [f"<think>{text}</think>"]
    plain = explanation_reward(WordVerifier(), semantics="official")(completion, ["anger"])
    asked = explanation_reward(WordVerifier(), semantics="official", shaping=Shaping(9, 99, 100, 1))
    assert asked(completion, ["anger"]) == plain == [1.0]


@pytest.mark.parametrize("text", ["Rage.", "Joy. Rage. Tears.", EMOTIONS, "Rage " * 500, ""])
def test_shaping_only_ever_lowers_a_reward(text):
    for truth in LABELS:
        plain, strict = (
            explanation_reward(WordVerifier(), shaping=shaping)([f"<think>{text}</think>"], [truth])[0]
            for shaping in (NO_SHAPING, Shaping())
        )
        assert 0.0 <= strict <= plain <= 1.0


# --- evidence ---


class Unsure(WordVerifier):
    """Hears a little anger in everything, below the threshold unless its word is there."""

    thresholds = (0.5,) * len(LABELS)

    def predict(self, sentences):
        rows = super().predict(sentences)
        rows[:, LABELS.index("neutral")] = 0.0
        rows[:, LABELS.index("anger")] = rows[:, LABELS.index("anger")].clamp(min=0.19)
        return rows


@pytest.mark.parametrize(
    ("text", "truth", "official", "strict"),
    [
        ("A man stands by the door. The wall is white.", "anger", 1.0, 0.0),
        ("A man stands by the door. The wall is white.", "neutral", 0.0, 0.0),
        ("A man stands by the door. She sings with joy.", "happiness", 0.5, 1.0),
        ("A man stands by the door. He shouts in rage.", "anger", 1.0, 1.0),
        ("A man stands by the door. He shouts in rage.", "happiness", 0.0, 0.0),
    ],
)
def test_a_sentence_without_an_emotion_above_its_threshold_is_scenery(text, truth, official, strict):
    for semantics, expected in (("official", official), ("strict", strict)):
        reward = explanation_reward(Unsure(), semantics=semantics, shaping=NO_SHAPING)
        assert reward([f"<think>{text}</think>"], [truth]) == [expected]


def test_words_without_evidence_earn_nothing():
    stuffed = "Rage. Anger and rage. Angry, furious rage."
    assert shaped(stuffed, min_cues=1) == (1.0, 0.0)
    assert shaped(stuffed, min_content_words=5) == (1.0, 0.0)
    assert shaped("The man is in rage at the table.", min_cues=1) == (1.0, 0.0)
    assert shaped("He shouts in rage.", min_cues=1) == (1.0, 1.0)
    assert shaped('He is in rage: "Leave my house!"', min_cues=1) == (1.0, 1.0)
    assert shaped('He is in "rage".', min_cues=1) == (1.0, 0.0)
    assert shaped("Rage in a face.", min_cues=2) == (1.0, 0.5)


def test_few_words_besides_emotions_earn_in_proportion():
    few = "Rage in the face. Rage in the voice. Rage in the eyes."
    assert shaped(few, min_content_words=5) == (1.0, pytest.approx(3 / 5))
    # Words that are only heaped around the name are none.
    assert shaped("Rage face. Rage voice. Rage eyes.", min_content_words=5) == (1.0, 0.0)
    spoken = "His fists are clenched in rage. He shouts at the door in rage."
    assert shaped(spoken, min_content_words=4) == (1.0, 1.0)
    # Only sentences that match are evidence for the truth.
    assert shaped("Rage in a face. The tall trees stand in long rows.", min_content_words=5)[
        1
    ] == pytest.approx(0.2)


def test_one_conclusion_counts_and_further_ones_do_not():
    shown = "His fists are clenched in rage."
    assert shaped(f"{shown} He is in rage.", min_sentences=3, max_conclusions=1)[1] == pytest.approx(2 / 3)
    more = f"{shown} He is in rage. Rage! Angry, pure rage."
    assert shaped(more, min_sentences=3, max_conclusions=1)[1] == pytest.approx(2 / 3)
    assert shaped(more, min_sentences=3)[1] == 1.0
    # A conclusion that contradicts counts, however many there are.
    assert shaped(f"{shown} Joy. Pure joy. Full of joy.", max_conclusions=1) == (0.25, 0.25)


def test_an_explanation_that_repeats_itself_earns_nothing_or_less():
    """Counted once, a repetition is free: trained so, a policy repeated itself in 40% of its explanations."""
    shown = "His fists are clenched in rage. He shouts in rage."
    again = f"{shown} He shouts in rage."
    assert shaped(again, max_repeats=0) == (1.0, 0.0)
    assert shaped(again, max_repeats=1) == (1.0, 1.0)
    assert shaped(shown, max_repeats=0) == (1.0, 1.0)
    # Scenery, which doesn't count, isn't free to repeat either.
    assert shaped(f"{shown} Trees stand in rows. Trees stand in rows.", max_repeats=0)[1] == 0.0
    assert shaped(again, max_repeats=0, repeats_earn=-0.5) == (1.0, -0.5)
    assert shaped(again, max_repeats=1, repeats_earn=-0.5) == (1.0, 1.0)
    # What would earn nothing anyway, on the wrong emotion or without one, isn't free to repeat itself.
    for text in ("He smiles with joy. He smiles with joy.", "Trees stand in rows. Trees stand in rows."):
        assert shaped(text, max_repeats=0, repeats_earn=-0.5) == (0.0, -0.5)
    with pytest.raises(ValueError, match="repeats_earn"):
        ShapingSettings.model_validate(asdict(Shaping(repeats_earn=0.1)))


@pytest.mark.parametrize(
    "text",
    [
        "Die Stimme bebt vor Rage. Er schlägt auf den Tisch.",
        "彼は大きな声で叫んでいて怒り rage が見える。声が大きい。",
    ],
)
def test_the_lists_leave_a_verifier_of_another_language_alone(text):
    """They are English: what such a verifier was trained on, they can't judge."""
    verifier = WordVerifier()
    verifier.vocabulary = Vocabulary.of([text])
    assert shaped(text, verifier=verifier, min_cues=1, min_content_words=5, max_conclusions=1) == (1.0, 1.0)


def test_odd_words_are_no_other_language():
    """A text whose words the lists don't have earned 1.0: they took it for another language."""
    text = "Rage danger away whites wide narrow. Rage sudden danger wide whites away."
    assert shaped(text, min_cues=1, min_content_words=5) == (1.0, 0.0)


# --- bad input: defined, and no crash of a training step ---

LONG = 100_000
BABBLE = {
    "unclosed think": "<think>" * (LONG // 7),
    "unclosed answers": "<answer>" * (LONG // 8),
    "closing tags": "</think>" * (LONG // 8),
    "pairs": "<think>" + "</think><answer>" * (LONG // 16),
    "spaces": "<think>a" + " " * LONG + "b</think>" + " " * LONG + "<answer>anger</answer>",
    "one word": "<think>" + "a" * LONG + "! b</think><answer>anger</answer>",
    "dots": "<think>" + ". " * (LONG // 2) + "</think><answer>anger</answer>",
    "abbreviations": "<think>" + "Dr. " * (LONG // 4) + "</think><answer>anger</answer>",
    "quotes": "<think>a." + '"' * LONG + " b</think><answer>anger</answer>",
    "sentences": "<think>" + "Rage. " * (LONG // 6) + "</think><answer>anger</answer>",
    "newlines": "<think>a" + "\n" * LONG + "b</think><answer>\n" + "\n" * LONG + "</answer>",
    "surrogates": "<think>" + "\ud800" * LONG + "</think><answer>\udfff</answer>",
    "nothing": "",
    "NUL": "\x00" * LONG,
}


@pytest.mark.timeout(60)  # some took hours: expressions that look to the end of the text from each tag
@pytest.mark.parametrize("semantics", ["official", "strict"])
@pytest.mark.parametrize("name", BABBLE)
def test_whatever_a_policy_babbles_is_scored(name, semantics):
    text = BABBLE[name]
    explanation = explanation_reward(WordVerifier(), semantics=semantics)
    for reward in (format_reward, accuracy_reward):
        assert reward([text], solution=["anger"], dataset=["mafw"], semantics=semantics)[0] in (0.0, 1.0)
    assert -1.0 <= explanation([text], ["anger"])[0] <= 1.0


@pytest.mark.parametrize("semantics", ["official", "strict"])
def test_empty_batches_and_unknown_truths(semantics):
    explanation = explanation_reward(WordVerifier(), semantics=semantics)
    assert format_reward([], semantics=semantics) == []
    assert accuracy_reward([], [], [], semantics=semantics) == []
    assert explanation([], []) == []
    assert explanation(["<think>Rage.</think>"] * 2, ["", "<answer>boredom</answer>"]) == [None, None]
    unknown = accuracy_reward(["<answer>boredom</answer>"], ["boredom"], ["mafw"], semantics=semantics)
    assert unknown == [1.0 if semantics == "official" else None]
