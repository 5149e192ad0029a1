"""What the demo's verifier can do, on sentences written by hand; and `erv verify`, which shows it."""

from pathlib import Path
from statistics import fmean

import click
import pytest
import torch
import yaml
from click.testing import CliRunner

from erv.cli import command, main
from erv.labels import LabelSpace
from erv.rewards import explanation_reward
from erv.sentences import normalize
from erv.train_erv.behaviour import ABILITIES, check_behaviour, load_cases
from erv.training.grpo.drift import measure
from erv.verifier import EmotionVerifier
from tests.support.demo_verifier import train_demo_verifier

JOY = "A broad smile spreads over the face, full of joy."


@pytest.fixture(scope="module")
def demo(tmp_path_factory, root):
    folder = tmp_path_factory.mktemp("demo")
    return folder / "verifier", train_demo_verifier(folder, root / "params.yaml")


@pytest.mark.parametrize("ability", ABILITIES)
def test_the_demo_verifier_can(demo, ability):
    """It is small and learns from a small world: six in ten are asked for, in words that it never read."""
    found = demo[1]["behaviour"][ability]
    assert found["passed"] / found["total"] >= 0.6, found["failed"]
    assert found["passed"] + len(found["failed"]) == found["total"] >= 8


def test_the_demo_verifier_reads_held_out_sentences(demo):
    metrics = demo[1]
    assert metrics["macro_f1"] > 0.9
    assert metrics["calibration_error"] < 0.02
    assert metrics["named_calibration_error"] < 0.1
    assert metrics["without_support"] == []
    assert {source: part["macro_f1"] > 0.8 for source, part in metrics["by_source"].items()} == {
        "reasoning": True,
        "sentences": True,
    }


def test_the_corpus_of_the_demo_has_no_sentence_of_a_case(demo):
    """With another seed one might; it would be left out, as here."""
    assert {ability: found["known"] for ability, found in demo[1]["behaviour"].items()} == dict.fromkeys(
        ABILITIES, 0
    )
    cases = load_cases()
    known = {normalize(cases["directional"][0]["plain"]), normalize(cases["invariance"][0]["texts"][1])}
    found = check_behaviour(Same(), known)
    assert {ability: found[ability]["known"] for ability in ABILITIES} == {
        "minimum": 0,
        "negation": 0,
        "invariance": 1,
        "directional": 1,
    }
    assert found["invariance"]["total"] == len(cases["invariance"]) - 1


class Keywords:
    """Hears an emotion wherever one of its words is: what a verifier must be more than."""

    labels = LabelSpace.load("mafw").names

    def predict(self, sentences):
        space = LabelSpace.load("mafw")
        rows = torch.zeros(len(sentences), len(self.labels))
        for row, text in zip(rows, sentences, strict=True):
            for name in space.named_in(text) or ("neutral",):
                row[self.labels.index(name)] = 0.9
        return rows


class Same:
    """Reads the same in all sentences."""

    labels = LabelSpace.load("mafw").names

    def predict(self, sentences):
        rows = torch.zeros(len(sentences), len(self.labels))
        rows[:, self.labels.index("anger")] = 0.9
        return rows


def test_cases_can_fail():
    keywords, same = check_behaviour(Keywords()), check_behaviour(Same())
    assert keywords["negation"]["passed"] < 4
    assert any("not angry" in line for line in keywords["negation"]["failed"])
    assert keywords["invariance"]["passed"] == keywords["invariance"]["total"]
    assert same["minimum"]["passed"] == 1
    assert same["directional"]["passed"] == 0
    assert same["invariance"]["passed"] == same["invariance"]["total"]


def test_every_emotion_has_its_plain_sentence():
    cases = load_cases()
    assert [case["label"] for case in cases["minimum"]] == list(LabelSpace.load("mafw").names)
    assert set(cases) == set(ABILITIES)


# --- erv verify ---


def verify(demo, *arguments, **options):
    result = CliRunner().invoke(
        command, ["verify", "--verifier", str(demo[0]), *arguments], catch_exceptions=False, **options
    )
    assert result.exit_code == 0, result.output
    return result.output


def failure(demo, capsys, *arguments):
    with pytest.raises(SystemExit) as stopped:
        main(["verify", "--verifier", str(demo[0]), *arguments])
    assert stopped.value.code != 0
    message = capsys.readouterr().err
    assert message.startswith("error: ")
    assert message.count("\n") == 1
    return message


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Outside of a workspace: the library's own rule holds."""
    monkeypatch.chdir(tmp_path)


def test_sentences_with_labels_reward_and_why(demo):
    text = f"{JOY} She weeps with sadness. {JOY} He is happy, sad and angry. The camera stays close."
    lines = verify(demo, text, "--target", "happy").splitlines()
    assert lines[0].startswith("+ happiness 0.9")
    assert lines[0].endswith(f"{JOY} (said 2 times)")
    assert lines[1].startswith("- sadness 0.")
    assert lines[2].startswith("- ")
    assert lines[3].startswith("  neutral ")
    assert lines[4:] == [
        "explanation reward for happiness (--target): -1.00 (strict)",
        "  1 of 3 sentences that are not merely neutral speak of happiness",
        "  1 repeated, more than 0, so it earns -1",
        "  1 names more than 2 emotions, and so matches none",
        "  content words 4, cues of face, body, voice or words 2, where 5 and 1 are required: times 0.80",
    ]


def test_short_explanations_say_what_is_missing(demo):
    lines = verify(demo, "A smile, full of joy.", "--target", "happiness").splitlines()
    assert lines[1:] == [
        "explanation reward for happiness (--target): 0.06 (strict)",
        "  1 of 1 sentences that are not merely neutral speak of happiness",
        "  at least 3 such sentences are required: counted as 3",
        "  5 words where 6 to 300 are required: times 0.83",
        "  content words 1, cues of face, body, voice or words 1, where 5 and 1 are required: times 0.20",
    ]


def test_scenery_and_repeated_conclusions_say_that_they_do_not_count(demo):
    text = f"{JOY} She is happy. He is happy. In the video, the man in a dark suit stands."
    lines = verify(demo, text, "--target", "happiness").splitlines()
    assert lines[2].startswith("  happiness ")
    assert lines[3].startswith("  none (")
    assert "  1 with no emotion above its threshold, not counted" in lines
    assert "  1 that only name happiness once more, not counted" in lines


def test_a_terminal_gets_colours_and_a_file_gets_none(demo):
    assert click.style(JOY, fg="yellow") in verify(demo, JOY, color=True)
    assert "\x1b" not in verify(demo, JOY)


def test_a_completion_is_held_against_its_own_answer(demo):
    assert "happiness (its own answer): 0.27" in verify(demo, f"<think>{JOY}</think>\n<answer>happy</answer>")
    assert "reward" not in verify(demo, f"<think>{JOY}</think>\n<answer>who knows</answer>")
    assert "reward" not in verify(demo, JOY)


def test_a_file_or_standard_input(demo, tmp_path):
    (tmp_path / "said.txt").write_text(JOY, encoding="utf-8-sig")
    from_file = verify(demo, "said.txt", "--target", "happiness")
    assert from_file == verify(demo, JOY, "--target", "happiness")
    assert from_file == verify(demo, "--target", "happiness", input=JOY)


def test_the_workspace_decides_how_sentences_are_read(demo, root, tmp_path):
    params = (root / "params.yaml").read_text()
    (tmp_path / "params.yaml").write_text(params.replace("semantics: strict ", "semantics: official "))
    lines = verify(demo, f"{JOY} {JOY}", "--target", "happiness").splitlines()
    assert len(lines) == 4
    assert lines[2:] == [
        "explanation reward for happiness (--target): 1.00 (official)",
        "  2 of 2 sentences that are not merely neutral speak of happiness",
    ]


def test_what_can_not_be_verified(demo, capsys, tmp_path):
    (tmp_path / "bytes.txt").write_bytes(b"joy \xff\xfe")
    assert "bytes.txt: not UTF-8 text (byte 4)" in failure(demo, capsys, "bytes.txt")
    assert "missing.txt: no such file" in failure(demo, capsys, "missing.txt")
    assert "the text has no explanation with a sentence" in failure(demo, capsys, "...")
    assert "the text has no explanation with a sentence" in failure(
        demo, capsys, "<think></think><answer>happy</answer>"
    )
    assert "'boredom' is not an emotion of the MAFW space: anger" in failure(
        demo, capsys, JOY, "--target", "boredom"
    )


def test_very_long_text_is_no_file_name(demo):
    assert verify(demo, "He is in rage. " * 6000, "--target", "anger").count("(said 6000 times)") == 1
    assert verify(demo, "x" * 300 + ". Rage.").count("\n") == 2


def test_a_classifier_of_goemotions_is_a_verifier(demo, tmp_path):
    verifier = EmotionVerifier.from_pretrained(demo[0])
    assert Path(demo[0] / "README.md").read_text().startswith("---\nlibrary_name: transformers")
    assert verifier.predict([JOY])[0, verifier.labels.index("happiness")] > 0.9


# --- the explanation reward on explanations written by hand ---


@pytest.fixture(scope="module")
def handwritten(demo, root):
    """Mean rewards of each group in tests/support/explanations.yaml."""
    groups = yaml.safe_load((root / "tests/support/explanations.yaml").read_text(encoding="utf-8"))
    reward = explanation_reward(EmotionVerifier.from_pretrained(demo[0]))
    return {
        name: reward([f"<think>{item['text']}</think>" for item in items], [item["truth"] for item in items])
        for name, items in groups.items()
    }


def test_textbook_explanations_earn_and_stuffing_does_not(handwritten):
    """Before scenery and stuffing were told from evidence, the means were 0.91, 0.17, 0.90 and 0.00."""
    assert sum(map(len, handwritten.values())) >= 40
    assert fmean(handwritten["textbook"]) > 0.8
    assert min(handwritten["textbook"]) > 0.5
    for name in ("scenery", "stuffing", "contradiction"):
        assert max(handwritten[name]) == 0.0, name


def test_other_languages_are_unreadable_and_earn_nothing(demo, handwritten, root):
    """Four sorrowful Chinese sentences earned 1.00 for anger."""
    assert handwritten["foreign"] == [0.0] * 4
    groups = yaml.safe_load((root / "tests/support/explanations.yaml").read_text(encoding="utf-8"))
    verifier = EmotionVerifier.from_pretrained(demo[0])
    readable = {"textbook": 0.0, "scenery": 0.0, "contradiction": 0.0, "foreign": 1.0}
    for name, share in readable.items():
        texts = [f"<think>{item['text']}</think>" for item in groups[name]]
        assert measure(texts, verifier=verifier)["explanations/unreadable"] == share, name
    assert "explanations/unreadable" not in measure(["<think>Joy.</think>"], verifier=Same())
    lines = verify(demo, f"{JOY} {groups['foreign'][0]['text']}", "--target", "happiness").splitlines()
    assert lines[1].startswith("  unreadable ")
    assert "  4 in words that the verifier has not been trained on, not counted" in lines


def test_the_vocabulary_is_in_the_folder(demo):
    words = (demo[0] / "vocabulary.txt").read_text().split()
    assert words == sorted(set(words))
    assert {"smile", "angry"} <= set(words)
