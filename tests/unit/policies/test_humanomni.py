"""The contract of HumanOmni with its trainers, on a random model of a few thousand weights."""

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from erv.errors import TrainingError
from erv.policies import Policy, load_policy
from erv.prompts import format_completion
from erv.sample.tiny_policy import build_tiny_policy
from tests.support.policy_contract import prepared, prompt, random_clips
from tests.support.sizes import SMALLEST

SIZES = SMALLEST
TEXTS = [format_completion("The voice is loud. She seems angry.", "anger")] * 3


@pytest.fixture(scope="module")
def policy():
    torch.set_num_threads(1)
    return Policy(*build_tiny_policy(TEXTS, seed=1, sizes=SIZES))


@pytest.fixture(scope="module")
def clips(policy):
    return prepared(policy, random_clips(policy, 3))


@torch.no_grad()
def test_cached_and_indexed_features_give_the_logits_of_raw_clips(policy, clips):
    features = policy.model.encode_clips(**clips)
    index = torch.tensor([0, 0, 1, 2, 2])
    shared = policy.model(
        **prompt(policy, 5), **features, **policy.processor.gate_inputs(1), clip_index=index
    )
    raw = policy.model(
        **prompt(policy, 5),
        pixel_values=clips["pixel_values"][index],
        input_features=clips["input_features"][index],
        **policy.processor.gate_inputs(5),
    )
    torch.testing.assert_close(shared.logits, raw.logits, atol=1e-5, rtol=0)
    assert not torch.allclose(shared.logits[0], shared.logits[2], atol=1e-4), "clips make no difference"


@torch.no_grad()
@pytest.mark.parametrize("name", ["pixel_values", "input_features"])
def test_each_modality_reaches_the_answer(policy, clips, name):
    gate = policy.processor.gate_inputs(1)
    before = policy.model(**prompt(policy, 3), **policy.model.encode_clips(**clips), **gate).logits
    changed = {**clips, name: clips[name].roll(1, dims=0)}
    after = policy.model(**prompt(policy, 3), **policy.model.encode_clips(**changed), **gate).logits
    assert (before[:, -1] - after[:, -1]).abs().max() > 1e-6
    assert torch.equal(before[:, :2], after[:, :2]), "what comes before the clip can't depend on it"


@torch.no_grad()
def test_padding_on_either_side_changes_nothing(policy, clips):
    features, gate = policy.model.encode_clips(**clips), policy.processor.gate_inputs(1)
    plain = prompt(policy, 3)
    length = plain["input_ids"].shape[1]
    reference = policy.model(**plain, **features, **gate).logits
    for side in ((4, 0), (0, 4)):
        padded = {
            "input_ids": torch.nn.functional.pad(plain["input_ids"], side, value=0),
            "attention_mask": torch.nn.functional.pad(plain["attention_mask"], side),
        }
        logits = policy.model(**padded, **features, **gate).logits[:, side[0] : side[0] + length]
        torch.testing.assert_close(logits, reference, atol=1e-5, rtol=0)


@torch.no_grad()
def test_a_row_without_sound_takes_none_of_it(policy, clips):
    features, gate = policy.model.encode_clips(**clips), policy.processor.gate_inputs(1)
    silent = torch.tensor([policy.processor.prompt_ids(audio=False)])
    inputs = {"input_ids": silent, "attention_mask": torch.ones_like(silent), "clip_index": torch.tensor([1])}
    with_sound = policy.model(**inputs, **features, **gate).logits
    without = policy.model(**inputs, video_features=features["video_features"], **gate).logits
    assert torch.equal(with_sound, without)


def test_wrong_number_of_placeholders_is_refused(policy, clips):
    inputs = prompt(policy, 1)
    video = int((inputs["input_ids"][0] == policy.model.config.video_token_id).nonzero()[0])
    inputs["input_ids"][0, video] = policy.processor.tokenizer.eos_token_id
    features = policy.model.encode_clips(clips["pixel_values"][:1])
    with pytest.raises(ValueError, match=r"a row has \[1\] video placeholders, expected 0 or 2"):
        policy.model(**inputs, **features, **policy.processor.gate_inputs(1))


def test_generation_projects_once_and_never_writes_a_placeholder(policy, clips):
    calls = []
    handle = policy.model.model.visual_projector.register_forward_hook(lambda *_: calls.append(1))
    inputs = {**policy.model.encode_clips(**clips), **policy.processor.gate_inputs(1)}
    with torch.no_grad():
        policy.model.lm_head.weight[policy.model.config.video_token_id] += 100.0  # would win every step
        generated = policy.model.generate(**prompt(policy, 3), **inputs, max_new_tokens=6, do_sample=False)
        slow = policy.model.generate(
            **prompt(policy, 3), **inputs, max_new_tokens=6, do_sample=False, use_cache=False
        )
        policy.model.lm_head.weight[policy.model.config.video_token_id] -= 100.0
    handle.remove()
    assert len(calls) == 1 + slow.shape[1] - prompt(policy, 1)["input_ids"].shape[1]
    assert torch.equal(generated, slow)
    assert policy.model.config.video_token_id not in generated[:, prompt(policy, 1)["input_ids"].shape[1] :]


def test_gradients_reach_all_but_the_towers(policy, clips):
    features = policy.model.encode_clips(**clips)
    inputs = prompt(policy, 3)
    policy.model.zero_grad()
    policy.model(
        **inputs, **features, **policy.processor.gate_inputs(1), labels=inputs["input_ids"]
    ).loss.backward()
    without = {name.split(".")[1] for name, p in policy.model.named_parameters() if p.grad is None}
    assert without == {"vision_tower", "audio_tower"}
    policy.model.zero_grad()


def test_the_seams_that_trl_uses(policy, clips):
    model = policy.model
    assert model.base_model is model.model
    assert model.config.get_text_config() is model.config.text_config
    assert model.get_output_embeddings() is model.lm_head
    inputs = {**prompt(policy, 3), **model.encode_clips(**clips), **policy.processor.gate_inputs(1)}
    with torch.no_grad():
        hidden = model.base_model(**inputs).last_hidden_state
        assert torch.equal(model.lm_head(hidden), model(**inputs).logits)


def test_tags_survive_decoding_and_words_are_tokens(policy):
    tokenizer = policy.processor.tokenizer
    ids = tokenizer(TEXTS[0])["input_ids"]
    assert tokenizer.decode(ids, skip_special_tokens=True) == TEXTS[0]
    assert [tokenizer.convert_ids_to_tokens(i) for i in ids].count("<think>") == 1
    assert len(ids) <= 17


def test_save_and_load(policy, clips, tmp_path):
    policy.save(tmp_path / "policy")
    files = {p.name for p in (tmp_path / "policy").rglob("*")}
    assert {"config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja"} <= files
    assert str(tmp_path) not in "".join(p.read_text() for p in (tmp_path / "policy").glob("*.json"))
    again = load_policy(tmp_path / "policy")
    inputs = {**prompt(policy, 3), **policy.model.encode_clips(**clips), **policy.processor.gate_inputs(1)}
    with torch.no_grad():
        assert torch.equal(again.model(**inputs).logits, policy.model(**inputs).logits)
    assert again.processor.prompt_ids() == policy.processor.prompt_ids()
    assert not any(p.requires_grad for p in again.model.model.vision_tower.parameters())
    plain = AutoTokenizer.from_pretrained(tmp_path / "policy")
    messages = again.processor.build_messages()
    encoded = plain.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)
    assert encoded["input_ids"] == policy.processor.prompt_ids()
    assert type(AutoModelForCausalLM.from_pretrained(tmp_path / "policy")) is type(policy.model)
    policy.save(tmp_path / "twice")
    for path in sorted((tmp_path / "policy").rglob("*.*")):
        if path.is_file():
            other = tmp_path / "twice" / path.relative_to(tmp_path / "policy")
            assert path.read_bytes() == other.read_bytes(), path.name


def test_a_folder_without_a_policy_is_named(tmp_path):
    with pytest.raises(TrainingError, match=r"no policy here \(config.json is missing\)"):
        load_policy(tmp_path)
