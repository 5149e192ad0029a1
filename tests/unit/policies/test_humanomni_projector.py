"""Both projectors against the specification, computed here in the released layout with plain convolutions.

The reference shares no line with our projector: channels first, Conv2d and Conv3d, released weight names.
"""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from erv.policies.humanomni import HumanOmniForConditionalGeneration
from erv.policies.humanomni.projector import DEPTHS, VisualProjector
from erv.policies.humanomni.released_weights import convert_weights
from tests.support.paths import ROOT

DATA = ROOT / "tests" / "golden" / "data" / "humanomni_parity"
PREFIX = "model.mm_projector."
WIDTH, HIDDEN = 20, 24  # squeezed: round(5.0) = 5 for the first block, round(6.0) = 6 for all others


# --- the specification, section 2, word by word ---


def released_shapes(kind, width, hidden):
    depth = {"all_in_one_small": 2, "all_in_one": 4}[kind]
    shapes = {"mlp_2xgelu_face.0.weight": (hidden, width), "mlp_2xgelu_face.0.bias": (hidden,)}
    shapes |= {"mlp_2xgelu_face.2.weight": (hidden, hidden), "mlp_2xgelu_face.2.bias": (hidden,)}
    for v in ("video", "body"):
        shapes |= {f"sampler_{v}.0.weight": (hidden, hidden, 2, 2, 2), f"sampler_{v}.0.bias": (hidden,)}
        for i in (0, 2):
            shapes |= {f"readout_{v}.{i}.weight": (hidden, hidden), f"readout_{v}.{i}.bias": (hidden,)}
        for stage in ("s1", "s2"):
            for number in range(1, depth + 1):
                into = width if (stage, number) == ("s1", 1) else hidden
                block, squeezed = f"{stage}_{v}.b{number}", round(into * 0.25)
                shapes |= {
                    f"{block}.conv1.conv.weight": (hidden, into, 1, 1),
                    f"{block}.conv2.conv.weight": (hidden, 1, 3, 3),
                    f"{block}.conv3.conv.weight": (hidden, hidden, 1, 1),
                    f"{block}.se.fc1.weight": (squeezed, hidden, 1, 1),
                    f"{block}.se.fc1.bias": (squeezed,),
                    f"{block}.se.fc2.weight": (hidden, squeezed, 1, 1),
                    f"{block}.se.fc2.bias": (hidden,),
                }
                norms = ["conv1", "conv2", "conv3"]
                if into != hidden:
                    shapes[f"{block}.downsample.conv.weight"] = (hidden, into, 1, 1)
                    norms.append("downsample")
                for norm in norms:
                    shapes |= {f"{block}.{norm}.bn.weight": (hidden,), f"{block}.{norm}.bn.bias": (hidden,)}
    return shapes


def random_weights(kind, width, hidden, seed=0):
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, shape in released_shapes(kind, width, hidden).items():
        fan = max(1, int(torch.tensor(shape[1:]).prod())) if len(shape) > 1 else 4
        value = torch.randn(shape, generator=generator) / fan**0.5
        weights[PREFIX + name] = value + 1.0 if name.endswith("bn.weight") else value
    return weights


def channel_norm(x, w, name):
    mean = x.mean(1, keepdim=True)
    variance = ((x - mean) ** 2).mean(1, keepdim=True)
    scale, shift = (w[f"{name}.bn.{part}"][:, None, None] for part in ("weight", "bias"))
    return (x - mean) / (variance + 1e-5).sqrt() * scale + shift


def residual_block(x, w, name):
    y = F.silu(channel_norm(F.conv2d(x, w[f"{name}.conv1.conv.weight"]), w, f"{name}.conv1"))
    spatial = F.conv2d(y, w[f"{name}.conv2.conv.weight"], padding=1, groups=y.shape[1])
    y = F.silu(channel_norm(spatial, w, f"{name}.conv2"))
    s = F.adaptive_avg_pool2d(y, 1)
    s = F.silu(F.conv2d(s, w[f"{name}.se.fc1.weight"], w[f"{name}.se.fc1.bias"]))
    y = y * torch.sigmoid(F.conv2d(s, w[f"{name}.se.fc2.weight"], w[f"{name}.se.fc2.bias"]))
    y = channel_norm(F.conv2d(y, w[f"{name}.conv3.conv.weight"]), w, f"{name}.conv3")
    if f"{name}.downsample.conv.weight" in w:
        x = channel_norm(F.conv2d(x, w[f"{name}.downsample.conv.weight"]), w, f"{name}.downsample")
    return F.silu(y + x)


def linear(x, w, name):
    return F.linear(x, w[f"{name}.weight"], w[f"{name}.bias"])


def reference_projector(weights, kind, features, shares):
    """`features` [B, T, N, D], `shares` [B, 3]; returns [B, T * s' * s', H]."""
    w = {name.removeprefix(PREFIX): weight for name, weight in weights.items() if name.startswith(PREFIX)}
    depth, padding = {"all_in_one_small": (2, (1, 0, 0)), "all_in_one": (4, (1, 1, 1))}[kind]
    clips, frames, patches, width = features.shape
    side = int(patches**0.5)
    branches = []
    for v in ("video", "body"):
        x = features.reshape(clips * frames, side, side, width).permute(0, 3, 1, 2)
        for number in range(1, depth + 1):
            x = residual_block(x, w, f"s1_{v}.b{number}")
        x = x.reshape(clips, frames, -1, side, side).transpose(1, 2)
        sampler = w[f"sampler_{v}.0.weight"], w[f"sampler_{v}.0.bias"]
        x = F.silu(F.conv3d(x, *sampler, stride=(1, 2, 2), padding=padding))
        assert x.shape[2] == frames + 1
        x = x[:, :, :-1]
        half = x.shape[-1]
        x = x.transpose(1, 2).reshape(clips * frames, -1, half, half)
        for number in range(1, depth + 1):
            x = residual_block(x, w, f"s2_{v}.b{number}")
        x = x.reshape(clips, frames, -1, half, half).permute(0, 1, 3, 4, 2).flatten(1, 3)
        branches.append(linear(F.gelu(linear(x, w, f"readout_{v}.0")), w, f"readout_{v}.2"))
    face = linear(F.gelu(linear(features, w, "mlp_2xgelu_face.0")), w, "mlp_2xgelu_face.2")
    face = face.reshape(clips * frames, side, side, -1).permute(0, 3, 1, 2)
    half = -(-side // 2)
    face = F.interpolate(face, size=(half, half), mode="bilinear", align_corners=False)
    branches.append(face.permute(0, 2, 3, 1).reshape(clips, frames * half * half, -1))
    return sum(shares[:, i, None, None] * branch for i, branch in enumerate(branches))


# --- ours against it ---


def ours(kind, weights, width, hidden):
    projector = VisualProjector(width, hidden, kind)
    converted = convert_weights(weights.items(), vision_blocks=0)
    prefix = "model.visual_projector."
    projector.load_state_dict({name.removeprefix(prefix): weight for name, weight in converted.items()})
    return projector.eval()


@pytest.mark.parametrize("frames", [1, 2, 8])
@pytest.mark.parametrize(
    ("kind", "side"),
    [
        ("all_in_one_small", 4),
        ("all_in_one_small", 6),
        ("all_in_one", 5),
        ("all_in_one", 7),
        ("all_in_one", 27),
    ],
)
@torch.no_grad()
def test_the_projector_is_the_specified_one(kind, side, frames):
    torch.set_num_threads(1)
    if side == 27 and frames == 8:
        frames = 3  # the released grid; the time axis is covered by the small ones
    weights = random_weights(kind, WIDTH, HIDDEN)
    features = torch.randn(2, frames, side * side, WIDTH, generator=torch.Generator().manual_seed(1))
    shares = torch.tensor([[0.6, 0.3, 0.1], [0.1, 0.2, 0.7]])
    expected = reference_projector(weights, kind, features, shares)
    half = (side + 1) // 2
    assert expected.shape == (2, frames * half * half, HIDDEN)
    found = ours(kind, weights, WIDTH, HIDDEN)(features, shares)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_frame_is_seen_by_itself_and_the_next_one():
    kind, side = "all_in_one", 5
    projector = ours(kind, random_weights(kind, WIDTH, HIDDEN), WIDTH, HIDDEN)
    features = torch.randn(1, 6, side * side, WIDTH)
    changed = features.clone()
    changed[:, 2] += 1.0
    shares = torch.tensor([[0.5, 0.5, 0.0]])
    difference = (projector(features, shares) - projector(changed, shares)).abs().reshape(6, -1).amax(1)
    assert [bool(value > 1e-6) for value in difference] == [False, False, True, True, False, False]


@pytest.mark.parametrize("kind", sorted(DEPTHS))
def test_width_of_squeezing_and_epsilon(kind):
    projector = VisualProjector(768, 896, kind)
    for branch in (projector.video, projector.body):
        blocks = [*branch.before, *branch.after]
        assert len(blocks) == 2 * {"all_in_one_small": 2, "all_in_one": 4}[kind]
        assert [block.excite.reduce.out_features for block in blocks] == [192] + [224] * (len(blocks) - 1)
    norms = [m for m in projector.modules() if isinstance(m, torch.nn.LayerNorm)]
    assert norms
    assert {norm.eps for norm in norms} == {1e-5}


def test_a_grid_of_the_wrong_parity_is_refused():
    with pytest.raises(ValueError, match="projector all_in_one takes an odd patch grid, found 4x4"):
        VisualProjector(WIDTH, HIDDEN, "all_in_one")(torch.zeros(1, 1, 16, WIDTH), torch.ones(1, 3))


# --- a whole released checkpoint with `all_in_one` ---


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    """The vectors' tiny network with the other projector, an odd grid of 7 x 7 and an untied head."""
    folder = tmp_path_factory.mktemp("all_in_one")
    for file in DATA.glob("*config.json"):
        shutil.copy(file, folder)
    weights = load_file(DATA / "model.safetensors")
    weights = {name: weight for name, weight in weights.items() if not name.startswith(PREFIX)}
    weights |= random_weights("all_in_one", 32, 64)
    position = "model.vision_tower.vision_tower.vision_model.embeddings.position_embedding.weight"
    weights[position] = weights[position][:49].clone()
    weights["lm_head.weight"] = torch.randn(600, 64, generator=torch.Generator().manual_seed(5))
    save_file(weights, folder / "model.safetensors")
    for file, changes in (
        ("config.json", {"mm_projector_type": "all_in_one", "tie_word_embeddings": False}),
        ("siglip_config.json", {"image_size": 56}),
    ):
        path = folder / file
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return folder, weights


@torch.no_grad()
def test_a_whole_released_checkpoint_with_the_larger_projector(released):
    folder, weights = released
    model = HumanOmniForConditionalGeneration.from_pretrained(folder)
    assert (model.config.projector_type, model.config.tokens_per_frame) == ("all_in_one", 16)
    generator = torch.Generator().manual_seed(2)
    pixels = torch.randn(2, 8, 3, 56, 56, generator=generator)
    gate = torch.randint(5, 100, (2, 9), generator=generator)
    ids = torch.randint(3, 600, (2, 12), generator=generator)
    ids[:, 3] = -201
    # Towers, gate encoder and language model are transformers' own, and checked by the vectors.
    features = model.encode_clips(pixels)["video_features"]
    first = model.model.gate_encoder(input_ids=gate).last_hidden_state[:, 0]
    hidden = F.gelu(linear(first, weights, "model.bert_gate.0"))
    shares = linear(hidden, weights, "model.bert_gate.2").softmax(-1)
    tokens = reference_projector(weights, "all_in_one", features, shares)
    table = weights["model.embed_tokens.weight"]
    rows = [torch.cat([table[row[:3]], clip, table[row[4:]]]) for row, clip in zip(ids, tokens, strict=True)]
    last = model.model.language_model(inputs_embeds=torch.stack(rows)).last_hidden_state
    expected = F.linear(last, weights["lm_head.weight"])

    found = model(input_ids=ids, pixel_values=pixels, gate_input_ids=gate).logits
    torch.testing.assert_close(model.model.visual_tokens(features, gate), tokens, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    generated = model.generate(
        input_ids=ids, pixel_values=pixels, gate_input_ids=gate, max_new_tokens=3, do_sample=False
    )
    assert generated[:, 0].tolist() == expected[:, -1].argmax(-1).tolist()
