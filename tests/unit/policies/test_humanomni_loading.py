"""Released HumanOmni folders as files: shards, precisions, damage, pickles; the way to a policy folder."""

import json

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    AutoTokenizer,
    WhisperFeatureExtractor,
)

from erv.errors import TrainingError
from erv.policies import Policy, load_policy
from erv.policies.humanomni import HumanOmniConfig, HumanOmniForConditionalGeneration
from erv.policies.humanomni.official import official_processor
from erv.prompts import format_completion
from erv.sample.tiny_policy import train_tokenizer, train_wordpiece
from tests.support.released import (
    DATA,
    WEIGHTS,
    load,
    released,
    same,
    without,
)
from tests.support.sizes import SMALLEST


@pytest.fixture(scope="module")
def reference():
    torch.set_num_threads(1)
    return load(DATA)


# --- files and precisions ---


def test_shards_with_an_index(tmp_path, reference):
    assert same(load(released(tmp_path, shards=3)), reference)
    (tmp_path / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(TrainingError, match=r"model-00002-of-00003.safetensors: not found, but .* names it"):
        load(tmp_path)


@pytest.mark.parametrize("stored", [torch.float16, torch.bfloat16])
def test_half_precision_files(tmp_path, reference, stored):
    weights = {name: weight.to(stored) for name, weight in WEIGHTS.items()}
    folder = released(tmp_path, weights, torch_dtype=str(stored).removeprefix("torch."))
    assert load(folder).dtype == stored, "as the configuration says"
    full = load(folder, dtype=torch.float32)
    rounded = reference.state_dict()
    assert all(torch.equal(v, rounded[name].to(stored).float()) for name, v in full.state_dict().items())
    assert load(folder, dtype="bfloat16").dtype == torch.bfloat16


def test_the_table_settles_the_vocabulary(tmp_path):
    table = torch.cat([WEIGHTS["model.embed_tokens.weight"], torch.zeros(3, 64)])
    model = load(released(tmp_path, WEIGHTS | {"model.embed_tokens.weight": table}))
    assert model.lm_head.weight.shape[0] == model.config.text_config.vocab_size == 603
    assert model.lm_head.weight is model.get_input_embeddings().weight


def test_untied_heads_and_a_tied_head_that_was_saved(tmp_path, reference):
    head = {"lm_head.weight": torch.randn(600, 64)}
    assert same(load(released(tmp_path / "tied", WEIGHTS | head)), reference), "the table is the head"
    folder = released(tmp_path / "untied", WEIGHTS | head, tie_word_embeddings=False)
    assert torch.equal(load(folder).lm_head.weight, head["lm_head.weight"])
    with pytest.raises(TrainingError, match=r"don't fit together \(missing lm_head.weight\)"):
        load(released(tmp_path / "headless", tie_word_embeddings=False))


def test_towers_come_frozen_and_the_rest_trains(reference):
    frozen = {name.split(".")[1] for name, p in reference.named_parameters() if not p.requires_grad}
    assert frozen == {"vision_tower", "audio_tower"}


def test_generation_settings_of_the_checkpoint_count(tmp_path):
    folder = released(tmp_path)
    assert load(folder).generation_config.eos_token_id == 2
    (folder / "generation_config.json").write_text('{"eos_token_id": [2, 7], "repetition_penalty": 1.1}')
    settings = load(folder).generation_config
    assert (settings.eos_token_id, settings.repetition_penalty) == ([2, 7], 1.1)


@pytest.mark.parametrize(
    ("weights", "fault"),
    [
        (without("model.norm"), r"missing model.language_model.norm.weight"),
        (
            WEIGHTS | {"model.layers.9.mlp.up_proj.weight": torch.zeros(2)},
            r"unexpected model.language_model.la",
        ),
        (
            WEIGHTS | {"model.bert_gate.2.bias": torch.zeros(4)},
            r"model.gate.readout.bias is \[4\], expected \[3\]",
        ),
    ],
)
def test_weights_that_do_not_fit_are_named(tmp_path, weights, fault):
    with pytest.raises(TrainingError, match=rf"weights and configuration don't fit together \({fault}"):
        load(released(tmp_path, weights))


@pytest.mark.parametrize("ours", [False, True])
def test_a_pickle_is_never_opened(tmp_path, reference, ours):
    folder = released(tmp_path / "folder")
    if ours:
        reference.save_pretrained(folder)
    (folder / "optimizer.pt").write_bytes(b"not to be opened")
    assert same(load(folder), reference), "beside safetensors a pickle is no matter"
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    message = r"its weights are a pickle \(optimizer.pt\).* convert the checkpoint to safetensors"
    with pytest.raises(TrainingError, match=message):
        load(folder)
    for file in ("optimizer.pt", "pytorch_model.bin"):
        (folder / file).unlink()
    with pytest.raises(TrainingError, match=r"no model.safetensors and no model.safetensors.index.json here"):
        load(folder)


def test_damaged_files_are_named(tmp_path):
    folder = released(tmp_path)
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(TrainingError, match=r"model.safetensors: not a whole safetensors file"):
        load(folder)
    (folder / "siglip_config.json").write_text("{")
    with pytest.raises(TrainingError, match=r"siglip_config.json: not valid JSON"):
        load(folder)


def test_code_in_a_folder_is_never_run(tmp_path, reference):
    trap = f"import pathlib\npathlib.Path({str(tmp_path / 'sprung')!r}).touch()\n"
    folder = released(
        tmp_path / "folder", auto_map={"AutoConfig": "trap.C", "AutoModelForImageTextToText": "trap.M"}
    )
    (folder / "trap.py").write_text(trap)
    for trust in (None, True):
        assert same(AutoModelForImageTextToText.from_pretrained(folder, trust_remote_code=trust), reference)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("mm_projector_type", "stc_connector"),
        ("mm_audio_projector_type", "linear"),
        ("mm_vision_select_feature", "cls_patch"),
        ("mm_vision_select_layer", -5),
    ],
)
def test_a_network_that_is_not_humanomni_is_refused(tmp_path, key, value):
    with pytest.raises(TrainingError, match=rf"{key} is '?{value}'?, but "):
        HumanOmniConfig.from_pretrained(released(tmp_path, **{key: value}))


@pytest.mark.parametrize(
    ("hidden", "tied", "projector", "siglip", "blocks", "per_frame"),
    [
        (896, True, "all_in_one_small", (768, 224, 16, 12), 11, 49),
        (3584, False, "all_in_one", (1152, 384, 14, 27), 26, 196),
    ],
    ids=["0.5B", "7B"],
)
def test_the_sizes_of_the_released_models(tmp_path, hidden, tied, projector, siglip, blocks, per_frame):
    """Built on the meta device: no memory, every shape."""
    width, image, patch, layers = siglip
    heads = {896: (14, 2, 4864, 24), 3584: (28, 4, 18944, 28)}[hidden]
    folder = released(
        tmp_path,
        hidden_size=hidden,
        num_attention_heads=heads[0],
        num_key_value_heads=heads[1],
        intermediate_size=heads[2],
        num_hidden_layers=heads[3],
        vocab_size=151936,
        tie_word_embeddings=tied,
        mm_projector_type=projector,
        torch_dtype="bfloat16",
    )
    configs = {
        "siglip": {
            "hidden_size": width,
            "image_size": image,
            "patch_size": patch,
            "num_hidden_layers": layers,
        },
        "whisper": {
            "d_model": 1280,
            "encoder_layers": 32,
            "num_mel_bins": 128,
            "encoder_attention_heads": 20,
        },
        "bert": {},
    }
    for name, content in configs.items():
        (folder / f"{name}_config.json").write_text(json.dumps(content))
    config = AutoConfig.from_pretrained(folder)
    assert (config.tokens_per_frame, config.audio_tokens) == (per_frame, 500)
    assert config.vision_config.num_hidden_layers == blocks
    assert config.dtype == torch.bfloat16
    with torch.device("meta"):
        state = HumanOmniForConditionalGeneration(config).state_dict()
    assert state["model.gate.enter.weight"].shape == (3584, 768)
    assert state["model.audio_projector.enter.weight"].shape == (hidden, 1280)
    assert state["model.visual_projector.body.sampler.weight"].shape == (hidden, 8 * hidden)
    squeezed = state["model.visual_projector.video.before.0.excite.reduce.weight"].shape
    assert squeezed == (round(width * 0.25), hidden)


# --- from a released checkpoint to a policy folder ---


def test_a_released_checkpoint_becomes_a_policy_folder(tmp_path):
    """The recipe of `official`, with a tokenizer that is shorter than the table, and one that is longer."""
    texts = [format_completion("The voice is loud.", "anger")] * 3
    WhisperFeatureExtractor.from_pretrained(DATA / "whisper_preprocessor_config.json").save_pretrained(
        tmp_path / "ears"
    )
    train_wordpiece(["which emotion"], 64, max_length=16).save_pretrained(tmp_path / "bert")
    for vocabulary, rows in ((450, 600), (600, None)):
        tokenizer = train_tokenizer(texts, vocabulary)
        tokenizer.add_tokens([f"[{number}]" for number in range(vocabulary - len(tokenizer))])
        tokenizer.save_pretrained(tmp_path / "text")
        model = load(DATA)
        processor = official_processor(model, tmp_path / "text", tmp_path / "ears", tmp_path / "bert")
        assert model.config.text_config.vocab_size == (rows or len(processor.tokenizer))
        Policy(model, processor).save(tmp_path / "policy")
        policy = load_policy(tmp_path / "policy")
        video = policy.model.config.video_token_id
        assert video == policy.processor.tokenizer.convert_tokens_to_ids("<video>")
        ids = policy.processor.prompt_ids()
        assert ids.count(video) == 128
        assert ids.count(policy.model.config.audio_token_id) == 50
        assert policy.model.generation_config.suppress_tokens == [video, policy.model.config.audio_token_id]
        clip = {"pixel_values": torch.randn(1, 8, 3, 64, 64), "input_features": torch.randn(1, 16, 300)}
        short = [-201 if i == video else -202 if i == policy.model.config.audio_token_id else i for i in ids]
        short = [i for n, i in enumerate(short) if i >= 0 or n == 0 or short[n - 1] != i]
        with torch.no_grad():
            gate = policy.processor.gate_inputs()
            expanded = policy.model(input_ids=torch.tensor([ids]), **clip, **gate).logits
            negative = model(input_ids=torch.tensor([short]), **clip, **gate).logits
        assert torch.equal(expanded, negative)
    assert AutoTokenizer.from_pretrained(tmp_path / "policy").chat_template


def test_a_policy_folder_that_is_not_whole_is_refused(tmp_path):
    from safetensors.torch import load_file, save_file

    from erv.sample.tiny_policy import build_tiny_policy

    folder = tmp_path / "policy"
    Policy(*build_tiny_policy(["a few words"] * 3, seed=1, sizes=SMALLEST)).save(folder)
    weights = load_file(folder / "model.safetensors")
    name = "model.language_model.layers.0.mlp.up_proj.weight"
    shorter = {**weights, name: weights[name][:-1].contiguous()}
    fewer = {key: weight for key, weight in weights.items() if key != name}
    for broken, fault in ((shorter, r"up_proj.weight is \["), (fewer, f"missing {name}")):
        save_file(broken, folder / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(TrainingError, match=fault):
            load_policy(folder)
    (folder / "config.json").unlink()
    with pytest.raises(TrainingError, match=r"no config\.json here"):
        HumanOmniForConditionalGeneration.from_pretrained(folder)


def test_a_released_folder_is_no_policy_yet_and_says_so(tmp_path):
    with pytest.raises(
        TrainingError, match=r"no processor here .*, as in a released checkpoint; .* docs/policies\.md"
    ):
        load_policy(released(tmp_path))
