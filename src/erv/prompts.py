"""The question that every policy is asked, and the format of its answer.

The default wording is the method's own (R1-Omni, ERV): the same question for every clip, followed by two
spaces and the sentence that asks for reasoning and answer in tags. `policy.prompt` names a file with another.
"""

from __future__ import annotations

import re
import string
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from erv.errors import SettingsError

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
FIELDS = ("labels", "subtitle")
_SYSTEM, _USER = "[system]", "[user]"
_NO_TAG = r"((?:(?!(?i:</?(?:think|answer)\b)).)*)"
_WELL_FORMED = re.compile(rf"\s*<think>{_NO_TAG}</think>\s*<answer>{_NO_TAG}</answer>\s*", re.DOTALL)


@dataclass(frozen=True)
class Prompt:
    """What a policy is asked.

    Attributes:
        text: the user turn below the clip. `{labels}` stands for the emotions of the clip's data set and
            `{subtitle}` for what is said in the clip; a line with one that is not known is left out.
        system: the system turn before it; None for what the policy's template has.
    """

    text: str = INSTRUCTION
    system: str | None = None

    @property
    def fields(self) -> frozenset[str]:
        """The fields in the text, some of `FIELDS`."""
        return frozenset(_fields(self.text))

    def ask(self, labels: Sequence[str] = (), subtitle: str | None = None) -> str:
        """The text for one clip.

        Args:
            labels: the emotions of its data set.
            subtitle: what is said in it.
        """
        known = {"labels": ", ".join(labels), "subtitle": subtitle or ""}
        lines = self.text.split("\n")
        return "\n".join(line.format(**known) for line in lines if all(known[name] for name in _fields(line)))


def read_prompt(path: str | Path) -> Prompt:
    """The prompt in a file: the user turn, or `[system]` and `[user]` on lines of their own before each turn.

    White space around a turn doesn't count. In the user turn, a brace that stands for itself is doubled; the
    system turn is the same for every clip, and is taken as it is.

    Raises:
        SettingsError: the file is missing, not UTF-8 or empty, or has an unknown field, a stray brace, or a
            field in the system turn.
    """
    try:
        content = Path(path).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise SettingsError(f"{path}: can't be read as UTF-8 text ({error}); see policy.prompt") from None
    parts: dict[str, list[str]] = {_USER: []}
    part = _USER
    for line in content.splitlines():
        if line.strip() in (_SYSTEM, _USER):
            part = line.strip()
        else:
            parts.setdefault(part, []).append(line)
    turns = {name: "\n".join(lines).strip() for name, lines in parts.items()}
    if not turns[_USER]:
        raise SettingsError(f"{path}: asks nothing; write a question, below {_USER} if it has a system turn")
    for name in FIELDS:
        if f"{{{name}}}" in turns.get(_SYSTEM, ""):
            raise SettingsError(
                f"{path}: {{{name}}} is in the system turn, which is the same for every clip; move it below"
                f" {_USER}"
            )
    for number, line in enumerate(turns[_USER].split("\n"), start=1):
        try:
            unknown = set(_fields(line)) - set(FIELDS)
            if any(spec or conversion for _, _, spec, conversion in string.Formatter().parse(line)):
                raise ValueError("a field has a format of its own; write it as {labels}")
        except ValueError as error:
            raise SettingsError(f"{path}, line {number} of the question: {error}; double a brace") from None
        if unknown:
            raise SettingsError(
                f"{path}, line {number} of the question: unknown field {{{min(unknown)}}}, expected"
                f" {', '.join(f'{{{name}}}' for name in FIELDS)}; double a brace that stands for itself"
            )
    return Prompt(turns[_USER], turns.get(_SYSTEM) or None)


def _fields(text: str) -> list[str]:
    return [name for _, name, _, _ in string.Formatter().parse(text) if name is not None]


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
