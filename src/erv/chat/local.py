"""A chat model that runs in this process: a causal language model of transformers with a chat template.

It decodes greedily, in left-padded batches of texts of about equal length.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from erv.chat.protocol import Answer, Fault, Message, Questions, Refusal, Usage, one_line
from erv.determinism import resolve_device, resolve_dtype
from erv.errors import DataError
from erv.model_folders import apply_chat, load_model, load_part
from erv.progress import meter
from erv.settings import RuntimeSettings
from erv.settings.chat import ChatFolder

logger = logging.getLogger(__name__)


class LocalChat:
    """Asks a model from a folder, which is loaded for the first text.

    Args:
        settings: of the model.
        folder: of the model, as `from_pretrained` reads it; weights as safetensors.
        runtime: device and precision.
    """

    def __init__(self, settings: ChatFolder, folder: Path, runtime: RuntimeSettings) -> None:
        self._settings, self._folder, self._runtime = settings, folder, runtime
        self._loaded: tuple[Any, Any] | None = None
        self._requests = self._retried = self._prompt_tokens = self._reply_tokens = 0

    @property
    def name(self) -> str:
        """`local:` and the name of the folder."""
        return self._settings.name

    @property
    def usage(self) -> Usage:
        """The usage so far, over all calls of `ask`; it has no cost."""
        return Usage(self._requests, 0, self._retried, self._prompt_tokens, self._reply_tokens)

    def ask(self, texts: Sequence[str], questions: Questions[Answer]) -> list[Answer | Refusal]:
        """The answer for each text, in order; a repeated text is asked about only once.

        Raises:
            DataError: the folder is not a causal language model with a chat template, or a text is too long
                for it.
            SettingsError: the device or the precision is not available here.
        """
        known: dict[str, Answer | Refusal] = {}
        asked = {text: questions.first(text) for text in dict.fromkeys(texts)}
        with meter(self.name, len(asked), questions.noun, logger) as bar:
            for attempt in range(1, self._settings.attempts + 1):
                self._retried += len(asked) if attempt > 1 else 0
                again: dict[str, list[Message]] = {}
                for batch in self._batches(asked):
                    for text, reply in zip(batch, self._replies(batch, asked), strict=True):
                        answer = questions.read(reply)
                        if not isinstance(answer, Fault):
                            known[text] = answer
                        elif attempt == self._settings.attempts:
                            known[text] = Refusal("malformed", one_line(reply) or answer.reason)
                        else:
                            again[text] = [*asked[text], *questions.correction(reply, answer.reason)]
                    bar.update(sum(text in known for text in batch))
                asked = again
        return [known[text] for text in texts]

    def tensors(self) -> dict[str, Any]:
        """The model's weights by name."""
        return dict(self._model()[0].state_dict())

    def _batches(self, asked: dict[str, list[Message]]) -> list[list[str]]:
        """Batches of texts of about equal length, longest first: memory fails at once or never."""
        ordered = sorted(asked, key=lambda text: -sum(len(item["content"]) for item in asked[text]))
        size = self._settings.batch_size
        return [ordered[start : start + size] for start in range(0, len(ordered), size)]

    def _replies(self, batch: Sequence[str], asked: dict[str, list[Message]]) -> list[str]:
        """The replies to one batch."""
        import torch
        from transformers import GenerationConfig

        model, tokenizer = self._model()
        prompts = [self._prompt(text, asked[text]) for text in batch]
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

    def _prompt(self, text: str, messages: list[Message]) -> list[int]:
        """Token ids of a conversation, up to where the reply begins."""
        model, tokenizer = self._model()
        rendered = apply_chat(
            tokenizer,
            messages,
            where=self._folder,
            remedy=f"give a {self._settings.role} whose template takes system, user and assistant turns",
            tokenize=False,
            add_generation_prompt=True,
            # Short answers need no thinking, which would take all of a reply's tokens; most templates
            # ignore this.
            enable_thinking=False,
        )
        ids: list[int] = tokenizer(rendered, add_special_tokens=False)["input_ids"]
        most = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        if most is not None and len(ids) + self._settings.max_reply_tokens > most:
            raise DataError(
                f"{self.name}: text {one_line(text, 60)!r} makes a prompt of {len(ids)} tokens, which"
                f" with max_reply_tokens ({self._settings.max_reply_tokens}) is more than the model's {most};"
                f" give a {self._settings.role} with a longer context, or leave the text out"
            )
        return ids

    def _model(self) -> tuple[Any, Any]:
        if self._loaded is None:
            self._loaded = load_chat(self._folder, self._runtime, self._settings.role)
        return self._loaded


def load_chat(folder: Path, runtime: RuntimeSettings, role: str) -> tuple[Any, Any]:
    """Model and tokenizer of a folder; looks nothing up elsewhere and runs no code from the folder."""
    from safetensors import SafetensorError
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    device = resolve_device(runtime.device)
    dtype = resolve_dtype(runtime.dtype, device)
    if not (folder / "config.json").is_file():
        raise DataError(f"{folder}: no {role} in it; pin a base source that has {folder.name}/config.json")
    try:
        config = load_part(AutoConfig, folder)
        classifiers = [item for item in config.architectures or () if "ForSequenceClassification" in item]
        if classifiers:
            raise DataError(
                f"{folder}: holds a classifier ({classifiers[0]}), and a {role} is asked in words; give a"
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
