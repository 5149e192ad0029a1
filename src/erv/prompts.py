"""The question that every policy is asked, and the format of its answer.

The wording is the method's own (R1-Omni, ERV): the same question for every clip, followed by two spaces and
the sentence that asks for reasoning and answer in tags.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

Completion = str | list[dict[str, Any]]  # as TRL hands them to rewards: a text, or messages

QUESTION = (
    "As an emotional recognition expert; throughout the video, which emotion conveyed by the characters is"
    " the most obvious to you?"
)
OUTPUT_FORMAT = (
    "Output the thinking process in <think> </think> and final emotion in <answer> </answer> tags."
)
INSTRUCTION = f"{QUESTION}  {OUTPUT_FORMAT}"

VIDEO_PLACEHOLDER = "<video>"
AUDIO_PLACEHOLDER = "<audio>"
DIRECT_BEGINNING = "<think></think>\n<answer>"  # of a completion that answers without thinking
TAGS = ("<think>", "</think>", "<answer>", "</answer>")
_NO_TAG = r"((?:(?!(?i:</?(?:think|answer)\b)).)*)"
_WELL_FORMED = re.compile(rf"\s*<think>{_NO_TAG}</think>\s*<answer>{_NO_TAG}</answer>\s*", re.DOTALL)


@dataclass(frozen=True)
class Parsed:
    """What a completion says: explanation and answer, each None when its tags are missing or unclosed."""

    explanation: str | None
    answer: str | None

    @property
    def complete(self) -> bool:
        """Whether both parts are there."""
        return self.explanation is not None and self.answer is not None


def format_completion(explanation: str, answer: str) -> str:
    """The target completion of a clip: `<think>…</think>`, a line break, `<answer>…</answer>`."""
    return f"<think>{explanation}</think>\n<answer>{answer}</answer>"


def parse_completion(text: str) -> Parsed:
    """Reads the first think block and the first answer block, stripped of outer white space."""
    think, answer = tagged(text, "think"), tagged(text, "answer")
    return Parsed(
        explanation=think[0].strip() if think else None,
        answer=answer[0].strip() if answer else None,
    )


def is_well_formed(text: str) -> bool:
    """Whether a completion is one filled think block, then one filled answer block, and nothing else."""
    match = _WELL_FORMED.fullmatch(text)
    return match is not None and all(block.strip() for block in match.groups())


def completion_text(completion: Completion) -> str:
    """The text of a completion: a string, or messages, of which the first counts; empty if there is none."""
    if isinstance(completion, str):
        return completion
    content = completion[0].get("content") if completion else None
    if isinstance(content, str):
        return content
    return "".join(part.get("text") or "" for part in content or ())


def tagged(text: str, tag: str) -> list[str]:
    """What stands between `<tag>` and the next `</tag>`, in order, as `re.findall` with `.*?` gives it."""
    return [text[start:end] for start, end in tagged_spans(text, tag)]


def tagged_spans(text: str, tag: str) -> list[tuple[int, int]]:
    """Where the blocks of `tagged` begin and end in the text.

    It takes linear time: the regular expression would scan to the end of the text from each unclosed tag, and
    a babbling policy writes thousands of them.
    """
    opening, closing = f"<{tag}>", f"</{tag}>"
    blocks = []
    start = text.find(opening)
    while start >= 0:
        start += len(opening)
        end = text.find(closing, start)
        if end < 0:
            break
        blocks.append((start, end))
        start = text.find(opening, end)
    return blocks


def user_content(instruction: str = INSTRUCTION, *, video: bool = True, audio: bool = True) -> str:
    """The user turn: a placeholder line for each modality that the clip has, then the instruction."""
    lines = [VIDEO_PLACEHOLDER] * video + [AUDIO_PLACEHOLDER] * audio + [instruction]
    return "\n".join(lines)
