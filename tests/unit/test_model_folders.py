"""Folders from outside: nothing in them runs, and each refusal is one sentence."""

from __future__ import annotations

import ast
import functools
import json
import os
import pickle
import shutil
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from erv.errors import DataError, ErvError
from erv.model_folders import apply_chat, check_folder, load_adapter, load_model, load_part
from erv.policies import load_policy
from tests.support.paths import ROOT
from tests.support.runtime import RUNTIME
from tests.support.tiny_bundle import write_models

TEXTS = [f"She smiles, take {number}." for number in range(20)]
ENCODER = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    """The file that hostile code would write."""
    return tmp_path / "marker"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy, a verifier, an encoder and a teacher, each as its own classes save it."""
    from transformers import BertConfig, BertModel, Qwen2Config, Qwen2ForCausalLM

    from erv.sample.tiny_policy import train_wordpiece

    folder = tmp_path_factory.mktemp("models")
    write_models(folder)
    tokenizer = train_wordpiece(TEXTS, 200, max_length=64)
    config = BertConfig(vocab_size=len(tokenizer), **ENCODER)
    BertModel(config).save_pretrained(folder / "encoder")
    tokenizer.save_pretrained(folder / "encoder")
    shutil.copytree(folder / "encoder", folder / "sentence_encoder")
    chat = Qwen2Config(vocab_size=len(tokenizer), num_key_value_heads=2, **ENCODER)
    Qwen2ForCausalLM(chat).save_pretrained(folder / "teacher")
    tokenizer.chat_template = "{% for message in messages %}{{ message.content }}\n{% endfor %}"
    tokenizer.save_pretrained(folder / "teacher")
    return folder


def load_verifier(folder: Path) -> None:
    from erv.verifier import EmotionVerifier

    EmotionVerifier.from_pretrained(folder)


def load_encoder(folder: Path) -> None:
    from erv.train_erv.encoder import load_encoder as load

    load(folder, ("anger", "fear"), as_it_is=False, max_length=32)


def load_teacher(folder: Path) -> None:
    from erv.chat.local import load_chat

    load_chat(folder, RUNTIME, "teacher")


def load_sentence_encoder(folder: Path) -> None:
    from erv.evaluate.judges.encoder import SentenceEncoder

    SentenceEncoder(folder)


LOADERS: dict[str, Callable[[Path], Any]] = {
    "policy": load_policy,
    "verifier": load_verifier,
    "encoder": load_encoder,
    "teacher": load_teacher,
    "sentence_encoder": load_sentence_encoder,
}


class Hostile:
    """Unpickling it writes the marker."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


def refused(load: Callable[[Path], Any], folder: Path) -> str:
    with pytest.raises(ErvError) as caught:
        load(folder)
    message = str(caught.value)
    assert message.startswith(f"{folder}: ")
    assert "\n" not in message
    return message


@pytest.mark.parametrize("kind", LOADERS)
def test_good_folders_load(models: Path, kind: str) -> None:
    LOADERS[kind](models / kind)


@pytest.mark.parametrize("kind", LOADERS)
@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_code_in_a_folder_is_refused_and_nobody_is_asked(
    models: Path, tmp_path: Path, marker: Path, monkeypatch: Any, kind: str, file: str
) -> None:
    monkeypatch.setattr("builtins.input", lambda *_: "y")  # what a hurried user answers
    folder = shutil.copytree(models / kind, tmp_path / kind)
    (folder / "own.py").write_text(f"from pathlib import Path\nPath({str(marker)!r}).touch()\n")
    content = json.loads((folder / file).read_text())
    names = ("AutoConfig", "AutoModel", "AutoModelForCausalLM", "AutoModelForSequenceClassification")
    content["auto_map"] = dict.fromkeys(names, "own.Own") | {"AutoTokenizer": ["own.Own", "own.Own"]}
    if kind != "policy" and file == "config.json":
        content["model_type"] = "own"  # one that transformers does not know: it would ask
    (folder / file).write_text(json.dumps(content))
    said = refused(LOADERS[kind], folder)
    assert f"its {file} asks for code that is not part of transformers (auto_map)" in said
    assert not marker.exists()


@pytest.mark.parametrize(
    ("kind", "name"), [*((kind, "pytorch_model.bin") for kind in LOADERS), ("teacher", "model.pt")]
)
def test_pickled_weights_are_refused_by_name(
    models: Path, tmp_path: Path, marker: Path, kind: str, name: str
) -> None:
    folder = shutil.copytree(models / kind, tmp_path / kind)
    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(pickle.dumps(Hostile(marker)))
    assert f"its weights are a pickle ({name}), which can run code" in refused(LOADERS[kind], folder)
    assert not marker.exists()


@pytest.mark.parametrize("kind", LOADERS)
def test_a_pickle_beside_the_weights_is_not_read(
    models: Path, tmp_path: Path, marker: Path, kind: str
) -> None:
    folder = shutil.copytree(models / kind, tmp_path / kind)
    for name in ("pytorch_model.bin", "training_args.bin", "optimizer.pt"):
        (folder / name).write_bytes(pickle.dumps(Hostile(marker)))
    LOADERS[kind](folder)
    assert not marker.exists()


def test_an_index_that_leads_to_a_pickle_is_refused(models: Path, tmp_path: Path, marker: Path) -> None:
    folder = shutil.copytree(models / "teacher", tmp_path / "teacher")
    (folder / "model.safetensors").rename(folder / "part.safetensors")
    (folder / "part.bin").write_bytes(pickle.dumps(Hostile(marker)))
    index = {"metadata": {}, "weight_map": {"lm_head.weight": "part.safetensors", "norm": "part.bin"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "its weights are a pickle (part.bin)" in refused(load_teacher, folder)
    assert not marker.exists()


@pytest.mark.parametrize("kind", ["policy", "encoder", "teacher"])
@pytest.mark.parametrize(
    "file", ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"]
)
def test_a_damaged_file_is_one_sentence(models: Path, tmp_path: Path, kind: str, file: str) -> None:
    folder = shutil.copytree(models / kind, tmp_path / kind)
    content = (folder / file).read_bytes()
    for damaged in (content[: len(content) // 2], b"[1]", b'{"a": [[[', b""):
        (folder / file).write_bytes(damaged)
        with pytest.raises(ErvError) as caught:
            LOADERS[kind](folder)
        assert str(caught.value).startswith(str(folder))
        assert "\n" not in str(caught.value)


@pytest.mark.timeout(30)
@pytest.mark.parametrize("kind", LOADERS)
def test_a_folder_with_other_than_regular_files_is_refused_at_once(
    models: Path, tmp_path: Path, kind: str
) -> None:
    """Opening a pipe waits for a writer, and a device never ends: the loaders would hang."""
    os.mkfifo(tmp_path / "pipe")
    for path in sorted(path for path in (models / kind).iterdir() if path.is_file()):
        folder = shutil.copytree(models / kind, tmp_path / path.name)
        (folder / path.name).unlink()
        (folder / path.name).symlink_to(tmp_path / "pipe")
        said = refused(LOADERS[kind], folder)
        # Without a configuration that is a file, encoders and the teacher say that there is none.
        if kind not in ("encoder", "sentence_encoder", "teacher") or path.name != "config.json":
            assert f"its {path.name} is a pipe, a socket or a device, not a regular file" in said
    folder = shutil.copytree(models / kind, tmp_path / "zeros")
    (folder / "more").mkdir()
    (folder / "more/zeros.safetensors").symlink_to("/dev/zero")
    assert "its more/zeros.safetensors is a pipe, a socket or a device" in refused(LOADERS[kind], folder)


def test_links_to_regular_files_and_to_nothing_are_no_fault(models: Path, tmp_path: Path) -> None:
    """A hub's cache is links, and one that leads nowhere is the loader's to name."""
    for path in (models / "policy").iterdir():
        (tmp_path / path.name).symlink_to(path)
    (tmp_path / "gone.bin").symlink_to(tmp_path / "nowhere")
    load_policy(tmp_path)


def test_a_released_folder_with_a_pipe_is_refused(tmp_path: Path) -> None:
    """Released folders may name code, which is not run; a pipe among their files is no better for that."""
    from transformers import AutoConfig

    os.mkfifo(tmp_path / "config.json")
    said = refused(lambda path: load_part(AutoConfig, path, local=False), tmp_path)
    assert "its config.json is a pipe" in said


def test_code_deep_in_a_configuration_is_found(tmp_path: Path) -> None:
    part = {"towers": [{"vision": {"auto_map": {"AutoModel": "own.Own"}}}]}
    (tmp_path / "config.json").write_text(json.dumps(part))
    assert "(auto_map)" in refused(check_folder, tmp_path)
    (tmp_path / "config.json").write_text('{"text_config": {"_attn_implementation": "someone/kernel"}}')
    assert "(_attn_implementation: someone/kernel)" in refused(check_folder, tmp_path)
    (tmp_path / "config.json").write_text('{"text_config": {"_attn_implementation": "sdpa", "auto_map": {}}}')
    check_folder(tmp_path)
    (tmp_path / "config.json").write_text("[" * 200_000)
    check_folder(tmp_path)  # the loader says what is wrong with it
    check_folder(tmp_path / "gone")


def test_an_adapter_as_a_pickle_is_refused(models: Path, tmp_path: Path, marker: Path) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import Qwen2ForCausalLM

    def base() -> Any:
        return load_model(Qwen2ForCausalLM, models / "teacher")

    config = LoraConfig(r=2, target_modules=["q_proj"])
    get_peft_model(base(), config).save_pretrained(tmp_path / "adapter")
    load_adapter(base(), tmp_path / "adapter")
    (tmp_path / "adapter/adapter_model.safetensors").unlink()
    (tmp_path / "adapter/adapter_model.bin").write_bytes(pickle.dumps(Hostile(marker)))
    with pytest.raises(DataError, match=r"adapter: its weights are a pickle \(adapter_model\.bin\)"):
        load_adapter(base(), tmp_path / "adapter")
    shutil.copy(models / "teacher/model.safetensors", tmp_path / "adapter/other.safetensors")
    with pytest.raises(DataError, match=r"adapter: has no adapter_model\.safetensors"):
        load_adapter(base(), tmp_path / "adapter")
    assert not marker.exists()


ESCAPE = "{{ ''.__class__.__mro__[1].__subclasses__() }}"
BORROWED = "{{ raise_exception.__globals__['__builtins__']['open'](MARKER, 'w') }}"
ENDLESS = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"


@pytest.mark.parametrize(
    ("template", "said"),
    [
        (ESCAPE, "access to attribute '__class__' of 'str' object is unsafe"),
        (BORROWED, "access to attribute '__globals__' of 'function' object is unsafe"),
        ("{% for n in range(10 ** 9) %}x{% endfor %}", "Range too big"),
        (ENDLESS, "it takes longer than 0.2 s"),
        ("{% set _ = messages.append(messages) %}", "access to attribute 'append' of 'list' object"),
        ("{% for %}", "Expected an expression, got 'end of statement block'"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{{ raise_exception('no system role') }}", "no system role"),
    ],
)
def test_a_template_stays_in_the_sandbox(
    models: Path, marker: Path, monkeypatch: Any, template: str, said: str
) -> None:
    from transformers import AutoTokenizer

    monkeypatch.setattr("erv.model_folders.TEMPLATE_SECONDS", 0.2)
    tokenizer = load_part(AutoTokenizer, models / "teacher")
    tokenizer.chat_template = template.replace("MARKER", repr(str(marker)))
    with pytest.raises(DataError) as caught:
        apply_chat(tokenizer, [{"role": "user", "content": "hello"}], where="models/x")
    message = str(caught.value)
    assert message.startswith("models/x: its chat template can't render a conversation of user (")
    assert said in message
    assert "\n" not in message
    assert not marker.exists()


def test_a_policy_with_a_hostile_template_says_so(models: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(models / "policy", tmp_path / "policy")
    (folder / "chat_template.jinja").write_text(ESCAPE)
    policy = load_policy(folder)
    policy.processor.tokenizer.chat_template = ESCAPE
    with pytest.raises(DataError, match="chat template can't render a conversation of user"):
        policy.processor.prompt_ids()


def test_checkpoints_are_resumed_without_unpickling(tmp_path: Path, marker: Path) -> None:
    """What a trainer reads of a checkpoint besides its weights: transformers reads it with `weights_only`."""
    import inspect

    import torch
    from transformers import Trainer

    for name in ("_load_rng_state", "_load_optimizer_and_scheduler"):
        source = ast.parse(textwrap.dedent(inspect.getsource(getattr(Trainer, name))))
        nodes = [node for node in ast.walk(source) if isinstance(node, ast.Call)]
        loads = [node for node in nodes if dotted(node) == "torch.load"]
        assert loads
        assert all("weights_only=True" in map(ast.unparse, node.keywords) for node in loads)
    (tmp_path / "optimizer.pt").write_bytes(pickle.dumps(Hostile(marker)))
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / "optimizer.pt", weights_only=True)
    assert not marker.exists()


def dotted(call: ast.Call) -> str:
    return ast.unparse(call.func)


@functools.cache
def calls_in_the_library() -> list[tuple[str, str, ast.Call]]:
    return list(_calls())


def _calls() -> Iterator[tuple[str, str, ast.Call]]:
    for path in sorted((ROOT / "src/erv").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                yield path.relative_to(ROOT / "src/erv").as_posix(), dotted(node), node


# What may stay: the loader itself, the base class that it calls, and a class of ours that it loads with.
ALLOWED = {
    ("model_folders.py", "kind.from_pretrained"),
    ("model_folders.py", "PeftModel.from_pretrained"),
    ("model_folders.py", "tokenizer.apply_chat_template"),
    ("policies/humanomni/loading.py", "super().from_pretrained"),
}


def test_no_loader_passes_by_the_one_place() -> None:
    names = {"from_pretrained", "apply_chat_template", "load_adapter", "load_lora_weights"}
    found = {
        (path, name)
        for path, name, _ in calls_in_the_library()
        if name.rpartition(".")[2] in names and "." in name and name != "EmotionVerifier.from_pretrained"
    }
    assert found == ALLOWED


def test_nothing_else_unpickles_or_renders_outside_the_sandbox() -> None:
    pickles = {"torch.load", "pickle.load", "pickle.loads", "joblib.load", "cloudpickle.loads"}
    # between our own processes
    ours = {(f"media/{name}_process.py", "pickle.loads") for name in ("nursery", "worker")}
    calls = {(path, name) for path, name, _ in calls_in_the_library()}
    assert {call for call in calls if call[1] in pickles} == ours
    jinja = {"Template", "jinja2.Template", "Environment", "jinja2.Environment"}
    # Pages of our own from our own package. The other `Environment` says which servers a workspace uses.
    assert {path for path, name in calls if name in jinja} <= {
        "lineage/page.py",
        "report/page.py",
        "results/page.py",
        "study/analysis/page.py",
        "web/pages.py",
        "validate/data_docs.py",
        "environment/environment.py",
        "environment/handed.py",
        "environment/servers.py",
        "doctor/doctor.py",
    }
    trusting = [
        path
        for path, _, call in calls_in_the_library()
        for option in call.keywords
        if option.arg == "trust_remote_code" and ast.unparse(option.value) != "False"
    ]
    assert trusting == []
