"""Our HumanOmni against the authors' published network: a tiny seeded checkpoint, in their key names."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from erv.errors import TrainingError
from erv.policies.humanomni.official import convert_name, load_official

DATA = Path(__file__).parent / "data" / "humanomni_parity"
TOLERANCE = 1e-4
CASES = ["video_audio", "video_only", "image_only", "batch_labels"]


@pytest.fixture(scope="module")
def model():
    torch.set_num_threads(1)
    return load_official(DATA)


@pytest.fixture(scope="module")
def golden():
    return load_file(DATA / "io.safetensors")


@pytest.fixture(scope="module")
def cases():
    return {case["name"]: case for case in json.loads((DATA / "cases.json").read_text())["cases"]}


def case_tensors(golden, name):
    prefix = f"{name}."
    return {key.removeprefix(prefix): value for key, value in golden.items() if key.startswith(prefix)}


def clip_inputs(tensors):
    """The clip side of a golden case in our argument names."""
    pixels = [tensors[key] for key in sorted(tensors) if key.startswith("pixel_values.")]
    inputs = {"pixel_values": torch.stack(pixels), "gate_input_ids": tensors["bert.input_ids"]}
    inputs["gate_attention_mask"] = tensors["bert.attention_mask"]
    if "audios" in tensors:
        inputs["input_features"] = tensors["audios"]
    return inputs


def expand(model, tensors, frames, ids=None, mask=None, labels=None):
    """Negative placeholder ids to one vocabulary placeholder per token; padding goes to the right."""
    ids = tensors["input_ids"] if ids is None else ids
    mask = tensors["attention_mask"] if mask is None else mask
    counts = {-200: frames * model.config.tokens_per_frame, -201: frames * model.config.tokens_per_frame}
    counts[-202] = model.config.audio_tokens
    names = {-200: model.config.video_token_id, -201: model.config.video_token_id}
    names[-202] = model.config.audio_token_id
    rows, targets = [], []
    for r in range(ids.shape[0]):
        row, target = [], []
        for c in range(ids.shape[1]):
            token = int(ids[r, c])
            if not mask[r, c]:
                continue
            count = counts.get(token, 1)
            row += [names.get(token, token)] * count
            target += [int(labels[r, c]) if labels is not None and token >= 0 else -100] * count
        rows.append(row)
        targets.append(target)
    length = max(map(len, rows))
    pad = torch.nn.functional.pad
    return {
        "input_ids": torch.stack([pad(torch.tensor(x), (0, length - len(x)), value=0) for x in rows]),
        "attention_mask": torch.stack([pad(torch.ones(len(x)).long(), (0, length - len(x))) for x in rows]),
        "labels": torch.stack([pad(torch.tensor(x), (0, length - len(x)), value=-100) for x in targets]),
    }


def test_every_released_weight_is_known_or_deliberately_dropped(model):
    released = json.loads((DATA / "cases.json").read_text())["state_dict_keys"]
    kept = {convert_name(name) for name in released} - {None}
    ours = {name for name, _ in model.named_parameters()} | {"lm_head.weight"}
    # The last SigLIP block is converted by name and then left out by number.
    assert {name for name in kept - ours if "vision_tower.encoder.layers.2." not in name} == set()
    assert {name for name in ours - kept if not name.endswith("position_ids")} == set()


def test_a_foreign_weight_is_refused():
    with pytest.raises(TrainingError, match=r"model\.visual\.blocks: not a weight of a HumanOmni checkpoint"):
        convert_name("model.visual.blocks")


@pytest.mark.parametrize("name", CASES)
def test_towers_projectors_and_gate(model, golden, name):
    tensors = case_tensors(golden, name)
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
    close = {"atol": TOLERANCE, "rtol": 0}
    torch.testing.assert_close(
        features["video_features"].flatten(0, 1), tensors["vision_tower_features"], **close
    )
    torch.testing.assert_close(weights, tensors["gate_probs"], **close)
    torch.testing.assert_close(video, tensors["branch_video"], **close)
    torch.testing.assert_close(body, tensors["branch_body"], **close)
    torch.testing.assert_close(visual, tensors["vision_features"], **close)
    if "audios" in tensors:
        torch.testing.assert_close(features["audio_features"], tensors["audio_tower_features"], **close)
        with torch.no_grad():
            audio = model.model.audio_projector(features["audio_features"])
        torch.testing.assert_close(audio, tensors["audio_features"], **close)


@pytest.mark.parametrize("name", CASES)
def test_logits_and_loss(model, golden, cases, name):
    tensors = case_tensors(golden, name)
    inputs = clip_inputs(tensors)
    text = expand(model, tensors, inputs["pixel_values"].shape[1], labels=tensors.get("labels"))
    assert torch.equal(text["attention_mask"].bool(), tensors["expanded_attention_mask"].bool())
    labels = text.pop("labels")
    with torch.no_grad():
        outputs = model(**text, **inputs, labels=labels if "labels" in tensors else None)
    vocabulary = tensors["logits"].shape[-1]
    true = text["attention_mask"].bool()
    torch.testing.assert_close(
        outputs.logits[..., :vocabulary][true], tensors["logits"][true], atol=TOLERANCE, rtol=0
    )
    if "labels" in tensors:
        assert torch.equal(labels, tensors["expanded_labels"])
        # Two more rows in the vocabulary change the normaliser, so the loss is taken on the shared ones.
        loss = torch.nn.functional.cross_entropy(
            outputs.logits[:, :-1, :vocabulary].flatten(0, 1), labels[:, 1:].flatten()
        )
        assert loss.item() == pytest.approx(cases[name]["loss"], abs=TOLERANCE)


@pytest.mark.parametrize("name", ["video_audio", "video_only", "image_only"])
def test_greedy_ids(model, golden, name):
    tensors = case_tensors(golden, name)
    inputs = clip_inputs(tensors)
    text = expand(model, tensors, inputs["pixel_values"].shape[1])
    text.pop("labels")
    expected = tensors["generated_ids"]
    generated = model.generate(
        **text, **inputs, do_sample=False, max_new_tokens=expected.shape[1], min_new_tokens=expected.shape[1]
    )
    assert generated[:, text["input_ids"].shape[1] :].tolist() == expected.tolist()


def test_group_scoring_shares_one_clip(model, golden, cases):
    """G completions of one prompt through `clip_index` score as the authors' repeated clips do."""
    tensors = case_tensors(golden, "grpo_scoring")
    length, group = cases["grpo_scoring"]["completion_length"], cases["grpo_scoring"]["group"]
    frames = tensors["images"].shape[1]
    ids = tensors["input_ids"]
    text = expand(model, tensors, frames, ids=ids, mask=torch.ones_like(ids))
    text.pop("labels")
    # Masked tokens of a completion are scored too: they sit behind the true ones.
    text["attention_mask"][:, -ids.shape[1] + 10 :] = tensors["attention_mask"][:, 10:]
    inputs = {
        "pixel_values": tensors["images"],
        "input_features": tensors["audios"][:, 0],
        "gate_input_ids": tensors["bert.input_ids"],
        "gate_attention_mask": tensors["bert.attention_mask"],
        "clip_index": torch.zeros(group, dtype=torch.long),
    }
    with torch.no_grad():
        logits = model(**text, **inputs, logits_to_keep=length + 1).logits[..., :600]
    true = tensors["attention_mask"][:, -length:].bool()
    scored = logits[:, :-1].log_softmax(-1).gather(-1, ids[:, -length:, None]).squeeze(-1)
    torch.testing.assert_close(scored[true], tensors["completion_logps"][true], atol=TOLERANCE, rtol=0)


def test_save_and_load_keep_every_logit(model, golden, tmp_path):
    tensors = case_tensors(golden, "video_audio")
    inputs = clip_inputs(tensors)
    text = expand(model, tensors, 8)
    text.pop("labels")
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path).eval()
    with torch.no_grad():
        assert torch.equal(model(**text, **inputs).logits, again(**text, **inputs).logits)
