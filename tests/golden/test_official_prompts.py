"""The released prompts: splicing against the authors' vectors, and each phase's text to the letter."""

import json
from pathlib import Path

import pytest
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, WhisperFeatureExtractor

from erv.policies.humanomni import HumanOmniProcessor
from erv.policies.humanomni.official_prompts import official_prompt, tokenize_pieces, wrap_tags
from erv.policies.humanomni.processing import chat_template
from erv.prompts import INSTRUCTION, OUTPUT_FORMAT, QUESTION
from erv.sample.tiny_policy import train_tokenizer, train_wordpiece

DATA = Path(__file__).parent / "data" / "preprocess"
SYSTEM = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"


def letters():
    """A tokenizer with one token per character, as in the vectors."""
    core = Tokenizer(models.WordLevel({chr(code): code for code in range(128)}, unk_token="?"))
    core.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    return PreTrainedTokenizerFast(tokenizer_object=core)


@pytest.fixture(scope="module")
def processor():
    tokenizer = train_tokenizer([INSTRUCTION, "<vi_start> <au_end>"], 600)
    tokenizer.chat_template = chat_template(3, 2, wrap=False)
    return HumanOmniProcessor(
        feature_extractor=WhisperFeatureExtractor(feature_size=16),
        tokenizer=tokenizer,
        gate_tokenizer=train_wordpiece([INSTRUCTION], 256, max_length=64),
    )


def test_splicing_as_the_vectors():
    cases = json.loads((DATA / "preprocess_golden.json").read_text())["splice"]
    assert len(cases) >= 20
    for case in cases:
        if case["modal_argument"] in (None, "<text>"):  # splicing off: the placeholders are text
            found = letters()(case["prompt"], add_special_tokens=False)["input_ids"]
        else:
            found = tokenize_pieces(case["prompt"], letters())
        assert found == case["ids"], case


@pytest.mark.parametrize(
    ("phase", "options", "user", "gate"),
    [
        (
            "inference",
            {},
            f"<vi_start><video><vi_end>\n<au_start><audio><au_end>\n{INSTRUCTION}",
            INSTRUCTION,
        ),
        ("inference", {"audio": False}, f"<vi_start><video><vi_end>\n{INSTRUCTION}", INSTRUCTION),
        ("inference", {"video": False}, f"<au_start><audio><au_end>\n{INSTRUCTION}", INSTRUCTION),
        (
            "sft",
            {"instruction": "Which?"},
            "<vi_start><video><vi_end>\n<au_start><audio><au_end>\nWhich?",
            "<vi_start><vi_end><au_start><audio><au_end>Which?",
        ),
        (
            "grpo",
            {},
            "<|vision_start|><|video_pad|><|vision_end|><vi_start><video><vi_end>\n<au_start><audio><au_end>\n"
            f"{QUESTION}\n{OUTPUT_FORMAT}",
            f"{QUESTION}\n{OUTPUT_FORMAT}",
        ),
        (
            "grpo",
            {"instruction": "Which?", "r1_omni": False},
            "<|vision_start|><|video_pad|><|vision_end|><vi_start><video><vi_end>\n<au_start><audio><au_end>\n"
            "Which?",
            "Which?",
        ),
    ],
)
def test_the_text_of_each_phase(processor, phase, options, user, gate):
    prompt = processor.official_prompt(phase=phase, **options)
    assert prompt.text == f"{SYSTEM}<|im_start|>user\n{user}<|im_end|>\n<|im_start|>assistant\n"
    assert prompt.gate_text == gate
    placeholders = [i for i in prompt.input_ids if i < 0]
    assert placeholders == [-201] * ("<video>" in user) + [-202] * ("<audio>" in user)


def test_pieces_are_tokenised_on_their_own(processor):
    """`<video>` is a token of our tokenizer, but the pieces never hold it; tags are ordinary text."""
    prompt = processor.official_prompt("Which?", "inference")
    head, middle, tail = prompt.text.replace("<audio>", "<video>").split("<video>")
    pieces = [processor.tokenizer(t, add_special_tokens=False)["input_ids"] for t in (head, middle, tail)]
    assert prompt.input_ids == [*pieces[0], -201, *pieces[1], -202, *pieces[2]]
    assert middle == "<vi_end>\n<au_start>"
    assert len(pieces[1]) > 2
    assert wrap_tags("<image> <im_start>") == "<im_start><image><im_end> <im_start>"


def test_the_checkpoints_own_template_is_used_and_kept(processor, tmp_path):
    own = "{{ '[' + messages[0]['content'] + ']' }}{% if add_generation_prompt %}>{% endif %}"
    assert official_prompt(letters(), "inference", "Q", template=own, audio=False).text == (
        "[<vi_start><video><vi_end>\nQ]>"
    )
    processor.official_template = own
    processor.save_pretrained(tmp_path / "released")
    processor.official_template = None
    processor.save_pretrained(tmp_path / "ours")
    again = HumanOmniProcessor.from_pretrained(tmp_path / "released")
    assert again.official_prompt("Q", "sft").text.endswith("<au_start><audio><au_end>\nQ]>")
    assert "official_template" not in (tmp_path / "ours" / "processor_config.json").read_text()
    assert HumanOmniProcessor.from_pretrained(tmp_path / "ours").official_template is None


@pytest.mark.parametrize("phase", ["sft", "grpo", "inference"])
def test_the_official_switch_expands_the_released_prompt(processor, phase):
    video, audio = processor.tokenizer.convert_tokens_to_ids(["<video>", "<audio>"])
    released = processor.official_prompt("Which?", phase, r1_omni=False)
    ids = processor.prompt_ids("Which?", official=phase)
    collapsed = [i for i in released.input_ids if i >= 0]
    assert [i for i in ids if i not in (video, audio)] == collapsed
    assert (ids.count(video), ids.count(audio)) == (3, 2)
    start = released.input_ids.index(-201)
    assert ids[start : start + 3] == [video] * 3
    silent = processor.prompt_ids("Which?", official=phase, audio=False)
    assert (silent.count(video), silent.count(audio)) == (3, 0)
    gate = processor.gate_inputs(2, "Which?", official=phase)["gate_input_ids"]
    expected = processor.gate_tokenizer(released.gate_text)["input_ids"]
    assert gate.tolist() == [expected, expected]


def test_the_default_question_is_asked_in_grpo_as_r1_omni_asks_it(processor):
    asked = processor.official_prompt(phase="grpo")
    assert f"{QUESTION}\n{OUTPUT_FORMAT}" in asked.text
    assert processor.prompt_ids(official="grpo") == processor.expand(asked.input_ids)
    gate = processor.gate_inputs(official="grpo")["gate_input_ids"][0].tolist()
    assert gate == processor.gate_tokenizer(asked.gate_text)["input_ids"]


def test_ours_is_one_prompt_and_one_gate_text(processor):
    """Cold start, GRPO and inference all take it from here; GRPO through messages and the template."""
    messages = processor.build_messages()
    through_template = processor.tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, return_dict=True
    )
    assert processor.prompt_ids() == through_template["input_ids"]
    gate = processor.gate_inputs()["gate_input_ids"][0].tolist()
    assert gate == processor.gate_tokenizer(INSTRUCTION)["input_ids"]
