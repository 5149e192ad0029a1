"""Qwen2.5-Omni as a policy: equal to transformers' own forward, trained by both stages, loaded as released.

What every family must hold to is in test_policy_contract.py.
"""

import functools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Qwen2_5OmniThinkerConfig, Qwen2_5OmniThinkerForConditionalGeneration
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from erv.errors import DataError, TrainingError
from erv.manifest import ClipRow
from erv.policies import Policy, load_policy
from erv.policies.common.generate import generate_completions
from erv.policies.qwen_omni import Geometry, load_released
from erv.prompts import format_completion
from erv.settings import load_settings
from erv.shards import Clip, ShardReader, ShardWriter
from erv.training.grpo import grpo
from erv.training.grpo.grpo import build_rows, train_grpo
from erv.training.grpo.trainer import OmniGRPOTrainer
from erv.training.sft.sft import train_sft
from tests.support.paths import ROOT
from tests.support.policy_contract import prepared, prompt, random_clips
from tests.support.runtime import MACHINE, RUNTIME
from tests.support.tiny_qwen_omni import FRAMES, RATE, SECONDS, SIZE, tiny_qwen_omni, tiny_thinker_config

TEXTS = [format_completion("The voice is loud. She seems angry.", "anger")] * 3
GEOMETRY = Geometry(num_frames=FRAMES, image_size=SIZE, window_seconds=SECONDS)


@pytest.fixture(scope="module")
def policy() -> Policy:
    torch.set_num_threads(1)
    return tiny_qwen_omni(TEXTS, seed=1)


@pytest.fixture(scope="module")
def clips(policy: Policy) -> list[Clip]:
    return random_clips(policy, 3)


@pytest.fixture(scope="module")
def stock(policy: Policy) -> Qwen2_5OmniThinkerForConditionalGeneration:
    """transformers' own model with the weights of the policy."""
    return own_model(policy)


def own_model(policy: Policy) -> Qwen2_5OmniThinkerForConditionalGeneration:
    config = Qwen2_5OmniThinkerConfig(**tiny_thinker_config(policy.processor.tokenizer))
    model = Qwen2_5OmniThinkerForConditionalGeneration(config).eval()
    weights = policy.model.state_dict()
    if (
        "visual.merger.ln_q.weight" in model.state_dict()
    ):  # transformers 5.17 names them as the released files do
        weights = {released_name(name): value for name, value in weights.items()}
    model.load_state_dict(weights)
    return model


def own_inputs(policy: Policy, clips: list[Clip], hears: list[bool]) -> dict[str, torch.Tensor]:
    """What transformers' model takes for a batch, one clip per row; sound only for rows that hear it."""
    raw = prepared(policy, clips)
    mels = raw["input_features"][torch.tensor(hears)]
    inputs = {
        "pixel_values_videos": raw["pixel_values_videos"].flatten(0, 1),
        "video_grid_thw": torch.tensor([policy.model.config.grid] * len(clips)),
        "video_second_per_grid": torch.ones(len(clips)),
    }
    if any(hears):
        inputs |= {
            "input_features": mels,
            "feature_attention_mask": torch.ones(mels.shape[0], mels.shape[2], dtype=torch.long),
        }
    return inputs


def padded(policy: Policy, hears: list[bool]) -> dict[str, torch.Tensor]:
    """Prompts with and without sound, padded on the left."""
    prompts = [policy.processor.prompt_ids(audio=sound) for sound in hears]
    length, pad = max(map(len, prompts)), policy.processor.tokenizer.pad_token_id
    return {
        "input_ids": torch.tensor([[pad] * (length - len(row)) + row for row in prompts]),
        "attention_mask": torch.tensor([[0] * (length - len(row)) + [1] * len(row) for row in prompts]),
    }


# --- the same numbers as transformers ---


@torch.no_grad()
@pytest.mark.parametrize(
    "hears", [[True] * 3, [False] * 3, [True, False, True]], ids=["video and audio", "video", "padded batch"]
)
def test_logits_equal_transformers_own(policy, clips, stock, hears):
    inputs = padded(policy, hears)
    ours = policy.model(**inputs, **policy.model.encode_clips(**prepared(policy, clips))).logits
    own = stock(**inputs, **own_inputs(policy, clips, hears)).logits
    kept = inputs["attention_mask"].bool()
    torch.testing.assert_close(ours[kept], own[kept], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_generation_equals_transformers_own(policy, clips, stock):
    hears = [True, False, True]
    inputs, options = padded(policy, hears), {"max_new_tokens": 8, "do_sample": False}
    features = policy.model.encode_clips(**prepared(policy, clips))
    ours = policy.model.generate(**inputs, **features, **options)
    own = stock.generate(
        **inputs,
        **own_inputs(policy, clips, hears),
        **options,
        suppress_tokens=policy.model.placeholder_ids,
        pad_token_id=policy.processor.tokenizer.pad_token_id,
    )
    assert torch.equal(ours, own)


@pytest.mark.parametrize(("frames", "size"), [(2, 28), (4, 56), (8, 84)])
def test_positions_equal_transformers_own(frames, size):
    policy = tiny_qwen_omni(TEXTS, seed=1, num_frames=frames, image_size=size)
    hears = [True, False, True]
    inputs = padded(policy, hears)
    twice = {name: torch.cat([value, value], dim=1) for name, value in inputs.items()}  # two videos in a row
    own = own_model(policy)
    for batch, videos in ((inputs, 1), (twice, 2)):
        expected, _ = own.get_rope_index(
            batch["input_ids"],
            video_grid_thw=torch.tensor([policy.model.config.grid] * 3 * videos),
            attention_mask=batch["attention_mask"],
            audio_seqlens=torch.tensor([policy.model.config.mel_steps] * 2 * videos),
            second_per_grids=torch.ones(3 * videos),
        )
        kept = batch["attention_mask"].bool()
        assert torch.equal(policy.model.positions(**batch)[:, kept], expected[:, kept])


def test_patches_equal_those_of_the_pil_processor(policy, clips):
    """Which stands one picture for both frames of a patch: each of them is compared with its own picture."""
    own = Qwen2VLImageProcessorPil(do_resize=False)
    found = policy.processor.prepare_clip(clips[0].frames, clips[0].audio, RATE)["pixel_values_videos"]
    found = found.unflatten(1, (3, 2, 14, 14)).unflatten(0, (FRAMES // 2, -1))
    for number, frame in enumerate(clips[0].frames):
        one = own(images=[frame], return_tensors="pt")
        assert one["image_grid_thw"].tolist() == [[1, SIZE // 14, SIZE // 14]]
        expected = one["pixel_values"].unflatten(1, (3, 2, 14, 14))
        torch.testing.assert_close(
            found[number // 2, :, :, number % 2], expected[:, :, 0], atol=1e-5, rtol=1e-5
        )


def test_sound_is_cut_to_the_window_and_padded_with_silence(policy, clips):
    def mel(audio):
        return policy.processor.prepare_clip(clips[0].frames, audio, RATE)["input_features"]

    sound = clips[0].audio
    assert mel(sound).shape == (16, 100)
    silence = np.zeros(3 * RATE, np.int16)
    assert torch.equal(mel(sound), mel(np.concatenate([sound, silence])[:RATE]))
    assert torch.equal(mel(np.concatenate([sound, silence])), mel(sound))


# --- what is refused ---


def test_a_filled_cache_needs_positions(policy, clips):
    inputs = prompt(policy, 1, audio=False)
    features = policy.model.encode_clips(**prepared(policy, clips[:1]))
    cache = policy.model.base_model(**inputs, **features, use_cache=True).past_key_values
    with pytest.raises(
        ValueError, match=r"give position_ids with a filled cache; take them from positions\(\)"
    ):
        policy.model(input_ids=inputs["input_ids"][:, -1:], past_key_values=cache)


def test_generation_from_embeddings_is_refused(policy):
    with pytest.raises(ValueError, match="generate from input_ids, not from inputs_embeds"):
        policy.model.generate(inputs_embeds=torch.zeros(1, 4, 32), max_new_tokens=1)


def test_wrong_number_of_placeholders_is_refused(policy, clips):
    inputs = prompt(policy, 1)
    number = int((inputs["input_ids"][0] == policy.model.config.video_token_id).nonzero()[0])
    inputs["input_ids"][0, number] = policy.processor.tokenizer.eos_token_id
    with pytest.raises(ValueError, match=r"a row has \[7\] video placeholders, expected 0 or 8"):
        policy.model(**inputs, **policy.model.encode_clips(**prepared(policy, clips[:1])))


def test_a_prompt_of_text_alone_is_refused(policy):
    with pytest.raises(DataError, match="a prompt needs frames or sound, but has neither"):
        policy.processor.prompt_ids(video=False, audio=False)


def test_a_text_only_model_is_refused(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen2"}))
    with pytest.raises(
        TrainingError, match=r"model_type 'qwen2' is not a policy that sees and hears \(known: "
    ):
        load_policy(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_frames": 3}, "num_frames is 3, but Qwen2.5-Omni takes multiples of 2"),
        ({"image_size": 60}, "image_size is 60, but Qwen2.5-Omni takes multiples of 28"),
        ({"image_size": 0}, "image_size is 0, but"),
    ],
)
def test_a_geometry_that_does_not_fit_is_refused(changes, message):
    with pytest.raises(TrainingError, match=message):
        tiny_qwen_omni(TEXTS, seed=1, **changes)


# --- released folders ---


def released_name(name: str) -> str:
    """The name of a weight of ours in a released thinker."""
    old = name.removeprefix("model.")
    if old.startswith("language_model."):
        return "model." + old.removeprefix("language_model.")
    return old


def write_released(policy: Policy, folder: Path, *, whole: bool) -> None:
    """A folder as Qwen2.5-Omni was released (names, nesting, parts that speak), or the thinker's alone."""
    folder.mkdir()
    thinker = tiny_thinker_config(policy.processor.tokenizer) | {"model_type": "qwen2_5_omni_thinker"}
    config = (
        {"model_type": "qwen2_5_omni", "thinker_config": thinker, "talker_config": {}} if whole else thinker
    )
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "preprocessor_config.json").write_text(
        json.dumps({"feature_size": 16, "sampling_rate": RATE, "chunk_length": 300, "image_mean": [0.4] * 3})
    )
    policy.processor.tokenizer.save_pretrained(folder)
    weights = {}
    for name, value in policy.model.state_dict().items():
        old = released_name(name)
        weights[f"thinker.{old}" if whole else old] = value.clone()
    if whole:
        weights |= {"talker.codec_head.weight": torch.zeros(2, 2), "token2wav.x.weight": torch.zeros(2)}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize("whole", [True, False], ids=["whole", "thinker"])
@torch.no_grad()
def test_a_released_folder_becomes_a_policy(policy, clips, tmp_path, whole):
    write_released(policy, tmp_path / "released", whole=whole)
    loaded = Policy(*load_released(tmp_path / "released", geometry=GEOMETRY))
    assert loaded.processor.image_mean == [0.4] * 3, "the released colours were expected"
    loaded.processor.image_mean = policy.processor.image_mean
    loaded.save(tmp_path / "policy")
    names = set(load_file(tmp_path / "policy" / "model.safetensors"))
    assert names == set(policy.model.state_dict()), "saved under other names than a checkpoint is read by"
    again = load_policy(tmp_path / "policy")
    inputs = prompt(policy, 3)
    assert again.processor.prompt_ids() == inputs["input_ids"][0].tolist()
    expected = policy.model(**inputs, **policy.model.encode_clips(**prepared(policy, clips))).logits
    for found in (loaded, again):
        logits = found.model.eval()(**inputs, **found.model.encode_clips(**prepared(found, clips))).logits
        assert torch.equal(logits, expected)


def test_load_policy_takes_a_released_folder_with_the_default_geometry(policy, tmp_path):
    write_released(policy, tmp_path / "released", whole=True)
    loaded = load_policy(tmp_path / "released")
    assert (loaded.processor.num_frames, loaded.processor.image_size) == (8, 336)
    assert (loaded.model.config.video_tokens, loaded.model.config.audio_tokens) == (576, 250)


def test_a_released_folder_that_is_not_whole_is_refused(policy, tmp_path):
    folder = tmp_path / "released"
    write_released(policy, folder, whole=True)
    weights = load_file(folder / "model.safetensors")
    del weights["thinker.visual.patch_embed.proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(TrainingError, match=r"\(missing model\.visual\.patch_embed\.proj\.weight\)"):
        load_released(folder, geometry=GEOMETRY)
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(TrainingError, match=r"preprocessor_config\.json: not found"):
        load_released(folder, geometry=GEOMETRY)


def test_a_tokenizer_of_another_checkpoint_is_refused(policy, tmp_path):
    folder = tmp_path / "released"
    write_released(policy, folder, whole=False)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"video_token_index": 7}))
    with pytest.raises(TrainingError, match=r"gives <\|VIDEO\|> the id \d+, config\.json says 7"):
        load_released(folder, geometry=GEOMETRY)


# --- both stages train it ---


def row(number: int, split: str = "train") -> ClipRow:
    name, label = f"clip{number}", "anger"
    return ClipRow(
        name, "reasoning", 0, split, label, label, None, TEXTS[0], "video", "", 0, "", "", "", None
    )


@pytest.fixture(scope="module")
def shards(policy, tmp_path_factory) -> dict[str, ShardReader]:
    """Four clips; the last one has no sound."""
    folder = tmp_path_factory.mktemp("shards") / "reasoning"
    with ShardWriter(folder, clips_per_shard=4) as writer:
        for number, clip in enumerate(random_clips(policy, 4)):
            silent = number == 3
            audio = clip.audio[: 0 if silent else None]
            writer.add(Clip(clip.clip_id, clip.frames, audio, RATE, has_audio=not silent))
    return {"reasoning": ShardReader(folder)}


@pytest.fixture(scope="module")
def cold_start(policy, shards, tmp_path_factory) -> Path:
    """Two steps of the stage sft."""
    folder = tmp_path_factory.mktemp("policies")
    policy.save(folder / "base")
    settings = load_settings(ROOT / "params.yaml").sft.model_copy(
        update={"max_steps": 2, "batch_size": 2, "learning_rate": 1e-3}
    )
    trained = train_sft(
        load_policy(folder / "base"),
        [row(number) for number in range(4)],
        shards,
        settings,
        checkpoints=folder / "checkpoints",
        on_metrics=lambda metrics, step: None,
        seed=0,
        runtime=RUNTIME,
        machine=MACHINE,
    )
    trained.save(folder / "sft")
    return folder / "sft"


def parts_that_changed(before: Path, after: Path) -> set[str]:
    old, new = (load_file(folder / "model.safetensors") for folder in (before, after))
    assert old.keys() == new.keys()
    changed = {name for name in old if not torch.equal(old[name], new[name])}
    return {name.removeprefix("model.").split(".")[0] for name in changed}


def test_the_cold_start_trains_the_language_model_alone(cold_start):
    assert parts_that_changed(cold_start.parent / "base", cold_start) == {"language_model", "lm_head"}


def letter_e(completions, **columns):
    return [float(completion[0]["content"].count("e")) for completion in completions]


def run_grpo(cold_start: Path, shards: dict[str, ShardReader], place: Path, *, adapters: bool = False):
    """Two steps of the stage grpo: the written folder and what was measured."""
    chosen = load_settings(ROOT / "params.yaml").grpo
    settings = chosen.model_copy(
        update={
            "max_steps": 2,
            "prompts_per_step": 2,
            "num_generations": 4,
            "max_completion_length": 8,
            "learning_rate": 1e-3,
            "temperature": 1.0,
            "lora": chosen.lora.model_copy(update={"enabled": adapters}),
        }
    )
    seen = []
    out = train_grpo(
        cold_start,
        build_rows([[row(number) for number in range(4)]], shards),
        shards,
        [("e", letter_e, 1.0)],
        settings,
        output=place / "grpo",
        checkpoints=place / "checkpoints",
        on_metrics=lambda metrics, step: seen.append(metrics),
        seed=0,
        runtime=RUNTIME,
        machine=MACHINE,
    )
    return out, seen


@pytest.mark.parametrize("adapters", [False, True], ids=["all weights", "adapters"])
def test_grpo_trains_the_language_model_alone(cold_start, shards, tmp_path, adapters):
    out, seen = run_grpo(cold_start, shards, tmp_path, adapters=adapters)
    expected = {"language_model"} if adapters else {"language_model", "lm_head"}
    assert parts_that_changed(cold_start, out) == expected
    assert len(seen) == 2


def test_sharing_prompts_changes_no_step(cold_start, shards, tmp_path, monkeypatch):
    """Positions of a completion on the cache of its prompt are those of the whole row."""
    _, shared = run_grpo(cold_start, shards, tmp_path / "shared")
    plain_trainer = functools.partial(OmniGRPOTrainer, share_prompts=False)
    monkeypatch.setattr(grpo, "OmniGRPOTrainer", plain_trainer)
    _, plain = run_grpo(cold_start, shards, tmp_path / "plain")
    for one, other in zip(shared, plain, strict=True):
        for name in ("reward", "kl", "entropy", "completion_length", "grad_norm"):
            assert one[name] == pytest.approx(other[name], rel=2e-3, abs=1e-5), name
    assert shared[1]["kl"] > 0.0


def test_a_completion_does_not_depend_on_the_batch(cold_start, shards):
    trained, options = load_policy(cold_start), {"max_new_tokens": 6, "temperature": 0.0, "seed": 0}
    together = generate_completions(trained, iter(shards["reasoning"]), batch_size=4, **options)
    alone = generate_completions(trained, iter(shards["reasoning"]), batch_size=1, **options)
    assert together == alone
    assert len(together) == 4
