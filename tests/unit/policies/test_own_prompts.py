"""Prompts from files: fields, the system turn, what is stored with a policy, the default byte for byte."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from erv.errors import SettingsError
from erv.policies import Policy, load_policy
from erv.policies.common.policy import stored_prompt
from erv.prompts import INSTRUCTION, Prompt, read_prompt
from erv.training.grpo.grpo import build_rows
from erv.training.sft.sft import build_examples
from tests.support.paths import ROOT
from tests.support.sft_policy import ROWS, write_base, write_clips

OWN = """\
[system]
You know feelings.
[user]
Which emotion?
One of {labels}.
She says: {subtitle}
Answer {{so}}.
"""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("base") / "policy")


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory):
    return write_clips(tmp_path_factory.mktemp("clips"))


def asked_by(base: Path, prompt: Prompt) -> Policy:
    policy = load_policy(base)
    policy.processor.use_prompt(prompt)
    return policy


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "own.txt"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_default_is_the_methods_own(base: Path) -> None:
    assert read_prompt(ROOT / "data/prompts/r1_omni.txt") == Prompt() == Prompt(INSTRUCTION, None)
    assert Prompt().ask(["anger"], "Oh no!") == INSTRUCTION
    assert Prompt().fields == frozenset()
    plain, asked = load_policy(base), asked_by(base, read_prompt(ROOT / "data/prompts/r1_omni.txt"))
    assert (
        asked.processor.prompt_ids()
        == plain.processor.prompt_ids()
        == plain.processor.prompt_ids(INSTRUCTION)
    )
    config = json.loads((base / "processor_config.json").read_text())
    assert not {"instruction", "system"} & set(config)
    assert stored_prompt(base) == Prompt()


def test_shipped_prompts_can_be_read() -> None:
    found = {path.stem: read_prompt(path) for path in (ROOT / "data/prompts").glob("*.txt")}
    assert found["labels"].fields == {"labels", "subtitle"}
    assert found["labels"].system == "You recognise emotions from face, voice and words."


def test_fields_are_filled_in_and_unknown_ones_left_out(tmp_path: Path) -> None:
    prompt = read_prompt(written(tmp_path, OWN))
    assert prompt.system == "You know feelings."
    assert prompt.ask(["awe", "joy"], "Oh {no}!") == (
        "Which emotion?\nOne of awe, joy.\nShe says: Oh {no}!\nAnswer {so}."
    )
    assert prompt.ask(["awe"]) == "Which emotion?\nOne of awe.\nAnswer {so}."
    assert prompt.ask() == "Which emotion?\nAnswer {so}."


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"own\.txt: asks nothing"),
        ("[system]\nBe brief.\n", r"own\.txt: asks nothing; write a question, below \[user\]"),
        (
            "Which?\nOf {emotions}.",
            r"line 2 of the question: unknown field \{emotions\}, expected \{labels\}",
        ),
        ("Which {of", r"line 1 of the question: .*; double a brace"),
        ("Which\nof {labels:>99}?", r"line 2 of the question: a field has a format of its own"),
        ("Which of {labels!r}?", r"line 1 of the question: a field has a format of its own"),
        (
            "[system]\nIt is one of {labels}.\n[user]\nWhich?",
            r"own\.txt: \{labels\} is in the system turn, .* same for every clip; move it below \[user\]",
        ),
        ("[system]\nShe said {subtitle}\n[user]\nWhich?", r"own\.txt: \{subtitle\} is in the system turn"),
    ],
)
def test_faults_are_said(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        read_prompt(written(tmp_path, text))
    with pytest.raises(SettingsError, match="can't be read as UTF-8 text"):
        read_prompt(tmp_path / "absent.txt")


def test_the_system_turn_is_taken_as_it_is(tmp_path: Path) -> None:
    prompt = read_prompt(written(tmp_path, '[system]\nReply {"like": {this}}.\n[user]\nOf {labels}?'))
    assert prompt == Prompt("Of {labels}?", 'Reply {"like": {this}}.')


def test_it_is_stored_with_the_policy_and_asked_by_all(base: Path, shards, tmp_path: Path) -> None:
    prompt = read_prompt(written(tmp_path, OWN))
    policy = asked_by(base, prompt)
    policy.save(tmp_path / "policy")
    assert stored_prompt(tmp_path / "policy") == prompt
    again = load_policy(tmp_path / "policy").processor
    assert again.prompt == prompt
    said = again.tokenizer.decode(again.prompt_ids())
    assert said.startswith("<|im_start|>system\nYou know feelings.<|im_end|>\n<|im_start|>user\n")
    assert "Which emotion?\nAnswer {so}." in said
    gate = again.gate_tokenizer("Which emotion?\nAnswer {so}.")["input_ids"]
    assert again.question_inputs()["gate_input_ids"].tolist() == [gate]
    # Training asks about each clip with the emotions of its data set.
    rows = [replace(ROWS[0], subtitle="Oh!"), *ROWS[1:]]
    examples = build_examples(policy, rows, shards, ["anger", "fear"])["train"]
    first, second = (again.tokenizer.decode(examples[number]["prompt"]) for number in (0, 1))
    assert "One of anger, fear.\nShe says: Oh!\nAnswer" in first
    assert "One of anger, fear.\nAnswer" in second
    row, *_ = build_rows([rows], shards, prompt)
    system, user = row["prompt"]
    assert system == {"role": "system", "content": "You know feelings."}
    assert user["content"].startswith("<video>\n<audio>\nWhich emotion?\nOne of anger, disgust, fear,")
    assert user["content"].endswith("She says: Oh!\nAnswer {so}.")
    (plain, *_), (default, *_) = build_rows([rows], shards), build_rows([rows], shards, Prompt())
    assert plain == default
    assert plain["prompt"] == [{"role": "user", "content": f"<video>\n<audio>\n{INSTRUCTION}"}]
