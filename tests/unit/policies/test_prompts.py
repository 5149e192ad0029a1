"""The prompt, and how completions are written and read."""

import pytest

from erv.prompts import (
    INSTRUCTION,
    QUESTION,
    format_completion,
    parse_completion,
    user_content,
)


def test_the_instruction_is_the_methods_own():
    assert INSTRUCTION == (
        "As an emotional recognition expert; throughout the video, which emotion conveyed by the characters"
        " is the most obvious to you?  Output the thinking process in <think> </think> and final emotion"
        " in <answer> </answer> tags."
    )
    assert INSTRUCTION.startswith(QUESTION)


def test_placeholders_are_for_what_the_clip_has():
    assert user_content("Q") == "<video>\n<audio>\nQ"
    assert user_content("Q", audio=False) == "<video>\nQ"
    assert user_content("Q", video=False, audio=False) == "Q"


def test_round_trip():
    text = format_completion("The voice is loud.", "anger")
    assert text == "<think>The voice is loud.</think>\n<answer>anger</answer>"
    parsed = parse_completion(text)
    assert (parsed.explanation, parsed.answer, parsed.complete) == ("The voice is loud.", "anger", True)


@pytest.mark.parametrize(
    ("text", "explanation", "answer"),
    [
        ("<answer> fear\n</answer>", None, "fear"),
        ("<think>cut off", None, None),
        ("<think>a</think><answer>sad", "a", None),
        ("<THINK>a</THINK>", None, None),
        ("<think>a\nb</think> x <answer>c</answer><answer>d</answer>", "a\nb", "c"),
    ],
)
def test_broken_completions(text, explanation, answer):
    parsed = parse_completion(text)
    assert (parsed.explanation, parsed.answer) == (explanation, answer)
