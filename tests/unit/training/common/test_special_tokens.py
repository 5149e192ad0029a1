"""What `Trainer` does to a model's special tokens ends with the training."""

from __future__ import annotations

from types import SimpleNamespace

from transformers.trainer_utils import align_special_tokens

from erv.sample.tiny_policy import build_tiny_policy
from erv.training.common.special_tokens import special_tokens_kept
from tests.support.sizes import SMALLEST


def test_both_configurations_are_as_they_were() -> None:
    model, processor = build_tiny_policy(["A smile, and a laugh."] * 3, seed=2, sizes=SMALLEST)
    model.generation_config.eos_token_id = 7  # not the tokenizer's
    before = model.config.to_dict(), model.generation_config.to_dict()
    with special_tokens_kept(model):
        align_special_tokens(model, processor.tokenizer)
        assert model.generation_config.eos_token_id == [processor.tokenizer.eos_token_id, 7]
        model.config.pad_token_id = 3
    assert (model.config.to_dict(), model.generation_config.to_dict()) == before
    assert model.generation_config.eos_token_id == 7


def test_a_model_that_generates_nothing() -> None:
    model = SimpleNamespace(config=SimpleNamespace(pad_token_id=0))
    with special_tokens_kept(model):
        model.config.eos_token_id = model.config.pad_token_id = 1
    assert vars(model.config) == {"pad_token_id": 0}
