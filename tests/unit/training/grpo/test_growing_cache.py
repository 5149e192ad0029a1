import pytest
import torch
from transformers import DynamicCache, Qwen2Config, Qwen2ForCausalLM

from erv.training.grpo.growing_cache import GrowingLayer, empty_cache

PROMPT, ROOM = 7, 12


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=50,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    return Qwen2ForCausalLM(config).eval()


def generate(model, room):
    ids = torch.arange(3 * (PROMPT + 1)).reshape(3, PROMPT + 1) % 50
    cache = DynamicCache(config=model.config)
    with torch.no_grad():
        cache = model(input_ids=ids[:, :PROMPT], past_key_values=cache, use_cache=True).past_key_values
        if room:
            cache.layers = [GrowingLayer(layer.keys, layer.values, room) for layer in cache.layers]
        torch.manual_seed(1)
        return model.generate(
            input_ids=ids, past_key_values=cache, max_new_tokens=ROOM, do_sample=True, eos_token_id=None
        )


def test_it_generates_what_the_dynamic_cache_generates(model):
    assert torch.equal(generate(model, room=ROOM), generate(model, room=0))


def test_more_tokens_than_there_is_room_for_are_refused(model):
    with pytest.raises(RuntimeError, match="room for 17 tokens"):
        generate(model, room=ROOM - 2)


def test_what_is_read_is_a_view_of_one_buffer():
    keys, values = torch.ones(2, 2, 3, 4), torch.zeros(2, 2, 3, 4)
    layer = GrowingLayer(keys, values, room=2)
    place = layer.keys.data_ptr()
    read, _ = layer.update(torch.full((2, 2, 1, 4), 5.0), torch.zeros(2, 2, 1, 4))
    assert (layer.get_seq_length(), read.data_ptr()) == (4, place)
    assert torch.equal(read[:, :, :3], keys)
    assert (read[:, :, 3] == 5).all()


def test_dropped_rows_leave_the_others_as_they_are():
    like = DynamicCache()
    like.update(torch.ones(2, 2, 3, 4), torch.ones(2, 2, 3, 4), 0)
    cache = empty_cache(like, rows=3, room=2)
    assert cache.get_seq_length() == 0
    first, second = torch.rand(3, 2, 1, 4), torch.rand(2, 2, 1, 4)
    cache.update(first, first, 0)
    cache.batch_select_indices(torch.tensor([0, 2]))
    keys, values = cache.update(second, second, 0)
    assert torch.equal(keys, torch.cat([first[[0, 2]], second], dim=2))
    assert torch.equal(values, keys)
