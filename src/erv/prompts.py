"""The question that every policy is asked, and the shape of what it answers.

The wording is the method's own (R1-Omni, ERV): the same question for every clip, followed by two spaces and
the sentence that asks for reasoning and answer in tags.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

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
TAGS = ("<think>", "</think>", "<answer>", "</answer>")

_THINK = re.compile(r"<think>(.*?)</think>", re.DOTALL)
_ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)


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
    think, answer = _THINK.search(text), _ANSWER.search(text)
    return Parsed(
        explanation=think.group(1).strip() if think else None,
        answer=answer.group(1).strip() if answer else None,
    )


def user_content(instruction: str = INSTRUCTION, *, video: bool = True, audio: bool = True) -> str:
    """The user turn: a placeholder line for each modality that the clip has, then the instruction."""
    lines = [VIDEO_PLACEHOLDER] * video + [AUDIO_PLACEHOLDER] * audio + [instruction]
    return "\n".join(lines)
