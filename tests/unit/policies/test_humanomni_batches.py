"""Batches of every kind: sizes, lengths, padding on either side, silent rows, packed rows, released ids."""

import pytest
import torch
from transformers import GenerationConfig

from erv.policies import Policy
from erv.policies.humanomni.splicing import expand_rows
from erv.prompts import format_completion
from erv.sample.tiny_policy import build_tiny_policy
from tests.support.policy_contract import prepared, random_clips
from tests.support.sizes import SMALLEST

TEXTS = [format_completion("The voice is loud. She seems angry.", "anger")] * 3
CLOSE = {"atol": 1e-5, "rtol": 0}


@pytest.fixture(scope="module")
def policy():
    torch.set_num_threads(1)
    return Policy(*build_tiny_policy(TEXTS, seed=1, sizes=SMALLEST))


@pytest.fixture(scope="module")
def model(policy):
    return policy.model


@pytest.fixture(scope="module")
def clips(policy):
    return prepared(policy, random_clips(policy, 5))


@pytest.fixture(scope="module")
def gate(policy):
    return policy.processor.gate_inputs(1)


# Which clip an example shows, with what, and what it asks; lengths and modalities differ.
EXAMPLES = [
    (0, {"video": True, "audio": True}, "Which emotion?"),
    (1, {"video": True, "audio": False}, "Is she angry or is she not? Explain."),
    (2, {"video": False, "audio": True}, "Loud?"),
    (3, {"video": False, "audio": False}, "What is an emotion?"),
    (4, {"video": True, "audio": True}, "Which emotion is conveyed by the characters in this clip?"),
]


def expanded(policy, example):
    _, shown, question = example
    return policy.processor.prompt_ids(question, **shown)


def collapsed(policy, example):
    """The prompt with the released ids: one negative placeholder per clip."""
    config = policy.model.config
    codes = {config.video_token_id: -201, config.audio_token_id: -202}
    ids = [codes.get(i, i) for i in expanded(policy, example)]
    return [i for n, i in enumerate(ids) if i >= 0 or ids[n - 1] != i]


def pad(rows, side):
    length = max(map(len, rows))
    ids = [[0] * (length - len(r)) + r if side == "left" else r + [0] * (length - len(r)) for r in rows]
    mask = [
        [0] * (length - len(r)) + [1] * len(r) if side == "left" else [1] * len(r) + [0] * (length - len(r))
        for r in rows
    ]
    return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}


def alone(policy, clips, gate, example):
    """Inputs of one example by itself, with only what it shows."""
    clip, shown, _ = example
    ids = torch.tensor([expanded(policy, example)])
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), **gate}
    if shown["video"]:
        inputs["pixel_values"] = clips["pixel_values"][clip : clip + 1]
    if shown["audio"]:
        inputs["input_features"] = clips["input_features"][clip : clip + 1]
    return inputs


# --- batches of our placeholders and of the released ones ---


@torch.no_grad()
@pytest.mark.parametrize("write", [expanded, collapsed], ids=["vocabulary", "released"])
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("size", [1, 2, 3, 4, 5])
def test_a_batch_gives_the_logits_of_its_rows(policy, model, clips, gate, size, side, write):
    batch = pad([write(policy, example) for example in EXAMPLES[:size]], side)
    media = {name: value[:size] for name, value in clips.items()}
    rows = model.expand_placeholders(**batch, **media)
    found = model(**batch, **media, **gate).logits
    assert found.shape[:2] == rows.attention_mask.shape
    for row, example in enumerate(EXAMPLES[:size]):
        expected = model(**alone(policy, clips, gate, example)).logits[0]
        torch.testing.assert_close(found[row][rows.attention_mask[row].bool()], expected, **CLOSE)


@torch.no_grad()
@pytest.mark.parametrize("write", [expanded, collapsed], ids=["vocabulary", "released"])
@pytest.mark.parametrize("size", [2, 5])
def test_left_padded_generation_is_that_of_single_rows(policy, model, clips, gate, size, write):
    options = {"max_new_tokens": 5, "min_new_tokens": 5, "do_sample": False}
    batch = pad([write(policy, example) for example in EXAMPLES[:size]], "left")
    media = {name: value[:size] for name, value in clips.items()}
    generated = model.generate(**batch, **media, **gate, **options)
    for row, example in enumerate(EXAMPLES[:size]):
        single = alone(policy, clips, gate, example)
        expected = model.generate(**single, **options)[0, single["input_ids"].shape[1] :]
        assert generated[row, -5:].tolist() == expected.tolist()
    if write is collapsed:
        assert generated.shape[1] == 5, "only new tokens, as the released code returns them"
        right = pad([collapsed(policy, example) for example in EXAMPLES[:size]], "right")
        assert torch.equal(model.generate(**right, **media, **gate, **options), generated)


@pytest.mark.parametrize(
    ("side", "rows", "masks"),
    [
        (
            "keep",
            [[4, -201, -201, -201, 5, 0], [6, 7, 8, 0, 0, 0], [0, 0, 9, -202, -202, 5]],
            [[1, 1, 1, 1, 1, 0], [1, 1, 1, 0, 0, 0], [0, 0, 1, 1, 1, 1]],
        ),
        (
            "left",
            [[0, 4, -201, -201, -201, 5], [0, 0, 0, 6, 7, 8], [0, 0, 9, -202, -202, 5]],
            [[0, 1, 1, 1, 1, 1], [0, 0, 0, 1, 1, 1], [0, 0, 1, 1, 1, 1]],
        ),
    ],
)
def test_where_padding_goes(side, rows, masks):
    """A right-padded row is filled on the right, as the specification says; a left-padded one on the left."""
    ids = torch.tensor([[4, -201, 5, 0], [6, 7, 8, 0], [0, 9, -202, 5]])
    mask = torch.tensor([[1, 1, 1, 0], [1, 1, 1, 0], [0, 1, 1, 1]])
    found = expand_rows(ids, mask, ids.clamp(min=-100), 3, 2, side=side)
    assert found.input_ids.tolist() == rows
    assert found.attention_mask.tolist() == masks
    assert bool((found.labels[found.input_ids < 0] == -100).all())
    unpadded = expand_rows(ids[:2, :3], None, None, 3, None)
    assert unpadded.input_ids.tolist() == [[4, -201, -201, -201, 5], [6, 7, 8, 0, 0]]
    assert unpadded.attention_mask.tolist() == [[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]
    assert unpadded.labels is None


@torch.no_grad()
def test_an_image_is_a_clip_of_one_frame(policy, model, clips, gate):
    frame = clips["pixel_values"][:1, :1]
    ids = torch.tensor([[5, -200, 6, 7]])
    rows = model.expand_placeholders(ids, pixel_values=frame)
    assert rows.input_ids.tolist() == [[5, *[-200] * model.config.tokens_per_frame, 6, 7]]
    video = model(input_ids=torch.tensor([[5, -201, 6, 7]]), pixel_values=frame, **gate).logits
    assert torch.equal(model(input_ids=ids, pixel_values=frame, **gate).logits, video)


@torch.no_grad()
def test_labels_grow_with_the_placeholders(policy, model, clips, gate):
    batch = pad([collapsed(policy, example) for example in EXAMPLES[:2]], "right")
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    labels[:, :2] = -100
    media = {name: value[:2] for name, value in clips.items()}
    rows = model.expand_placeholders(batch["input_ids"], batch["attention_mask"], labels, **media)
    assert rows.labels.shape == rows.input_ids.shape
    assert bool((rows.labels[rows.input_ids < 0] == -100).all())
    assert (rows.labels != -100).sum() == (labels >= 0).sum()
    outputs = model(**batch, labels=labels, **media, **gate)
    expected = torch.nn.functional.cross_entropy(
        outputs.logits[:, :-1].flatten(0, 1), rows.labels[:, 1:].flatten()
    )
    torch.testing.assert_close(outputs.loss, expected)


@torch.no_grad()
def test_a_dummy_clip_beside_sound_alone_changes_nothing(policy, model, clips, gate):
    """The released code computes 32 black frames for a prompt with `<audio>` alone, and inserts none."""
    single = alone(policy, clips, gate, EXAMPLES[2])
    dummy = torch.zeros(1, 32, 3, 32, 32)
    assert torch.equal(model(**single, pixel_values=dummy).logits, model(**single).logits)


@torch.no_grad()
def test_rows_may_share_a_clip(policy, model, clips, gate):
    batch = pad([collapsed(policy, EXAMPLES[0])] * 3, "right")
    index = torch.tensor([2, 2, 0])
    shared = model(**batch, **clips, **gate, clip_index=index).logits
    repeated = model(**batch, **{name: value[index] for name, value in clips.items()}, **gate).logits
    torch.testing.assert_close(shared, repeated, **CLOSE)
    generated = model.generate(**batch, **clips, **gate, clip_index=index, max_new_tokens=3, do_sample=False)
    assert generated[0].tolist() == generated[1].tolist()


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"input_ids": [[1, -7]]}, r"a negative id that is not a placeholder: <image> is -200, <video> -201"),
        ({"input_ids": [[1, -203]]}, r"a negative id that is not a placeholder"),
        (
            {"input_ids": [[1, -201]]},
            r"placeholders \[-200, -201\], but the batch has no pixel_values or video_",
        ),
        (
            {"input_ids": [[1, -202]]},
            r"placeholders \[-202\], but the batch has no input_features or audio_feat",
        ),
        (
            {"input_ids": [[1, -201]], "attention_mask": [[1, 1, 1]], "pixel_values": True},
            r"attention_mask has the shape \[1, 3\], expected that of input_ids \[1, 2\]",
        ),
        (
            {"input_ids": [[1, -201]], "position_ids": [[0, 1]], "pixel_values": True},
            r"position_ids can't be given with negative placeholders",
        ),
        (
            {"input_ids": [[1, -201]] * 6, "pixel_values": True},
            r"a row shows clip 5, but the batch has 5 video clips; give clip_index",
        ),
    ],
)
def test_what_does_not_fit_is_said(model, clips, gate, inputs, message):
    inputs = {name: torch.tensor(v) if isinstance(v, list) else clips[name] for name, v in inputs.items()}
    with pytest.raises(ValueError, match=message):
        model(**inputs, **gate)


# --- media are encoded once ---


@torch.no_grad()
@pytest.mark.parametrize("write", [expanded, collapsed], ids=["vocabulary", "released"])
@pytest.mark.parametrize("several", [{}, {"num_return_sequences": 3, "do_sample": True}, {"num_beams": 3}])
def test_generation_runs_towers_and_projectors_once(policy, model, clips, gate, write, several):
    calls = dict.fromkeys(("vision_tower", "audio_tower", "visual_projector", "audio_projector"), 0)
    sizes = []

    def count(name):
        def hook(module, args, output):
            calls[name] += 1
            if name == "visual_projector":
                sizes.append(args[0].shape[0])

        return hook

    handles = [getattr(model.model, name).register_forward_hook(count(name)) for name in calls]
    batch = pad([write(policy, example) for example in EXAMPLES[:2]], "left")
    media = {name: value[:2] for name, value in clips.items()}
    generated = model.generate(**batch, **media, **gate, max_new_tokens=4, min_new_tokens=4, **several)
    for handle in handles:
        handle.remove()
    assert set(calls.values()) == {1}
    assert sizes == [2], "clips are not repeated for samples and beams"
    assert generated.shape[0] == 2 * several.get("num_return_sequences", 1)


@torch.no_grad()
def test_beams_over_shared_clips_see_their_own_clip(policy, model, clips, gate):
    options = {"num_beams": 3, "max_new_tokens": 4, "min_new_tokens": 4}
    batch = pad([expanded(policy, EXAMPLES[0])] * 2, "left")
    index = torch.tensor([3, 1])
    shared = model.generate(**batch, **clips, **gate, clip_index=index, **options)
    repeated = {name: value[index] for name, value in clips.items()}
    assert torch.equal(shared, model.generate(**batch, **repeated, **gate, **options))


@torch.no_grad()
def test_without_a_cache_the_towers_still_run_once(policy, model, clips, gate):
    calls = []
    handle = model.model.vision_tower.register_forward_hook(lambda *_: calls.append(1))
    single = alone(policy, clips, gate, EXAMPLES[0])
    options = {"max_new_tokens": 4, "min_new_tokens": 4, "do_sample": False}
    slow = model.generate(**single, **options, use_cache=False)
    assert len(calls) == 1
    handle.remove()
    assert torch.equal(slow, model.generate(**single, **options))


# --- packed rows ---


def packed(policy, groups):
    """Rows that hold several examples each; a shorter row ends in an example of padding."""
    rows, positions, shows, places = [], [], [], []
    for group in groups:
        row, position, show, place = [], [], [], []
        for example in group:
            ids = expanded(policy, example)
            place.append(slice(len(row), len(row) + len(ids)))
            row += ids
            position += range(len(ids))
            show += [example[0]] * len(ids)
        rows.append(row), positions.append(position), shows.append(show), places.append(place)
    length = max(map(len, rows))
    for row, position, show in zip(rows, positions, shows, strict=True):
        rest = length - len(row)
        row += [0] * rest
        position += range(rest)
        show += [0] * rest
    names = ("input_ids", "position_ids", "clip_index")
    return dict(zip(names, map(torch.tensor, (rows, positions, shows)), strict=True)), places


@torch.no_grad()
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize(
    "groups",
    [[EXAMPLES], [EXAMPLES[:2], EXAMPLES[2:]], [[EXAMPLES[4], EXAMPLES[0], EXAMPLES[0]], [EXAMPLES[1]]]],
    ids=["one row", "two rows", "repeated"],
)
def test_packed_examples_have_the_logits_of_single_ones(policy, model, clips, gate, groups, attention):
    model.set_attn_implementation(attention)
    inputs, places = packed(policy, groups)
    logits = model(**inputs, **clips, **gate).logits
    for row, group in enumerate(groups):
        for place, example in zip(places[row], group, strict=True):
            expected = model(**alone(policy, clips, gate, example)).logits[0]
            torch.testing.assert_close(logits[row, place], expected, **CLOSE)
    model.set_attn_implementation("sdpa")


def test_packed_rows_have_the_gradients_of_single_ones(policy, model, clips, gate):
    features = model.encode_clips(**clips)

    def gradients(loss):
        model.zero_grad()
        loss.backward()
        found = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
        model.zero_grad()
        return found

    pair = [EXAMPLES[0], EXAMPLES[4]]
    inputs, places = packed(policy, [pair])
    logits = model(**inputs, **features, **gate).logits
    losses = []
    for place in places[0]:
        ids = inputs["input_ids"][0, place]
        losses.append(torch.nn.functional.cross_entropy(logits[0, place][:-1], ids[1:]))
    together = gradients(sum(losses))
    separate = [
        model(**single, labels=single["input_ids"]).loss
        for single in (alone(policy, clips, gate, example) for example in pair)
    ]
    for name, gradient in gradients(sum(separate)).items():
        torch.testing.assert_close(together[name], gradient, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        ("mixed", r"a run of 2 video placeholders shows more than one clip in clip_index"),
        ("cut", r"packed rows have \[3\] video placeholders, expected multiples of 2"),
        ("broken", r"packed rows have a broken run of video placeholders, expected 2 in a row"),
        ("shape", r"clip_index has the shape \[1, 3\], expected \[rows\] or that of input_ids"),
        ("cache", r"packed rows .* can't fill a cache: leave use_cache out"),
    ],
)
def test_spoilt_packed_rows_are_refused(policy, model, clips, gate, spoil, message):
    inputs, _ = packed(policy, [[EXAMPLES[0], EXAMPLES[4]]])
    where = (inputs["input_ids"][0] == model.config.video_token_id).nonzero()[:, 0].tolist()
    if spoil == "mixed":
        inputs["clip_index"][0, where[0]] = 3
    elif spoil == "cut":
        inputs["input_ids"][0, where[0]] = 1
    elif spoil == "broken":
        inputs["input_ids"][0, where[0]] = 1
        inputs["input_ids"][0, 0] = model.config.video_token_id
    elif spoil == "shape":
        inputs["clip_index"] = inputs["clip_index"][:, :3]
    else:
        inputs["use_cache"] = True
    with pytest.raises(ValueError, match=message):
        model(**inputs, **clips, **gate)


@torch.no_grad()
def test_settings_of_a_generation_may_come_by_position(policy, model, clips, gate):
    single = alone(policy, clips, gate, EXAMPLES[0])
    ids = single.pop("input_ids")
    settings = GenerationConfig(max_new_tokens=3, min_new_tokens=3, do_sample=False)
    found = model.generate(ids, settings, **single)
    assert torch.equal(found, model.generate(input_ids=ids, generation_config=settings, **single))
    released = torch.tensor([collapsed(policy, EXAMPLES[0])])
    single.pop("attention_mask")
    assert torch.equal(model.generate(released, settings, **single), found[:, ids.shape[1] :])
