"""The prompts of the released code, which has three: one each for cold start, GRPO and inference.

We have only one (`HumanOmniProcessor.prompt_ids`, `gate_inputs`). The released prompts are for comparisons
with the released checkpoints, and for training that follows the released code to the letter. They differ in:

| phase | tags around placeholders | user turn begins with | what the gate encoder reads |
|---|---|---|---|
| sft | in the content | video, sound | user turn without line breaks, `<video>`, `<image>`; with tags |
| grpo | in the content | three vision tokens of Qwen2-VL | the question |
| inference | after the template | video, sound | the question |

In all three the text is cut at the placeholders and each piece is tokenised on its own. The tags around
placeholders are ordinary text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from transformers import PreTrainedTokenizerBase

from erv.model_folders import apply_chat
from erv.policies.humanomni.splicing import RELEASED_IDS
from erv.prompts import INSTRUCTION, OUTPUT_FORMAT, QUESTION

Phase = Literal["sft", "grpo", "inference"]

_TAGS = {"<video>": "vi", "<audio>": "au", "<image>": "im"}
_CUT = re.compile("|".join(RELEASED_IDS))
# What Qwen2-VL's template writes for the video element that the released GRPO puts before the text.
_VIDEO_ELEMENT = "<|vision_start|><|video_pad|><|vision_end|>"
_SYSTEM = "You are a helpful assistant."


@dataclass(frozen=True)
class OfficialPrompt:
    """A released prompt.

    Attributes:
        text: the text that is tokenised, with template and tags.
        input_ids: token ids; each placeholder is one negative id (-200, -201, -202).
        gate_text: the text that the gate encoder reads.
    """

    text: str
    input_ids: list[int]
    gate_text: str


def wrap_tags(text: str) -> str:
    """Encloses every placeholder in its tags (`mm_use_x_start_end`, true in the released checkpoints)."""
    return _CUT.sub(lambda m: f"<{_TAGS[m[0]]}_start>{m[0]}<{_TAGS[m[0]]}_end>", text)


def tokenize_pieces(text: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Cuts a text at `<audio>`, `<video>` and `<image>` and tokenises the pieces one by one.

    Returns:
        Ids without special tokens; the placeholders are negative.
    """
    ids: list[int] = []
    last = 0
    for match in _CUT.finditer(text):
        ids += _ids(text[last : match.start()], tokenizer)
        ids.append(RELEASED_IDS[match[0]])
        last = match.end()
    return ids + _ids(text[last:], tokenizer)


def _ids(text: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"]) if text else []


def official_prompt(
    tokenizer: PreTrainedTokenizerBase,
    phase: Phase,
    instruction: str | None = None,
    *,
    video: bool = True,
    audio: bool = True,
    template: str | None = None,
    r1_omni: bool = True,
) -> OfficialPrompt:
    """The prompt of a clip as the released code writes it, up to the completion.

    Args:
        tokenizer: the checkpoint's tokenizer; the released GRPO uses that of Qwen2-VL-2B-Instruct.
        phase: the phase whose prompt is written.
        instruction: the question; None for the evaluation's. In `grpo` this is the question alone.
        video: whether the clip has frames.
        audio: whether the clip has sound.
        template: the checkpoint's own chat template (Jinja); None for Qwen2's: ChatML with its default system
            turn.
        r1_omni: in `grpo`, whether to append the request for tags to the question, as R1-Omni does; ERV uses
            the data set's question unchanged.
    """
    question = instruction if instruction is not None else QUESTION if phase == "grpo" else INSTRUCTION
    if phase == "grpo" and r1_omni:
        question = f"{question}\n{OUTPUT_FORMAT}"
    lines = ["<video>"] * video + ["<audio>"] * audio
    content = "\n".join([*lines, question])
    if phase == "inference":
        # The template comes first; tags are then added wherever the placeholders end up.
        text = wrap_tags(_render(content, tokenizer, template))
        return OfficialPrompt(text, tokenize_pieces(text, tokenizer), question)
    content = "\n".join([*(wrap_tags(line) for line in lines), question])
    gate_text = question
    if phase == "sft":
        gate_text = re.sub(r"\n|<video>|<image>", "", content)
    elif video:
        content = _VIDEO_ELEMENT + content
    text = _render(content, tokenizer, template)
    return OfficialPrompt(text, tokenize_pieces(text, tokenizer), gate_text)


def _render(content: str, tokenizer: PreTrainedTokenizerBase, template: str | None) -> str:
    """A user turn in the checkpoint's template, with the generation prompt."""
    if template is None:
        turns = (("system", _SYSTEM), ("user", content))
        return (
            "".join(f"<|im_start|>{role}\n{text}<|im_end|>\n" for role, text in turns)
            + "<|im_start|>assistant\n"
        )
    return str(
        apply_chat(
            tokenizer,
            [{"role": "user", "content": content}],
            where="the released checkpoint",
            chat_template=template,
            tokenize=False,
            add_generation_prompt=True,
        )
    )


__all__ = ["OfficialPrompt", "Phase", "official_prompt", "tokenize_pieces", "wrap_tags"]
