"""Sentences are given out as soon as they have ended, and as the verifier reads them in the whole."""

from __future__ import annotations

import pytest

from erv.answering.reading import Growing
from erv.prompts import tagged
from erv.sentences import split_sentences

TEXTS = {
    "plain": "<think>He smiles. She does, too! Why?</think>\n<answer>happiness</answer>",
    "quotes": '<think>"What?!" in a high voice. (He shouts.) At 3 p.m. he goes.</think><answer>fear</answer>',
    "lines": "<think>\n1. He smiles.\n2. He nods\n...\n</think>\n<answer>neutral</answer>",
    "cjk": "<think>他笑了。她哭了！真的吗？」好。</think><answer>sadness</answer>",
    "twice": "<think>One. Two.</think> and <think>Three. Four</think>",
    "less": "<think>It is < 5. 5 </ 6. Yes.</think>",
    "empty": "<think></think>\n<answer>anger</answer>",
    "none": "no tags. at all.",
}


@pytest.mark.parametrize("step", [1, 2, 3, 7])
@pytest.mark.parametrize("name", TEXTS)
def test_sentences_are_those_of_the_whole_however_it_grows(name: str, step: int) -> None:
    text = TEXTS[name]
    growing, given, said = Growing(), "", []
    for end in range(step, len(text) + step, step):
        given += growing.more(text[:end].strip(), ended=end >= len(text))
        said += growing.sentences(ended=end >= len(text))
    assert given == text
    blocks = tagged(text, "think")
    assert said == [one for block in blocks for one in split_sentences(block, semantics="strict")]


def test_a_sentence_waits_until_it_is_sure_that_it_has_ended() -> None:
    growing = Growing()
    for text, expected in (
        ("<think>He smiles.", []),
        ("<think>He smiles. H", ["He smiles."]),
        ("<think>He smiles. He cries</thi", []),
        ("<think>He smiles. He cries</think>", ["He cries"]),
    ):
        growing.more(text)
        assert growing.sentences() == expected


def test_a_cut_explanation_has_its_last_sentence_at_the_end() -> None:
    growing = Growing()
    growing.more("<think>He smiles. He cr", ended=True)
    assert growing.sentences(ended=True) == ["He smiles.", "He cr"]


def test_half_a_character_waits() -> None:
    growing = Growing()
    assert growing.more("caf\ufffd") == "caf"
    assert growing.more("café") == "é"
    assert growing.more("café \ufffd", ended=True) == " \ufffd", "it was written like that"
