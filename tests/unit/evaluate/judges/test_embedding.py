"""The pretrained encoder as a judge; its weights are the real ones."""

import random
import shutil

import numpy as np
import pytest
import torch

from erv.errors import EvaluationError
from erv.evaluate.judges.embedding import EmbeddingJudge
from erv.evaluate.judges.encoder import SentenceEncoder
from erv.evaluate.judges.protocol import OUTSIDE, SILENT, UNREADABLE, Verdict
from erv.evaluate.judges.worth import judge_quality, measure_worth, read_labelled
from erv.labels import LabelSpace
from tests.support.paths import ROOT
from tests.unit.evaluate.judges.test_lexical import FOREIGN

MAFW, DFEW = LabelSpace.load("mafw"), LabelSpace.load("dfew")


@pytest.fixture(scope="session")
def judge(encoder):
    return EmbeddingJudge(encoder)


def named(*emotions):
    return [Verdict("named", emotion) for emotion in emotions]


def test_it_knows_every_emotion_by_its_words(judge):
    said = {
        "She looks enraged.": "anger",
        "The smell makes him sick.": "disgust",
        "She looks frightened to death.": "fear",
        "She looks delighted.": "happiness",
        "She looks tearful.": "sadness",
        "He is utterly calm.": "neutral",
        "He is startled and gasps.": "surprise",
        "She looks scornful.": "contempt",
        "He paces, uneasy.": "anxiety",
        "She sees no way out.": "helplessness",
        "He hoped for more and was let down.": "disappointment",
    }
    assert judge.judge(list(said), MAFW) == named(*said.values())


def test_the_sentences_that_say_nothing_do_not_count(judge):
    about = ["The camera stays close to the head and shoulders.", "The shot is short and has no cut."]
    assert judge.judge(about, MAFW) == [SILENT, SILENT]
    assert judge.judge([" ".join([*about, "The person seems worried."])], MAFW) == named("anxiety")


def test_what_is_no_emotion_is_never_neutral(judge):
    assert judge.judge([None, "", "  ", "..."], MAFW) == [SILENT] * 4
    assert judge.judge([], MAFW) == []
    assert judge.judge([*FOREIGN, "Zxqv wplk."], MAFW) == [UNREADABLE] * 4
    both = "The voice is full of joy. The voice is full of joy. The person must feel scared and frightened."
    assert judge.judge([both], MAFW)[0].emotion != "neutral"
    even = "The person feels angry. The person feels sad."
    assert judge.judge([even], MAFW) == [SILENT]


def test_an_emotion_that_the_data_set_lacks_is_outside(judge):
    said = ["The person must feel scornful.", "Altogether the person seems happy."]
    assert judge.judge(said, DFEW) == [OUTSIDE, Verdict("named", "happy")]


def test_a_space_with_emotions_of_its_own_needs_no_texts(judge, tmp_path):
    path = tmp_path / "theatre.yaml"
    path.write_text(
        "name: theatre\nlabels:\n"
        "  - {id: 1, name: awe, synonyms: [awed, wonder]}\n"
        "  - {id: 2, name: boredom, synonyms: [bored]}\n"
        "  - {id: 3, name: mirth, synonyms: [happy, joy]}\n"
        "maps:\n  mafw: {awe: surprise, mirth: happiness}\n"
    )
    space = LabelSpace.load(path)
    assert judge.knows(space) == ("awe", "boredom", "mirth")
    said = ["She gazes at it in awe.", "He yawns, bored to death.", "They are happy.", "They are furious."]
    assert judge.judge(said, space) == [*named("awe", "boredom", "mirth"), OUTSIDE]


def test_an_emotion_under_another_name_is_no_rival(judge, tmp_path):
    """The map says that contentment is what MAFW calls happiness, as the lexical judge has it."""
    path = tmp_path / "moods.yaml"
    labels = "[{{id: 1, name: contentment}}, {{id: 2, name: rancour}}]"
    text = "name: {}\nlabels: " + labels + "\n{}"
    path.write_text(text.format("moods", "maps: {mafw: {contentment: happiness, rancour: anger}}"))
    said = ["The person feels happy.", "The person seems scornful."]
    assert judge.judge(said, LabelSpace.load(path)) == [Verdict("named", "contentment"), OUTSIDE]
    bare = tmp_path / "bare.yaml"
    bare.write_text(text.format("bare", ""))
    assert judge.judge(said, LabelSpace.load(bare)) == [OUTSIDE, OUTSIDE]


def test_a_verdict_does_not_depend_on_what_else_is_read(judge, encoder_at):
    rows = [row.text for row in read_labelled(ROOT / "data/judge_texts/policies.csv")][:12]
    together = judge.judge(rows, MAFW)
    shuffled = random.Random(0).sample(rows, len(rows))
    other = EmbeddingJudge(SentenceEncoder(encoder_at))
    by_text = dict(zip(shuffled, other.judge(shuffled, MAFW), strict=True))
    assert together == [by_text[text] for text in rows]
    assert together[:3] == [judge.judge([text], MAFW)[0] for text in rows[:3]]


def test_a_vector_is_the_same_in_every_company(encoder_at):
    sentence = "The voice trembles, full of fear."
    alike = [f"The voice trembles, full of {word}." for word in ("joy", "anger", "scorn", "love", "hope")]
    one, other = SentenceEncoder(encoder_at), SentenceEncoder(encoder_at)
    alone = one.encode([sentence])[0]
    assert np.array_equal(alone, other.encode(["A.", *alike * 3, sentence, "A longer one " * 20])[-2])
    assert np.array_equal(one.encode(alike), other.encode(alike[::-1])[::-1])


def test_it_is_the_mean_of_the_last_states(encoder, encoder_at):
    from transformers import AutoModel, AutoTokenizer

    model, tokenizer = AutoModel.from_pretrained(encoder_at), AutoTokenizer.from_pretrained(encoder_at)
    with torch.inference_mode():
        states = model(**tokenizer("She weeps.", return_tensors="pt")).last_hidden_state[0]
    wanted = torch.nn.functional.normalize(states.mean(dim=0), dim=0)
    assert np.allclose(encoder.encode(["She weeps."])[0], wanted.numpy(), atol=1e-6)


def test_its_worth_on_explanations_by_policies_is_what_the_documentation_says(judge):
    worth = measure_worth(judge, read_labelled(ROOT / "data/judge_texts/policies.csv"))
    said = judge_quality({"worth": worth})
    assert said.startswith("right on 94.9% of 177 hand-labelled explanations (15.8% are anxiety)")
    params = (ROOT / "params.yaml").read_text()
    assert "embedding is right on 94.9% of 177 (lower end of the mean over emotions 90.1%)" in params
    assert round(100 * worth["recall_low"], 1) == 90.1


def test_an_equal_judge_has_an_equal_digest(judge, encoder_at, tmp_path):
    described = judge.describe()
    assert EmbeddingJudge(SentenceEncoder(encoder_at)).describe() == described
    other = shutil.copytree(encoder_at, tmp_path / "other")
    (other / "NOTICE.txt").write_text("changed")
    assert EmbeddingJudge(SentenceEncoder(other)).describe()["digest"] != described["digest"]


def test_what_is_no_encoder_is_refused_in_one_sentence(encoder_at, tmp_path):
    with pytest.raises(EvaluationError, match=r"gone: no sentence encoder in it; .*`erv data encoder`"):
        SentenceEncoder(tmp_path / "gone")
    cut = shutil.copytree(encoder_at, tmp_path / "cut")
    weights = (cut / "model.safetensors").read_bytes()
    (cut / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(EvaluationError, match="can't be loaded as an encoder"):
        SentenceEncoder(cut)
