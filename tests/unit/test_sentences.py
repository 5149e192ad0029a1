import re
import time

import pytest

from erv.sentences import Vocabulary, count_words, foreign_script
from erv.verifier import split_sentences

OFFICIAL = re.compile(r'(?<=[.!?])\s+(?=(?:[^"]*"[^"]*")*[^"]*$)')


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("", []),
        (" \n ", []),
        ("One. Two! Three?", ["One.", "Two!", "Three?"]),
        ("no final stop", ["no final stop"]),
        ('He says "No. Never." and goes. Then rests.', ['He says "No. Never." and goes.', "Then rests."]),
        ('A lone " stops. Every split. Before it', ['A lone " stops.', "Every split.", "Before it"]),
        ('First. Second. A lone " quote.', ['First. Second. A lone " quote.']),
        ("Dr. Lee waits.", ["Dr.", "Lee waits."]),
        ("他很难过。她笑了。", ["他很难过。她笑了。"]),
    ],
)
def test_official_splits(text, sentences):
    assert split_sentences(text) == sentences


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("", []),
        ("... !!", []),
        ("Dr. Lee waits at 5 p.m. on Monday. Done.", ["Dr. Lee waits at 5 p.m. on Monday.", "Done."]),
        ("It ends at 5 p.m. Then she leaves.", ["It ends at 5 p.m.", "Then she leaves."]),
        ('She said "Stop it." He left.', ['She said "Stop it."', "He left."]),
        ('First. Second. A lone " quote.', ["First.", "Second.", 'A lone " quote.']),
        ("He trembles… She waits.", ["He trembles…", "She waits."]),
        ("他很难过。她笑了。", ["他很难过。", "她笑了。"]),
        ("one line\nanother line", ["one line", "another line"]),
        ("1. He is sad. 2. She weeps.", ["1. He is sad.", "2. She weeps."]),
        ("It happened in 1998. Then he left.", ["It happened in 1998.", "Then he left."]),
        ("She said no. Then she left.", ["She said no.", "Then she left."]),
        ('He cries "what?!" in a high voice. He sobs.', ['He cries "what?!" in a high voice.', "He sobs."]),
        ('"what?!" in a high voice', ['"what?!" in a high voice']),
        ('"Stop!", he says. "No." She left.', ['"Stop!", he says.', '"No."', "She left."]),
        ("He smiles (or does he?) and nods. Done.", ["He smiles (or does he?) and nods.", "Done."]),
        ("“Why?” – she asks.", ["“Why?” – she asks."]),
        ("He cries! he sobs.", ["He cries!", "he sobs."]),
        ("她喊“什么？！”，声音很高。他走了。", ["她喊“什么？！”，声音很高。", "他走了。"]),
        ("什么？！他走了。", ["什么？！", "他走了。"]),
    ],
)
def test_strict_splits(text, sentences):
    assert split_sentences(text, semantics="strict") == sentences


@pytest.mark.parametrize(
    ("text", "count"), [("", 0), ("two  words.", 2), ("他很难过。", 4), ("他 is sad", 3), ("とても悲しい", 6)]
)
def test_words_of_scripts_without_blanks(text, count):
    assert count_words(text.replace("。", "")) == count


def test_counting_quotes_is_the_released_expression():
    pieces = ['"', "a.", "b! ", ' "c." ', "?", "\n", " ", "d", '."', "e. "]
    texts = [
        "".join(pieces[(i * k + j) % len(pieces)] for j in range(9)) for i in range(40) for k in (1, 3, 7)
    ]
    for text in texts:
        expected = [piece for piece in OFFICIAL.split(text.strip()) if piece]
        assert split_sentences(text) == expected


def test_a_long_text_takes_linear_time():
    text = 'He says "yes." She nods. ' * 20_000
    started = time.perf_counter()
    assert len(split_sentences(text)) == 20_000
    assert time.perf_counter() - started < 5


@pytest.mark.parametrize(
    ("text", "unreadable"),
    [
        ("The voice is loud.", False),
        ("The helicopter lands.", False),
        ("Helikopter landen auf dem Dach.", True),
        ("The Hubschrauber landet dort hinten.", True),  # one word in five is known
        ("声が大きい。", True),
        ("12 34!", False),
        ("", False),
    ],
)
def test_a_text_of_unknown_words_is_unreadable(text, unreadable):
    assert Vocabulary.of(["The voice is loud.", "The face."]).unreadable(text) is unreadable


def test_a_vocabulary_of_characters_reads_chinese():
    known = Vocabulary.of(["他很难过。", "她笑了。"])
    assert not known.unreadable("他很难过了。")
    assert known.unreadable("天气晴朗。")


def test_another_script_is_noticed_without_a_vocabulary():
    said = ["Он очень грустный.", "他很难过。", "Sie wirkt traurig.", "He said 你好 twice.", "123", ""]
    assert [foreign_script(text) for text in said] == [True, True, False, False, False, False]
