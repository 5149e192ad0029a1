"""Our HumanOmni against the authors' published network: tiny seeded checkpoints, loaded as they are.

Every folder `data/humanomni_parity*` is run: a set of vectors for another projector needs no code.
"""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

from erv.errors import TrainingError
from erv.policies.humanomni import HumanOmniConfig, HumanOmniForConditionalGeneration, HumanOmniModel
from erv.policies.humanomni.released_weights import convert_name

FOLDERS = sorted((Path(__file__).parent / "data").glob("humanomni_parity*"))
CLOSE = {"atol": 1e-4, "rtol": 0}
LOADED: dict[Path, HumanOmniForConditionalGeneration] = {}


def read_cases(folder):
    return {case["name"]: case for case in json.loads((folder / "cases.json").read_text())["cases"]}


def named(condition):
    """(folder, case) for every case that meets a condition on (name, shapes)."""
    return [
        pytest.param(folder, name, id=f"{folder.name}-{name}")
        for folder in FOLDERS
        for name, case in read_cases(folder).items()
        if condition(name, case.get("shapes", {}))
    ]


def load(folder):
    if folder not in LOADED:
        torch.set_num_threads(1)
        LOADED[folder] = HumanOmniForConditionalGeneration.from_pretrained(folder)
    return LOADED[folder]


def case_tensors(folder, name):
    prefix = f"{name}."
    golden = load_file(folder / "io.safetensors")
    return {key.removeprefix(prefix): value for key, value in golden.items() if key.startswith(prefix)}


def clip_inputs(tensors):
    """The clip side of a golden case in our argument names."""
    pixels = [tensors[key] for key in sorted(tensors) if key.startswith("pixel_values.")]
    inputs = {"pixel_values": torch.stack(pixels), "gate_input_ids": tensors["bert.input_ids"]}
    inputs["gate_attention_mask"] = tensors["bert.attention_mask"]
    if "audios" in tensors:
        inputs["input_features"] = tensors["audios"]
    return inputs


def released_inputs(tensors):
    """All inputs of a golden case, placeholders negative as they are in the vectors."""
    return {name: tensors[name] for name in ("input_ids", "attention_mask")} | clip_inputs(tensors)


IS_FORWARD = named(lambda name, shapes: "logits" in shapes)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_every_released_weight_is_known_or_deliberately_dropped(folder):
    released = json.loads((folder / "cases.json").read_text())["state_dict_keys"]
    kept = {convert_name(name) for name in released} - {None}
    model = load(folder)
    ours = {name for name, _ in model.named_parameters()} | {"lm_head.weight"}
    # The last SigLIP block is converted by name and then left out by number.
    last = f"vision_tower.encoder.layers.{model.config.vision_config.num_hidden_layers}."
    assert {name for name in kept - ours if last not in name} == set()
    assert ours - kept == set()


@pytest.mark.parametrize("name", ["model.visual.blocks", "model.mm_projector.s1_video.b1.attention.weight"])
def test_a_foreign_weight_is_refused(name):
    with pytest.raises(TrainingError, match=rf"{name}: not a weight of a HumanOmni checkpoint"):
        convert_name(name)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_the_auto_classes_read_the_folder_as_it_is(folder):
    released = json.loads((folder / "config.json").read_text())
    for config in (AutoConfig.from_pretrained(folder), HumanOmniConfig.from_pretrained(folder)):
        assert type(config) is HumanOmniConfig
        assert config.text_config.vocab_size == released["vocab_size"]
        assert config.projector_type == released["mm_projector_type"]
        assert (config.video_token_id, config.audio_token_id) == (None, None)
    reference = load(folder).state_dict()
    for auto in (AutoModelForCausalLM, AutoModelForImageTextToText):
        model = auto.from_pretrained(folder)
        assert type(model) is HumanOmniForConditionalGeneration
        assert not model.training
        assert all(torch.equal(value, reference[name]) for name, value in model.state_dict().items())
    inner = HumanOmniModel.from_pretrained(folder)
    assert all(torch.equal(value, reference[f"model.{name}"]) for name, value in inner.state_dict().items())


@pytest.mark.parametrize(("folder", "name"), IS_FORWARD)
def test_towers_projectors_and_gate(folder, name):
    model, tensors = load(folder), case_tensors(folder, name)
    inputs = clip_inputs(tensors)
    with torch.no_grad():
        features = model.encode_clips(inputs["pixel_values"], inputs.get("input_features"))
        weights = model.model.gate_weights(inputs["gate_input_ids"], inputs["gate_attention_mask"])
        visual = model.model.visual_tokens(
            features["video_features"], inputs["gate_input_ids"], inputs["gate_attention_mask"]
        )
        side = model.config.patches_per_side
        video = model.model.visual_projector.video(features["video_features"], side)
        body = model.model.visual_projector.body(features["video_features"], side)
    torch.testing.assert_close(
        features["video_features"].flatten(0, 1), tensors["vision_tower_features"], **CLOSE
    )
    torch.testing.assert_close(weights, tensors["gate_probs"], **CLOSE)
    torch.testing.assert_close(video, tensors["branch_video"], **CLOSE)
    torch.testing.assert_close(body, tensors["branch_body"], **CLOSE)
    torch.testing.assert_close(visual, tensors["vision_features"], **CLOSE)
    if "audios" in tensors:
        torch.testing.assert_close(features["audio_features"], tensors["audio_tower_features"], **CLOSE)
        with torch.no_grad():
            audio = model.model.audio_projector(features["audio_features"])
        torch.testing.assert_close(audio, tensors["audio_features"], **CLOSE)


@pytest.mark.parametrize(("folder", "name"), IS_FORWARD)
def test_logits_and_loss(folder, name):
    model, tensors, case = load(folder), case_tensors(folder, name), read_cases(folder)[name]
    inputs, labels = released_inputs(tensors), tensors.get("labels")
    rows = model.expand_placeholders(
        inputs["input_ids"],
        inputs["attention_mask"],
        labels,
        pixel_values=inputs["pixel_values"],
        input_features=inputs.get("input_features"),
    )
    assert torch.equal(rows.attention_mask.bool(), tensors["expanded_attention_mask"].bool())
    with torch.no_grad():
        features = model.encode_clips(inputs["pixel_values"], inputs.get("input_features"))
        gate = {key: inputs[key] for key in ("gate_input_ids", "gate_attention_mask")}
        embeddings = model.model.embed(rows.input_ids, **features, **gate)
        outputs = model(**inputs, labels=labels)
    true = rows.attention_mask.bool()
    torch.testing.assert_close(embeddings[true], tensors["inputs_embeds"][true], **CLOSE)
    assert outputs.logits.shape == tensors["logits"].shape
    torch.testing.assert_close(outputs.logits[true], tensors["logits"][true], **CLOSE)
    if labels is not None:
        assert torch.equal(rows.labels, tensors["expanded_labels"])
        assert outputs.loss.item() == pytest.approx(case["loss"], abs=1e-4)


@pytest.mark.parametrize(("folder", "name"), IS_FORWARD)
def test_placeholders_of_the_vocabulary_give_the_same_logits(folder, name):
    """What `official_processor` sets up: two more rows in the vocabulary, one placeholder per token."""
    model, tensors = HumanOmniForConditionalGeneration.from_pretrained(folder), case_tensors(folder, name)
    released = model.config.text_config.vocab_size
    model.resize_token_embeddings(released + 2, mean_resizing=False)
    model.config.video_token_id, model.config.audio_token_id = released, released + 1
    inputs = released_inputs(tensors)
    with torch.no_grad():
        expected = model(**inputs).logits
        media = {key: inputs.get(key) for key in ("pixel_values", "input_features")}
        rows = model.expand_placeholders(inputs["input_ids"], inputs["attention_mask"], **media)
        ids = rows.input_ids
        ids = torch.where((ids == -200) | (ids == -201), released, ids)
        ids = torch.where(ids == -202, released + 1, ids)
        found = model(**{**inputs, "input_ids": ids, "attention_mask": rows.attention_mask}).logits
    assert torch.equal(found, expected)
    true = rows.attention_mask.bool()
    torch.testing.assert_close(found[..., :released][true], tensors["logits"][true], **CLOSE)


@pytest.mark.parametrize(("folder", "name"), named(lambda name, shapes: "generated_ids" in shapes))
def test_greedy_ids(folder, name):
    tensors = case_tensors(folder, name)
    expected = tensors["generated_ids"]
    length = expected.shape[1]
    generated = load(folder).generate(
        **released_inputs(tensors), do_sample=False, max_new_tokens=length, min_new_tokens=length
    )
    assert generated.tolist() == expected.tolist()


@pytest.mark.parametrize(("folder", "name"), named(lambda name, shapes: name == "grpo_scoring"))
def test_group_scoring_shares_one_clip(folder, name):
    """G completions of one prompt through `clip_index` score as the authors' repeated clips do."""
    model, tensors, case = load(folder), case_tensors(folder, name), read_cases(folder)[name]
    length = case["completion_length"]
    inputs = {
        "input_ids": tensors["input_ids"],
        "attention_mask": tensors["attention_mask"],
        "pixel_values": tensors["images"],
        "input_features": tensors["audios"][:, 0],
        "gate_input_ids": tensors["bert.input_ids"],
        "gate_attention_mask": tensors["bert.attention_mask"],
        "clip_index": torch.zeros(case["group"], dtype=torch.long),
    }
    with torch.no_grad():
        logits = model(**inputs, logits_to_keep=length + 1).logits
    torch.testing.assert_close(logits[:, 0], tensors["logits_last13"][:, 0], **CLOSE)
    true = tensors["attention_mask"][:, -length:].bool()
    scored = logits[:, :-1].log_softmax(-1).gather(-1, tensors["input_ids"][:, -length:, None]).squeeze(-1)
    torch.testing.assert_close(scored[true], tensors["completion_logps"][true], **CLOSE)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_save_and_load_keep_every_logit(folder, tmp_path):
    model, inputs = load(folder), released_inputs(case_tensors(folder, "video_audio"))
    model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "humanomni"
    again = HumanOmniForConditionalGeneration.from_pretrained(tmp_path)
    with torch.no_grad():
        assert torch.equal(model(**inputs).logits, again(**inputs).logits)
