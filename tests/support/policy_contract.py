"""What every family of policies must satisfy; docs/policies.md says when to run it.

A family's tests subclass `PolicyContract` and define the fixture `policy` (class scope): a small random
policy in which every weight matters. No check depends on the family.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl.trainer.utils import add_fused_lm_head

from erv.errors import DataError, TrainingError
from erv.policies import Policy, load_policy
from erv.policies.common.families import family_of
from erv.policies.common.policy import token_positions
from erv.settings import LoraSettings
from erv.shards import Clip
from erv.training.common.clip_features import policy_encoder
from erv.training.grpo.grpo import lora_config

RATE = 16000
TOLERANCE = {"atol": 2e-5, "rtol": 1e-4}


def random_clips(policy: Policy, count: int, seed: int = 0) -> list[Clip]:
    """Clips of noise in the format of shards, of the size that a policy takes."""
    random = np.random.default_rng(seed)
    processor = policy.processor
    shape = (processor.num_frames, processor.image_size, processor.image_size, 3)
    return [
        Clip(
            f"clip{number}",
            random.integers(0, 256, shape, dtype=np.uint8),
            random.integers(-9000, 9000, 12000).astype(np.int16),
            RATE,
        )
        for number in range(count)
    ]


def prepared(policy: Policy, clips: list[Clip]) -> dict[str, torch.Tensor]:
    """The processor's output for clips, stacked."""
    items = [policy.processor.prepare_clip(clip.frames, clip.audio, clip.sample_rate) for clip in clips]
    return {name: torch.stack([item[name] for item in items]) for name in items[0]}


def prompt(policy: Policy, rows: int, **modalities: bool) -> dict[str, torch.Tensor]:
    """The same prompt in each row."""
    ids = torch.tensor([policy.processor.prompt_ids(**modalities)] * rows)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


class PolicyContract:
    """Checks for a family: subclass it and define the fixture `policy`."""

    @pytest.fixture(scope="class")
    @classmethod
    def clips(cls, policy: Policy) -> list[Clip]:
        return random_clips(policy, 3)

    @pytest.fixture(scope="class")
    @classmethod
    def features(cls, policy: Policy, clips: list[Clip]) -> dict[str, torch.Tensor]:
        return policy.model.encode_clips(**prepared(policy, clips)) | policy.processor.question_inputs()

    # --- clips ---

    def test_a_clip_is_encoded_alone_as_in_a_batch_and_without_gradient(self, policy, clips):
        together = policy.model.encode_clips(**prepared(policy, clips))
        encode = policy_encoder(policy)
        for number, clip in enumerate(clips):
            alone = encode(clip)
            assert set(alone) == set(together)
            for name, value in alone.items():
                assert not value.requires_grad
                torch.testing.assert_close(value, together[name][number], **TOLERANCE)
                assert torch.equal(value, encode(clip)[name]), "encoding a clip twice gives two results"

    @torch.no_grad()
    def test_rows_share_clips_through_the_index(self, policy, clips, features):
        index = torch.tensor([0, 0, 1, 2, 2])
        shared = policy.model(**prompt(policy, 5), **features, clip_index=index).logits
        repeated = policy.model.encode_clips(**{k: v[index] for k, v in prepared(policy, clips).items()})
        whole = policy.model(**prompt(policy, 5), **repeated, **policy.processor.question_inputs()).logits
        torch.testing.assert_close(shared, whole, **TOLERANCE)
        assert not torch.allclose(shared[0, -1], shared[2, -1], atol=1e-4), "clips make no difference"

    @torch.no_grad()
    def test_frames_and_sound_reach_the_answer(self, policy, clips, features):
        before = policy.model(**prompt(policy, 3), **features).logits[:, -1]
        quiet = [Clip(clip.clip_id, clip.frames, clip.audio // 7, RATE) for clip in clips]
        dark = [Clip(clip.clip_id, clip.frames // 7, clip.audio, RATE) for clip in clips]
        for changed in (quiet, dark):
            other = features | policy.model.encode_clips(**prepared(policy, changed))
            after = policy.model(**prompt(policy, 3), **other).logits[:, -1]
            assert ((before - after).abs().amax(dim=1) > 1e-6).all()

    @torch.no_grad()
    def test_a_prompt_without_sound_takes_none_of_it(self, policy, clips, features):
        silent = prompt(policy, 3, audio=False)
        mute = [Clip(clip.clip_id, clip.frames, np.zeros(0, np.int16), RATE) for clip in clips]
        other = features | policy.model.encode_clips(**prepared(policy, mute))
        with_sound = policy.model(**silent, **features).logits
        torch.testing.assert_close(with_sound, policy.model(**silent, **other).logits, **TOLERANCE)

    def test_a_modality_of_the_prompt_that_never_arrives_is_refused(self, policy, features):
        """A placeholder without features has an embedding too: the sound would be dropped without a word."""
        for lost in ("video", "audio"):
            rest = {name: value for name, value in features.items() if name != f"{lost}_features"}
            for ask in (policy.model, policy.model.base_model, policy.model.generate):
                with pytest.raises(ValueError, match=f"{lost} placeholders, but {lost}_features are missing"):
                    ask(**prompt(policy, 3), **rest)
            policy.model(**prompt(policy, 3, **{lost: False}), **rest)

    def test_what_the_policy_does_not_take_is_refused(self, policy, clips):
        prepare = policy.processor.prepare_clip
        frames, audio = clips[0].frames, clips[0].audio
        with pytest.raises(DataError, match=r"set extract\.frames: \d+ and extract\.size: \d+"):
            prepare(frames[:, :-1], audio, RATE)
        with pytest.raises(DataError, match="takes uint8"):
            prepare(frames.astype(np.float32), audio, RATE)
        with pytest.raises(DataError, match="takes int16"):
            prepare(frames, audio.astype(np.float32), RATE)
        with pytest.raises(DataError, match="sampled at 8000 Hz"):
            prepare(frames, audio, 8000)

    # --- rows ---

    @torch.no_grad()
    def test_padding_on_either_side_changes_nothing(self, policy, features):
        plain = prompt(policy, 3)
        length = plain["input_ids"].shape[1]
        reference = policy.model(**plain, **features).logits
        pad = policy.processor.tokenizer.pad_token_id
        for side in ((4, 0), (0, 4)):
            ids = torch.nn.functional.pad(plain["input_ids"], side, value=pad)
            mask = torch.nn.functional.pad(plain["attention_mask"], side)
            positions = token_positions(policy.model, ids, mask)
            for given in ({}, {"position_ids": positions}):
                logits = policy.model(input_ids=ids, attention_mask=mask, **given, **features).logits
                torch.testing.assert_close(logits[:, side[0] : side[0] + length], reference, **TOLERANCE)

    @torch.no_grad()
    def test_a_prompt_is_read_once_for_all_its_completions(self, policy, features):
        """As the trainer does it: the prompt's keys and values, repeated, then the completions."""
        random = torch.Generator().manual_seed(0)
        completions = torch.randint(5, 20, (4, 6), generator=random)
        pad = policy.processor.tokenizer.pad_token_id
        one = torch.nn.functional.pad(prompt(policy, 2)["input_ids"], (2, 0), value=pad)
        mask = torch.nn.functional.pad(prompt(policy, 2)["attention_mask"], (2, 0))
        rows = torch.tensor([0, 0, 1, 1])
        ids = torch.cat([one[rows], completions], dim=1)
        whole_mask = torch.cat([mask[rows], torch.ones_like(completions)], dim=1)
        whole = policy.model(
            input_ids=ids,
            attention_mask=whole_mask,
            position_ids=token_positions(policy.model, ids, whole_mask),
            **features,
            clip_index=rows,
        ).logits
        start = one.shape[1] - 1
        cache = policy.model.base_model(
            input_ids=one[:, :-1],
            attention_mask=mask[:, :-1],
            position_ids=token_positions(policy.model, one[:, :-1], mask[:, :-1]),
            use_cache=True,
            **features,
            clip_index=torch.tensor([0, 1]),
        ).past_key_values
        for layer in cache.layers:
            layer.keys, layer.values = layer.keys[rows], layer.values[rows]
        rest = policy.model(
            input_ids=ids[:, start:],
            attention_mask=whole_mask,
            position_ids=token_positions(policy.model, ids, whole_mask)[..., start:],
            past_key_values=cache,
        ).logits
        torch.testing.assert_close(rest, whole[:, start:], **TOLERANCE)

    # --- generation ---

    @torch.no_grad()
    def test_generation_is_the_greedy_loop(self, policy, features):
        tokenizer = policy.processor.tokenizer
        plain, steps = prompt(policy, 3), 6
        left = {
            "input_ids": torch.nn.functional.pad(plain["input_ids"], (3, 0), value=tokenizer.pad_token_id),
            "attention_mask": torch.nn.functional.pad(plain["attention_mask"], (3, 0)),
        }
        options = {"max_new_tokens": steps, "do_sample": False, "eos_token_id": None}
        generated = policy.model.generate(**left, **features, **options)[:, left["input_ids"].shape[1] :]
        slow = policy.model.generate(**left, **features, **options, use_cache=False)
        assert torch.equal(generated, slow[:, left["input_ids"].shape[1] :])
        ids = plain["input_ids"]
        for _ in range(steps):
            scores = policy.model(input_ids=ids, **features).logits[:, -1].clone()
            scores[:, policy.model.placeholder_ids] = -torch.inf
            ids = torch.cat([ids, scores.argmax(dim=-1, keepdim=True)], dim=1)
        assert torch.equal(generated, ids[:, -steps:])

    @torch.no_grad()
    def test_beams_of_a_row_show_its_clip(self, policy, clips, features):
        options = {"max_new_tokens": 5, "num_beams": 3, "num_return_sequences": 2, "do_sample": False}
        options |= {"output_scores": True, "return_dict_in_generate": True}
        index = torch.tensor([2, 0])
        shared = policy.model.generate(**prompt(policy, 2), **features, clip_index=index, **options)
        rows = policy.model.encode_clips(**{k: v[index] for k, v in prepared(policy, clips).items()})
        rows |= policy.processor.question_inputs()
        whole = policy.model.generate(**prompt(policy, 2), **rows, **options)
        assert torch.equal(shared.sequences, whole.sequences)
        torch.testing.assert_close(shared.sequences_scores, whole.sequences_scores, **TOLERANCE)

    @torch.no_grad()
    def test_placeholders_stand_in_prompts_alone(self, policy, features):
        model = copy.deepcopy(policy.model)
        assert model.placeholder_ids
        both, silent = policy.processor.prompt_ids(), policy.processor.prompt_ids(audio=False)
        blind = policy.processor.prompt_ids(video=False)
        used = [token for token in model.placeholder_ids if token in both]
        assert len(used) == 2
        assert sum(token in silent for token in used) == sum(token in blind for token in used) == 1
        head = model.get_output_embeddings()
        hidden = model.base_model(**prompt(policy, 3), **features).last_hidden_state[:, -1]
        head.weight[model.placeholder_ids] = 100.0 * hidden.mean(dim=0)  # would win the first step
        assert model(**prompt(policy, 3), **features).logits[0, -1].argmax() in model.placeholder_ids
        generated = model.generate(**prompt(policy, 3), **features, max_new_tokens=3, do_sample=False)
        completions = generated[:, len(both) :]
        assert not torch.isin(completions, torch.tensor(model.placeholder_ids)).any()

    # --- TRL and PEFT ---

    @torch.no_grad()
    def test_the_seams_that_trl_uses(self, policy, features):
        model = policy.model
        inputs = prompt(policy, 3) | features
        assert model.base_model is not model
        assert model.config.get_text_config() is model.config.text_config
        hidden = model.base_model(**inputs).last_hidden_state
        logits = model(**inputs).logits
        assert torch.equal(model.get_output_embeddings()(hidden), logits)
        fused = copy.deepcopy(model)
        add_fused_lm_head(fused, outputs=("log_probs", "entropy"))
        labels = inputs["input_ids"].clone()
        labels[:, :-4] = -100
        scored = fused(**inputs, labels=labels, fused_lm_head=True).log_probs[:, -4:]
        expected = logits.log_softmax(dim=-1)[:, -5:-1].gather(2, labels[:, -4:, None])[..., 0]
        torch.testing.assert_close(scored, expected, **TOLERANCE)

    def test_gradients_reach_the_language_model_and_no_tower(self, policy, clips, features):
        model = copy.deepcopy(policy.model)
        model.requires_grad_(True)
        model.freeze_towers()
        frozen = {name for name, weight in model.named_parameters() if not weight.requires_grad}
        assert frozen, "nothing is frozen"
        inputs = prompt(policy, 3) | features
        model(**inputs, labels=inputs["input_ids"]).loss.backward()
        without = {name for name, weight in model.named_parameters() if weight.grad is None}
        assert without == frozen
        before = model.encode_clips(**prepared(policy, clips))
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if name not in frozen:
                    weight.add_(1.0)
        for name, value in model.encode_clips(**prepared(policy, clips)).items():
            assert torch.equal(value, before[name]), f"{name} depends on a weight that trains"
        model.freeze_projectors()
        model.freeze_question_encoder()
        language = {id(weight) for weight in model.get_decoder().parameters()}
        language |= {id(weight) for weight in model.get_output_embeddings().parameters()}
        assert {id(weight) for weight in model.parameters() if weight.requires_grad} == language

    def test_adapters_go_into_the_language_model_alone(self, policy):
        settings = LoraSettings(enabled=True, rank=2, alpha=4, dropout=0.0, quantize="none")
        targets = lora_config(policy.model, settings).target_modules
        language = {id(module) for module in policy.model.get_decoder().modules()}
        modules = dict(policy.model.named_modules())
        assert targets
        assert all(id(modules[name]) in language for name in targets)

    # --- folders ---

    def test_weights_that_are_missing_or_of_another_shape_are_refused(self, policy, tmp_path: Path):
        policy.save(tmp_path)
        whole = load_file(tmp_path / "model.safetensors")
        name = next(name for name, weight in whole.items() if weight.ndim == 2 and "tower" not in name)
        lost = {key: weight for key, weight in whole.items() if key != name}
        for weights, fault in (
            (lost, f"missing {name}"),
            (lost | {name: whole[name][:-1].clone()}, rf"{name} is \[\d+, \d+\], expected \["),
        ):
            save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
            with pytest.raises(TrainingError, match=rf"don't fit together \({fault}"):
                load_policy(tmp_path)

    @torch.no_grad()
    def test_save_and_load(self, policy, features, tmp_path: Path):
        folder = tmp_path / "policy"
        policy.save(folder)
        texts = "".join(path.read_text() for path in folder.glob("*.json"))
        assert str(tmp_path) not in texts, "a path of this machine was saved"
        again = load_policy(folder)
        family = family_of(again.model.config.to_dict(), folder)
        assert type(again.model).__module__.startswith(f"erv.policies.{family}.")
        inputs: dict[str, Any] = prompt(policy, 3) | features
        assert torch.equal(again.model(**inputs).logits, policy.model(**inputs).logits)
        assert again.model.generation_config.suppress_tokens == policy.model.placeholder_ids
        assert again.processor.prompt_ids() == policy.processor.prompt_ids()
        clip = random_clips(policy, 1)[0]
        for name, value in prepared(again, [clip]).items():
            assert torch.equal(value, prepared(policy, [clip])[name])
        plain = AutoTokenizer.from_pretrained(folder)
        messages = again.processor.build_messages()
        encoded = plain.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)
        assert encoded["input_ids"] == policy.processor.prompt_ids()
        # TRL loads the reference model of the KL term this way.
        assert type(AutoModelForCausalLM.from_pretrained(folder)) is type(policy.model)
        policy.save(tmp_path / "twice")
        for path in sorted(item for item in folder.rglob("*") if item.is_file()):
            assert path.read_bytes() == (tmp_path / "twice" / path.relative_to(folder)).read_bytes(), (
                path.name
            )
        assert not list(folder.rglob("*.bin")), "a pickle was saved"
