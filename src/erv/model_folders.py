"""Loads models, tokenizers and configurations from folders that may come from anyone.

Nothing in such a folder is ever run. `from_pretrained` is called here and nowhere else: without remote code,
with safetensors only, and after a check that refuses what would need code (`auto_map`, kernels from the hub)
or a pickle. A chat template is a program too: transformers renders it in jinja's sandbox, and `apply_chat`
turns whatever it does there into one sentence, and stops it when it takes too long.
"""

from __future__ import annotations

import contextlib
import json
import signal
import stat
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from erv.errors import DataError, ErvError
from erv.files import PICKLES

TEMPLATE_SECONDS = 5.0  # of processor time; a real template takes a millisecond

# The files whose keys can name code. Vocabularies and indices can't, and may be large.
_CONFIGS = (
    "config.json",
    "generation_config.json",
    "tokenizer_config.json",
    "processor_config.json",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
    "feature_extractor_config.json",
    "adapter_config.json",
)
_INDEX = "model.safetensors.index.json"
_KERNELS = ("attn_implementation", "experts_implementation")


def load_model(kind: Any, folder: str | Path, *, local: bool = True, **options: Any) -> Any:
    """`kind.from_pretrained(folder)` for a class of models; reads safetensors only.

    Args:
        kind: a class of transformers or PEFT, or one of ours.
        folder: the folder.
        local: whether to look nothing up elsewhere; otherwise `folder` may be a name on the hub.
        **options: for `from_pretrained`.

    Raises:
        DataError: see `check_folder`.
        OSError: a file is missing.
        ValueError: a file is damaged, or does not hold what the class expects.
    """
    check_folder(folder)
    with _damage_as_value_error():
        return kind.from_pretrained(folder, **{**options, **_safe(local), "use_safetensors": True})


def load_part(kind: Any, folder: str | Path, *, local: bool = True, **options: Any) -> Any:
    """`load_model` for what has no weights: a configuration, tokenizer, feature extractor or processor.

    With `local` off the folder is not checked first: released checkpoints name code of their own for what we
    have classes for. It is still never run; transformers raises ValueError if it would have to be.
    """
    if local:
        check_folder(folder, weights=False)
    else:
        check_regular(folder)
    with _damage_as_value_error():
        return kind.from_pretrained(folder, **{**options, **_safe(local)})


def load_adapter(model: Any, folder: Path) -> Any:
    """A model with a PEFT adapter from a folder on top of it; raises the same errors as `load_model`."""
    from peft import PeftModel

    check_folder(folder)
    if not (folder / "adapter_model.safetensors").is_file():  # PEFT would read a pickle, or ask the hub
        raise DataError(f"{folder}: has no adapter_model.safetensors; save the adapter as safetensors")
    return PeftModel.from_pretrained(model, str(folder))


def check_folder(folder: str | Path, *, weights: bool = True) -> None:
    """Refuses a folder that can't be loaded without running something in it.

    Args:
        folder: a `from_pretrained` folder; a name on the hub or a missing folder is left to the loader.
        weights: whether its weights are to be loaded.

    Raises:
        DataError: a file is not a regular one, a configuration names code, or the weights are a pickle.
    """
    folder = Path(folder)
    if not folder.is_dir():
        return
    check_regular(folder)
    for name in _CONFIGS:
        found = _code_in(_json(folder / name))
        if found:
            raise DataError(
                f"{folder}: its {name} asks for code that is not part of transformers ({found}), and no code"
                " from a model folder is ever run; give a model of a kind that transformers has itself"
            )
    if weights:
        pickle = _pickle_in(folder)
        if pickle:
            raise DataError(
                f"{folder}: its weights are a pickle ({pickle}), which can run code when it is loaded;"
                " fetch them as safetensors, or convert them where that can do no harm"
            )


def check_regular(folder: str | Path) -> None:
    """Refuses pipes, sockets and devices in a folder, also behind links: reading one can take for ever.

    Raises:
        DataError: names the first of them.
    """
    folder = Path(folder)
    for path in sorted(folder.rglob("*")):
        try:
            mode = path.stat().st_mode
        except OSError:  # a link that leads nowhere; the loader says what is missing
            continue
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise DataError(
                f"{folder}: its {path.relative_to(folder)} is a pipe, a socket or a device, not a regular"
                " file; replace it with the file itself, or remove it"
            )


def apply_chat(
    tokenizer: Any,
    messages: Sequence[Mapping[str, Any]],
    *,
    where: object,
    remedy: str = "give a model with another chat template",
    **options: Any,
) -> Any:
    """`tokenizer.apply_chat_template(messages, **options)`; a template that fails is one clear sentence.

    Args:
        tokenizer: with a chat template.
        messages: the conversation.
        where: the folder or model, for the message.
        remedy: what to do about a template that can't render the conversation.
        **options: for `apply_chat_template`.

    Raises:
        DataError: the template refuses the conversation, leaves the sandbox, loops too long, or is none.
    """
    try:
        with _limited(TEMPLATE_SECONDS):
            return tokenizer.apply_chat_template(list(messages), **options)
    except Exception as error:  # a template is a program of somebody else: it can raise anything
        said = " ".join(str(error).split())[:200] or type(error).__name__
        roles = ", ".join(str(message.get("role")) for message in messages)
        raise DataError(
            f"{where}: its chat template can't render a conversation of {roles} ({said}); {remedy}"
        ) from error


@contextlib.contextmanager
def _damage_as_value_error() -> Iterator[None]:
    """Raises ValueError for what the classes stumble over in a damaged file: TypeError, KeyError and others.

    The machine's own failures (memory, devices, missing packages) stay what they are.
    """
    try:
        yield
    except (ErvError, ImportError, MemoryError, OSError, RuntimeError, ValueError):
        raise
    except Exception as error:  # tokenizers raises plain Exceptions
        raise ValueError(f"{type(error).__name__}: {error}") from error


def _safe(local: bool) -> dict[str, Any]:
    return {"trust_remote_code": False, **({"local_files_only": True} if local else {})}


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):  # the loader says what is wrong with it
        return None


def _code_in(content: Any) -> str | None:
    """The first key at any depth that makes transformers fetch or run code."""
    waiting = [content]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if value.get("auto_map"):
                return "auto_map"
            for key, item in value.items():
                if str(key).endswith(_KERNELS) and isinstance(item, str) and "/" in item:
                    return f"{key}: {item}"
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
    return None


def _pickle_in(folder: Path) -> str | None:
    """The name of the pickle that would be loaded as weights; None if there is none."""
    index = _json(folder / _INDEX)
    shards = index.get("weight_map") if isinstance(index, dict) else None
    if isinstance(shards, dict):
        for name in shards.values():
            if not str(name).endswith(".safetensors"):
                return str(name)
    if any(folder.glob("*.safetensors")):
        return None
    return next((path.name for path in sorted(folder.iterdir()) if path.suffix in PICKLES), None)


@contextlib.contextmanager
def _limited(seconds: float) -> Iterator[None]:
    """Stops the block after some processor time; only in the main thread, where a signal can do that."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: object) -> None:
        raise TimeoutError(f"it takes longer than {seconds:g} s")

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
