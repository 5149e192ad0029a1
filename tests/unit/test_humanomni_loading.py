"""Released HumanOmni folders in all the shapes they come in: shards, precisions, towers here or elsewhere."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    AutoTokenizer,
    SiglipConfig,
    SiglipModel,
    SiglipVisionConfig,
    SiglipVisionModel,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForAudioClassification,
    WhisperForConditionalGeneration,
    WhisperModel,
)

from erv.errors import TrainingError
from erv.policies import Policy, load_policy
from erv.policies.humanomni import HumanOmniConfig, HumanOmniForConditionalGeneration
from erv.policies.humanomni.official import official_processor
from erv.policies.tiny import train_tokenizer, train_wordpiece
from erv.prompts import format_completion

DATA = Path(__file__).parents[1] / "golden" / "data" / "humanomni_parity"
VISION, AUDIO = "model.vision_tower.", "model.audio_tower."
WEIGHTS = load_file(DATA / "model.safetensors")
load = HumanOmniForConditionalGeneration.from_pretrained


def without(*prefixes):
    return {name: weight for name, weight in WEIGHTS.items() if not name.startswith(prefixes)}


def released(folder, weights=WEIGHTS, shards=1, leave_out=(), **config):
    """A released checkpoint: the vectors' one with other weights, files or configuration keys."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in DATA.glob("*config.json"):
        if file.name not in leave_out:
            shutil.copy(file, folder)
    content = json.loads((DATA / "config.json").read_text()) | config
    (folder / "config.json").write_text(json.dumps(content))
    if shards == 1:
        save_file(weights, folder / "model.safetensors")
        return folder
    names = sorted(weights)
    places = {}
    for shard in range(shards):
        file = f"model-{shard + 1:05d}-of-{shards:05d}.safetensors"
        save_file({name: weights[name] for name in names[shard::shards]}, folder / file)
        places |= dict.fromkeys(names[shard::shards], file)
    index = {"metadata": {"total_size": 0}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def same(model, other):
    state = other.state_dict()
    return all(torch.equal(weight, state[name]) for name, weight in model.state_dict().items())


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
    with pytest.raises(TrainingError, match=r"siglip_config.json: no valid JSON"):
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


# --- configurations of the towers ---


def test_tower_configurations_from_the_named_folders(tmp_path, reference):
    files = {
        "siglip": "siglip_config.json",
        "ears": "whisper_config.json",
        "bert-base-uncased": "bert_config.json",
    }
    folder = released(
        tmp_path / "checkpoint",
        leave_out=files.values(),
        mm_vision_tower="siglip",
        mm_audio_tower=str(tmp_path / "checkpoint" / "ears"),
    )
    for name, file in files.items():
        (folder / name).mkdir()
        shutil.copy(DATA / file, folder / name / "config.json")
    for config in (AutoConfig.from_pretrained(folder), HumanOmniConfig.from_pretrained(folder)):
        assert config.vision_config.image_size == 64
        assert config.audio_config.max_source_positions == 150
        assert config.gate_config.vocab_size == 128
    assert same(load(folder), reference)


def test_a_path_of_the_authors_machine_finds_the_public_tower_in_the_cache(tmp_path):
    folder = released(
        tmp_path / "checkpoint",
        leave_out=["whisper_config.json"],
        mm_audio_tower="/data/zj/models/whisper-large-v3",
    )
    (tmp_path / "ears").mkdir()
    shutil.copy(DATA / "whisper_config.json", tmp_path / "ears" / "config.json")
    where = cache(tmp_path / "cache", "openai/whisper-large-v3", tmp_path / "ears")
    config = HumanOmniConfig.from_pretrained(folder, **where)
    assert config.audio_config.max_source_positions == 150


def test_a_tower_configuration_that_is_nowhere_is_named_with_the_places(tmp_path):
    folder = released(
        tmp_path, leave_out=["whisper_config.json"], mm_audio_tower="/data/zj/models/whisper-large-v3"
    )
    with pytest.raises(TrainingError) as raised:
        HumanOmniConfig.from_pretrained(folder, cache_dir=tmp_path / "none", local_files_only=True)
    assert str(raised.value) == (
        f"{folder}: the configuration of its audio tower (Whisper) was not found (looked for"
        " whisper_config.json beside the weights, config.json of openai/whisper-large-v3). mm_audio_tower is"
        " '/data/zj/models/whisper-large-v3'. Put it beside the weights as whisper_config.json, or give"
        " mm_audio_tower=FOLDER"
    )


def test_a_tower_of_another_kind_is_refused(tmp_path):
    folder = released(tmp_path)
    shutil.copy(DATA / "bert_config.json", folder / "siglip_config.json")
    with pytest.raises(
        TrainingError, match=r"vision tower \(SigLIP\) is of model_type 'bert', expected siglip"
    ):
        HumanOmniConfig.from_pretrained(folder)


def test_sliding_windows_and_scaled_positions_are_kept(tmp_path):
    scaling = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}
    plain = HumanOmniConfig.from_pretrained(DATA).text_config
    assert plain.rope_parameters == {"rope_type": "default", "rope_theta": 1e6}
    assert set(plain.layer_types) == {"full_attention"}
    folder = released(
        tmp_path, rope_scaling=scaling, use_sliding_window=True, sliding_window=16, max_window_layers=1
    )
    text = HumanOmniConfig.from_pretrained(folder).text_config
    assert (text.rope_parameters["rope_type"], text.rope_parameters["factor"]) == ("yarn", 4.0)
    assert (text.sliding_window, text.layer_types) == (16, ["full_attention", "sliding_attention"])


def cache(root, name, folder):
    """Puts a folder where the hub's cache keeps a model of that name."""
    cached = root / f"models--{name.replace('/', '--')}"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text("a1")
    shutil.copytree(folder, cached / "snapshots" / "a1")
    return {"cache_dir": root, "local_files_only": True}


def test_a_checkpoint_and_its_tower_by_their_names_on_the_hub(tmp_path, reference):
    save_bare(tmp_path / "eyes", siglip_state(), json.loads((DATA / "siglip_config.json").read_text()))
    folder = released(
        tmp_path / "checkpoint",
        without(VISION),
        shards=2,
        leave_out=["siglip_config.json"],
        mm_vision_tower="google/siglip-base-patch16-224",
    )
    where = cache(tmp_path / "cache", "someone/R1-Omni", folder)
    cache(tmp_path / "cache", "google/siglip-base-patch16-224", tmp_path / "eyes")
    model = load("someone/R1-Omni", **where)
    assert same(model, reference)
    assert model.config.name_or_path == "someone/R1-Omni"


def test_a_named_tower_in_the_cache_is_compared_too(tmp_path):
    shifted = {name: weight + 0.5 for name, weight in siglip_state().items()}
    save_bare(tmp_path / "eyes", shifted, json.loads((DATA / "siglip_config.json").read_text()))
    where = cache(tmp_path / "cache", "google/siglip-base-patch16-224", tmp_path / "eyes")
    folder = released(tmp_path / "checkpoint", mm_vision_tower="/root/zj/siglip-base-patch16-224")
    with pytest.raises(TrainingError, match=r"not the one at google/siglip-base-patch16-224: largest differ"):
        load(folder, **where)


# --- weights of the towers ---


def siglip_state():
    prefix = "model.vision_tower.vision_tower.vision_model."
    return {name.removeprefix(prefix): w for name, w in WEIGHTS.items() if name.startswith(prefix)}


def whisper_state():
    prefix = "model.audio_tower.audio_tower.encoder."
    return {name.removeprefix(prefix): w for name, w in WEIGHTS.items() if name.startswith(prefix)}


def save_siglip(folder, kind):
    vision = json.loads((DATA / "siglip_config.json").read_text())
    if kind == "whole":
        text = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
        model = SiglipModel(SiglipConfig(vision_config=vision, text_config={**text, "vocab_size": 8}))
        model.vision_model.load_state_dict(siglip_state())
    elif kind == "vision model":
        model = SiglipVisionModel(SiglipVisionConfig(**vision))
        model.load_state_dict(siglip_state())
    else:
        save_bare(folder, {f"{kind}{name}": weight for name, weight in siglip_state().items()}, vision)
        return
    model.save_pretrained(folder)


def save_whisper(folder, kind):
    config = json.loads((DATA / "whisper_config.json").read_text())
    classes = {
        "classifier": WhisperForAudioClassification,
        "model": WhisperModel,
        "generator": WhisperForConditionalGeneration,
    }
    if kind not in classes:
        save_bare(folder, {f"{kind}{name}": weight for name, weight in whisper_state().items()}, config)
        return
    model = classes[kind](WhisperConfig(**config))
    (model.encoder if hasattr(model, "encoder") else model.get_encoder()).load_state_dict(whisper_state())
    model.save_pretrained(folder)


def save_bare(folder, weights, config):
    folder.mkdir(parents=True)
    save_file(weights, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("siglip", "whisper"),
    [
        ("whole", "classifier"),
        ("vision model", "model"),
        ("vision_model.", "generator"),
        ("", "model.encoder."),
        ("vision_model.", "encoder."),
        ("", ""),
    ],
)
def test_towers_from_the_named_folders(tmp_path, reference, siglip, whisper):
    save_siglip(tmp_path / "eyes", siglip)
    save_whisper(tmp_path / "ears", whisper)
    folder = released(
        tmp_path / "checkpoint",
        without(VISION, AUDIO),
        mm_vision_tower=str(tmp_path / "eyes"),
        mm_audio_tower=str(tmp_path / "ears"),
    )
    assert same(load(folder), reference)
    elsewhere = released(tmp_path / "elsewhere", without(VISION, AUDIO), leave_out=["siglip_config.json"])
    named = {"mm_vision_tower": str(tmp_path / "eyes"), "mm_audio_tower": str(tmp_path / "ears")}
    assert same(load(elsewhere, **named), reference), "named by the caller"
    assert same(AutoModelForImageTextToText.from_pretrained(elsewhere, **named), reference)


@pytest.mark.parametrize(("prefix", "key"), [(VISION, "mm_vision_tower"), (AUDIO, "mm_audio_tower")])
def test_a_checkpoint_without_towers_names_both_ways_out(tmp_path, prefix, key):
    folder = released(tmp_path / "checkpoint", without(prefix))
    message = (
        rf"no weights of its .* tower .*give the folder of the public tower as {key}, or a checkpoint that"
    )
    with pytest.raises(TrainingError, match=message):
        load(folder)
    (tmp_path / "empty").mkdir()
    with pytest.raises(TrainingError, match=message):
        load(folder, **{key: str(tmp_path / "empty")})


def test_rounding_is_not_a_difference_between_towers(tmp_path):
    """The public towers are stored in float32 and float16, checkpoints in bfloat16."""
    halves = {name: weight.bfloat16() for name, weight in WEIGHTS.items()}
    save_bare(tmp_path / "eyes", siglip_state(), json.loads((DATA / "siglip_config.json").read_text()))
    rounded = {name: weight.half() for name, weight in whisper_state().items()}
    save_bare(tmp_path / "ears", rounded, json.loads((DATA / "whisper_config.json").read_text()))
    folder = released(
        tmp_path / "checkpoint",
        halves,
        mm_vision_tower=str(tmp_path / "eyes"),
        mm_audio_tower=str(tmp_path / "ears"),
    )
    tower = load(folder).model.vision_tower.state_dict()
    for name, weight in siglip_state().items():
        if name in tower:
            assert torch.equal(tower[name], weight.bfloat16().float()), "the checkpoint's own are taken"


def test_other_towers_stop_with_the_figure(tmp_path, reference):
    name = "layers.1.fc1.weight"
    shifted = whisper_state()
    shifted[name] = shifted[name] + 0.25
    save_bare(tmp_path / "ears", shifted, json.loads((DATA / "whisper_config.json").read_text()))
    folder = released(tmp_path / "checkpoint", mm_audio_tower=str(tmp_path / "ears"))
    with pytest.raises(TrainingError) as raised:
        load(folder)
    message = str(raised.value)
    assert f"largest difference 0.25 in model.audio_tower.{name}" in message
    assert 'give the right folder as mm_audio_tower, or mm_audio_tower="" to compute with' in message
    assert same(load(folder, mm_audio_tower=""), reference)
    trained = released(
        tmp_path / "trained", mm_audio_tower=str(tmp_path / "ears"), unfreeze_mm_audio_tower=True
    )
    assert same(load(trained), reference), "a tower that was trained is the checkpoint's own"
    fewer = {name: weight for name, weight in shifted.items() if not name.startswith("layers.1.")}
    save_file(fewer, tmp_path / "ears" / "model.safetensors")
    with pytest.raises(TrainingError, match=r"ears: model.audio_tower.layers.1.* is missing, the checkpoint"):
        load(folder)


def test_a_named_tower_that_is_no_tower_is_refused(tmp_path):
    save_bare(tmp_path / "eyes", {"classifier.weight": torch.zeros(2)}, {"model_type": "siglip"})
    with pytest.raises(TrainingError, match=r"eyes: holds no weights of a vision tower \(SigLIP\)"):
        load(released(tmp_path / "checkpoint", mm_vision_tower=str(tmp_path / "eyes")))


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
