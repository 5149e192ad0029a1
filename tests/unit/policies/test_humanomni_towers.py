"""Towers of a released HumanOmni: their sizes and weights, from the checkpoint or from elsewhere."""

import json
import shutil

import pytest
import torch
from safetensors.torch import save_file
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    SiglipConfig,
    SiglipModel,
    SiglipVisionConfig,
    SiglipVisionModel,
    WhisperConfig,
    WhisperForAudioClassification,
    WhisperForConditionalGeneration,
    WhisperModel,
)

from erv.errors import TrainingError
from erv.policies.humanomni import HumanOmniConfig
from tests.support.released import (
    AUDIO,
    DATA,
    VISION,
    WEIGHTS,
    cache,
    load,
    released,
    same,
    save_bare,
    siglip_state,
    whisper_state,
    without,
)


@pytest.fixture(scope="module")
def reference():
    torch.set_num_threads(1)
    return load(DATA)


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
    folder = released(tmp_path / "checkpoint", mm_vision_tower="/elsewhere/siglip-base-patch16-224")
    with pytest.raises(TrainingError, match=r"not the one at google/siglip-base-patch16-224: largest differ"):
        load(folder, **where)


# --- weights of the towers ---


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
    assert 'give the right folder as mm_audio_tower, or mm_audio_tower="" to use the one in' in message
    assert same(load(folder, mm_audio_tower=""), reference)
    trained = released(
        tmp_path / "trained", mm_audio_tower=str(tmp_path / "ears"), unfreeze_mm_audio_tower=True
    )
    assert same(load(trained), reference), "a tower that was trained is the checkpoint's own"
    fewer = {name: weight for name, weight in shifted.items() if not name.startswith("layers.1.")}
    save_file(fewer, tmp_path / "ears" / "model.safetensors")
    missing = r"ears: model.audio_tower.layers.1.* is missing, but in the checkpoint"
    with pytest.raises(TrainingError, match=missing):
        load(folder)


def test_a_named_tower_that_is_no_tower_is_refused(tmp_path):
    save_bare(tmp_path / "eyes", {"classifier.weight": torch.zeros(2)}, {"model_type": "siglip"})
    with pytest.raises(TrainingError, match=r"eyes: holds no weights of a vision tower \(SigLIP\)"):
        load(released(tmp_path / "checkpoint", mm_vision_tower=str(tmp_path / "eyes")))
