"""A teacher that runs in this process: a causal language model of transformers with a chat template.

It decodes greedily, in left-padded batches of sentences of about equal length.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from erv.determinism import resolve_device, resolve_dtype
from erv.distill.teachers.asking import Message, correction, first_messages, one_line, read_reply
from erv.distill.teachers.protocol import Refusal, Usage, Verdict
from erv.errors import DataError
from erv.labels import LabelSpace
from erv.model_folders import apply_chat, load_model, load_part
from erv.progress import meter
from erv.settings import RuntimeSettings
from erv.settings.teachers import LocalTeacher

logger = logging.getLogger(__name__)


class LocalChat:
    """Labels sentences with a model from a folder, which is loaded for the first sentence.

    Args:
        settings: of the teacher.
        space: the labels.
        folder: of the model, as `from_pretrained` reads it; weights as safetensors.
        runtime: device and precision.
    """

    def __init__(
        self, settings: LocalTeacher, space: LabelSpace, folder: Path, runtime: RuntimeSettings
    ) -> None:
        self._settings, self._space, self._folder, self._runtime = settings, space, folder, runtime
        self._loaded: tuple[Any, Any] | None = None
        self._requests = self._retried = self._prompt_tokens = self._reply_tokens = 0

    @property
    def name(self) -> str:
        """`local:` and the name of the folder."""
        return self._settings.name

    @property
    def usage(self) -> Usage:
        """The usage so far, over all calls of `label`; it has no cost."""
        return Usage(self._requests, 0, self._retried, self._prompt_tokens, self._reply_tokens)

    def label(self, sentences: Sequence[str]) -> list[Verdict]:
        """One verdict per sentence, in order; a repeated sentence is asked only once.

        Raises:
            DataError: the folder is not a causal language model with a chat template, or a sentence is too
                long for it.
            SettingsError: the device or the precision is not available here.
        """
        known: dict[str, Verdict] = {}
        asked = {sentence: first_messages(sentence, self._space) for sentence in dict.fromkeys(sentences)}
        with meter(self.name, len(asked), "sentences", logger) as bar:
            for attempt in range(1, self._settings.attempts + 1):
                self._retried += len(asked) if attempt > 1 else 0
                again: dict[str, list[Message]] = {}
                for batch in self._batches(asked):
                    for sentence, reply in zip(batch, self._replies(batch, asked), strict=True):
                        labels = read_reply(reply, self._space)
                        if isinstance(labels, tuple):
                            known[sentence] = labels
                        elif attempt == self._settings.attempts:
                            known[sentence] = Refusal("malformed", one_line(reply) or labels)
                        else:
                            again[sentence] = [*asked[sentence], *correction(reply, labels, self._space)]
                    bar.update(sum(sentence in known for sentence in batch))
                asked = again
        return [known[sentence] for sentence in sentences]

    def _batches(self, asked: dict[str, list[Message]]) -> list[list[str]]:
        """Batches of sentences of about equal length, longest first: memory fails at once or never."""
        ordered = sorted(asked, key=lambda sentence: -sum(len(item["content"]) for item in asked[sentence]))
        size = self._settings.batch_size
        return [ordered[start : start + size] for start in range(0, len(ordered), size)]

    def _replies(self, batch: Sequence[str], asked: dict[str, list[Message]]) -> list[str]:
        """The replies to one batch."""
        import torch
        from transformers import GenerationConfig

        model, tokenizer = self._model()
        prompts = [self._prompt(sentence, asked[sentence]) for sentence in batch]
        length = max(map(len, prompts))
        end = model.generation_config.eos_token_id
        end = tokenizer.eos_token_id if end is None else end
        pad = tokenizer.pad_token_id
        if pad is None:
            pad = end[0] if isinstance(end, list) else end or 0
        ids = torch.tensor([[pad] * (length - len(prompt)) + prompt for prompt in prompts])
        mask = torch.tensor([[0] * (length - len(prompt)) + [1] * len(prompt) for prompt in prompts])
        with torch.inference_mode():
            generated = model.generate(
                input_ids=ids.to(model.device),
                attention_mask=mask.to(model.device),
                generation_config=GenerationConfig(
                    max_new_tokens=self._settings.max_reply_tokens,
                    do_sample=False,
                    eos_token_id=end,
                    pad_token_id=pad,
                ),
            )[:, length:]
        self._requests += len(batch)
        self._prompt_tokens += sum(map(len, prompts))
        self._reply_tokens += _counted(generated.tolist(), end)
        return [str(text) for text in tokenizer.batch_decode(generated, skip_special_tokens=True)]

    def _prompt(self, sentence: str, messages: list[Message]) -> list[int]:
        """Token ids of a conversation, up to where the reply begins."""
        model, tokenizer = self._model()
        text = apply_chat(
            tokenizer,
            messages,
            where=self._folder,
            remedy="give a teacher whose template takes system, user and assistant turns",
            tokenize=False,
            add_generation_prompt=True,
            # Labels need no thinking, which would take all of a reply's tokens; most templates ignore this.
            enable_thinking=False,
        )
        ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
        most = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        if most is not None and len(ids) + self._settings.max_reply_tokens > most:
            raise DataError(
                f"{self.name}: sentence {one_line(sentence, 60)!r} makes a prompt of {len(ids)} tokens, which"
                f" with max_reply_tokens ({self._settings.max_reply_tokens}) is more than the model's {most};"
                " give a teacher with a longer context, or leave the sentence out"
            )
        return ids

    def _model(self) -> tuple[Any, Any]:
        if self._loaded is None:
            self._loaded = _load(self._folder, self._runtime)
        return self._loaded


def _load(folder: Path, runtime: RuntimeSettings) -> tuple[Any, Any]:
    """Model and tokenizer of a folder; looks nothing up elsewhere and runs no code from the folder."""
    from safetensors import SafetensorError
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    device = resolve_device(runtime.device)
    dtype = resolve_dtype(runtime.dtype, device)
    if not (folder / "config.json").is_file():
        raise DataError(f"{folder}: no teacher in it; pin a base source that has {folder.name}/config.json")
    try:
        config = load_part(AutoConfig, folder)
        classifiers = [item for item in config.architectures or () if "ForSequenceClassification" in item]
        if classifiers:
            raise DataError(
                f"{folder}: holds a classifier ({classifiers[0]}), and a teacher is asked in words; give a"
                " causal language model, or this one as `encoder` of the base source"
            )
        model, report = load_model(AutoModelForCausalLM, folder, dtype=dtype, output_loading_info=True)
        tokenizer = load_part(AutoTokenizer, folder)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise DataError(
            f"{folder}: can't be loaded as a causal language model ({one_line(str(error))}); give a folder"
            " with config, tokenizer and weights as safetensors, of a kind that transformers knows"
        ) from error
    missing = sorted(report["missing_keys"])
    if missing:
        raise DataError(
            f"{folder}: its weights lack {len(missing)} tensors of the model, {missing[0]} for one; give the"
            " whole model"
        )
    if not getattr(tokenizer, "chat_template", None):
        raise DataError(
            f"{folder}: its tokenizer has no chat template; give a model that was trained to chat, with the"
            " template beside its tokenizer"
        )
    return model.to(device).eval().requires_grad_(False), tokenizer


def _counted(rows: list[list[int]], end: int | list[int] | None) -> int:
    """Tokens of the replies up to their ends, without padding."""
    ends = set(end) if isinstance(end, list) else {end}
    total = 0
    for row in rows:
        closed = next((place for place, token in enumerate(row) if token in ends), len(row) - 1)
        total += closed + 1
    return total
