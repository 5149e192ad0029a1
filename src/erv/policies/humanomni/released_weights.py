"""Reads the weights of a released HumanOmni, R1-Omni or ERV checkpoint, and of the towers that it names.

Released checkpoints differ from ours in two ways, both handled here: weights have other names, and some
convolutions are matrix products in our layout. SigLIP's last block, closing norm and head, the Whisper
classifier and the BERT pooler are never built, because nothing reads them.

The released loader ignores the towers in the checkpoint and uses the towers that the checkpoint names. They
were frozen in training, so both should be equal up to rounding. Our loader uses the checkpoint's own towers
if it has any, and otherwise the named ones. If both are on this machine, it compares them; it downloads
nothing for the comparison.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

import torch

from erv.errors import TrainingError
from erv.policies.humanomni.checkpoint_files import CheckpointFiles
from erv.policies.humanomni.released_config import AUDIO, VISION, Part, named_sources

# A weight that was rounded to bfloat16 (half a unit in 8 bits) on one side and to float16 on the other
# differs by less than 2**-8 of its value; the absolute part covers what float16 can't resolve.
RELATIVE_TOLERANCE, ABSOLUTE_TOLERANCE = 2.0**-8, 1e-6

# Order matters: the first matching pattern renames the weight. A replacement of None drops it.
_NAMES: tuple[tuple[str, str | None], ...] = (
    (r"^model\.(embed_tokens|layers|norm)\.", r"model.language_model.\1."),
    (r"^model\.vision_tower\.vision_tower\.vision_model\.(post_layernorm|head)\..*", None),
    (r"^model\.vision_tower\.vision_tower\.vision_model\.", "model.vision_tower."),
    (r"^model\.audio_tower\.audio_tower\.(projector|classifier|layer_weights).*", None),
    (r"^model\.audio_tower\.audio_tower\.encoder\.", "model.audio_tower."),
    (r"^model\.bert_model\.pooler\..*", None),
    (r"^model\.bert_model\.", "model.gate_encoder."),
    (r"^model\.bert_gate\.0\.", "model.gate.enter."),
    (r"^model\.bert_gate\.2\.", "model.gate.readout."),
    (r"^model\.audio_projector\.0\.", "model.audio_projector.enter."),
    (r"^model\.audio_projector\.2\.", "model.audio_projector.readout."),
    (r"^model\.mm_projector\.mlp_2xgelu_face\.0\.", "model.visual_projector.face.enter."),
    (r"^model\.mm_projector\.mlp_2xgelu_face\.2\.", "model.visual_projector.face.readout."),
    (r"^model\.mm_projector\.sampler_(video|body)\.0\.", r"model.visual_projector.\1.sampler."),
    (r"^model\.mm_projector\.readout_(video|body)\.", r"model.visual_projector.\1.readout."),
)
_BLOCK = re.compile(r"^model\.mm_projector\.s([12])_(video|body)\.b(\d+)\.(.+)\.(weight|bias)$")
_BLOCK_PARTS = {
    "conv1.conv": "mix_in",
    "conv1.bn": "norm_in",
    "conv2.conv": "spatial",
    "conv2.bn": "norm_spatial",
    "se.fc1": "excite.reduce",
    "se.fc2": "excite.expand",
    "conv3.conv": "mix_out",
    "conv3.bn": "norm_out",
    "downsample.conv": "shortcut.0",
    "downsample.bn": "shortcut.1",
}


def convert_name(name: str) -> str | None:
    """Our name for a released weight, or None if nothing reads it.

    Raises:
        TrainingError: the name belongs to no part of the network.
    """
    if name.endswith("position_ids"):
        return None
    if (block := _BLOCK.match(name)) and block[4] in _BLOCK_PARTS:
        stage, branch, number, part, kind = block.groups()
        side = "before" if stage == "1" else "after"
        return f"model.visual_projector.{branch}.{side}.{int(number) - 1}.{_BLOCK_PARTS[part]}.{kind}"
    for pattern, replacement in _NAMES:
        if re.match(pattern, name):
            return None if replacement is None else re.sub(pattern, replacement, name, count=1)
    if name == "lm_head.weight":
        return name
    raise TrainingError(f"{name}: not a weight of a HumanOmni checkpoint; is this another model?")


def convert_weights(
    weights: Iterable[tuple[str, torch.Tensor]], vision_blocks: int
) -> dict[str, torch.Tensor]:
    """Renames released weights and reshapes convolutions to the matrices that we multiply with.

    Args:
        weights: names and tensors of the released state dict.
        vision_blocks: number of SigLIP blocks that are built; later ones are dropped.
    """
    converted = {}
    for name, weight in weights:
        ours = convert_name(name)
        if ours is None:
            continue
        if _is_unused_block(ours, vision_blocks):
            continue
        if ours.endswith("sampler.weight"):  # [out, in, time, row, column] -> [out, (time, row, column, in)]
            weight = weight.permute(0, 2, 3, 4, 1).flatten(1)
        elif weight.ndim == 4 and weight.shape[-1] == 1:  # a 1x1 convolution
            weight = weight.flatten(1)
        converted[ours] = weight.contiguous()
    return converted


def _is_unused_block(ours: str, vision_blocks: int) -> bool:
    """Whether a weight belongs to a SigLIP block that isn't built."""
    block = re.match(r"model\.vision_tower\.encoder\.layers\.(\d+)\.", ours)
    return block is not None and int(block.group(1)) >= vision_blocks


def tower_name(name: str, part: Part, *, whole: bool) -> str | None:
    """Our name for a weight of a public SigLIP or Whisper, or None if nothing reads it.

    Args:
        name: the name in the tower's file. SigLIP comes complete (`vision_model.…` beside `text_model.…`) or
            as the vision model alone, with or without that prefix. Whisper comes as the complete model
            (`model.encoder.…`), as a model without head (`encoder.…`), or as the encoder alone.
        part: the tower.
        whole: whether any name in the file has the prefix that tells the tower from other parts.
    """
    if part is VISION:
        marked = re.match(r"^(?:.*\.)?vision_model\.(.+)$", name)
        rest = marked.group(1) if marked else None if whole else name
        if rest is None or not rest.startswith(("embeddings.", "encoder.")) or rest.endswith("position_ids"):
            return None
        return f"model.vision_tower.{rest}"
    marked = re.match(r"^(?:.*\.)?encoder\.(.+)$", name)
    rest = marked.group(1) if marked else None if whole else name
    known = ("conv1.", "conv2.", "embed_positions.", "layers.", "layer_norm.")
    return f"model.audio_tower.{rest}" if rest is not None and rest.startswith(known) else None


def _is_marked(name: str, part: Part) -> bool:
    """Whether a name has the prefix that tells its tower from other parts."""
    prefix = "vision_model" if part is VISION else "encoder"
    # A bare SigLIP vision model has names that begin with `encoder.`; only Whisper's prefix is that word.
    return re.match(rf"^(?:.*\.)?{prefix}\.", name) is not None


def _tower_weights(source: CheckpointFiles, part: Part, vision_blocks: int) -> dict[str, torch.Tensor]:
    """The weights of a named tower, under our names."""
    names = source.weight_names()
    whole = any(_is_marked(name, part) for name in names)
    ours = {name: tower_name(name, part, whole=whole) for name in names}
    kept = {
        name: new
        for name, new in ours.items()
        if new is not None and not _is_unused_block(new, vision_blocks)
    }
    if not kept:
        raise TrainingError(
            f"{source.name}: holds no weights of a {part.word}; give the tower's folder as {part.key}"
        )
    return {kept[name]: weight for name, weight in source.weights(kept)}


def _sources_with_weights(
    released: dict[str, Any], files: CheckpointFiles, part: Part, *, offline: bool
) -> Iterator[CheckpointFiles]:
    for source in named_sources(released, files, part, offline=offline):
        if source.weight_files():
            yield source


def released_weights(
    released: dict[str, Any], files: CheckpointFiles, vision_blocks: int
) -> dict[str, torch.Tensor]:
    """All weights of a released checkpoint, including towers, in our names and layout.

    Args:
        released: the checkpoint's `config.json`.
        files: the checkpoint's files.
        vision_blocks: number of SigLIP blocks that are built.

    Raises:
        TrainingError: there are no safetensors; a weight belongs to another model; a tower is neither in the
            checkpoint nor at the place that it names; or the checkpoint's towers differ from the named ones.
    """
    weights = convert_weights(files.weights(), vision_blocks)
    for part, prefix in ((VISION, "model.vision_tower."), (AUDIO, "model.audio_tower.")):
        own = {name: weight for name, weight in weights.items() if name.startswith(prefix)}
        source = next(_sources_with_weights(released, files, part, offline=bool(own)), None)
        if not own:
            if source is None:
                named = files.towers.get(part.key, released.get(part.key))
                raise TrainingError(
                    f"{files.name}: no weights of its {part.word}: none in the checkpoint, and none at"
                    f" {part.key} ({named!r}); give the folder of the public tower as {part.key}, or a"
                    f" checkpoint that holds its weights ({prefix}*)"
                )
            weights.update(_tower_weights(source, part, vision_blocks))
        elif source is not None and not _was_trained(released, part):
            _compare(own, _tower_weights(source, part, vision_blocks), files, source, part)
    return weights


def _was_trained(released: dict[str, Any], part: Part) -> bool:
    """Whether the tower was trained, in which case the released code uses the checkpoint's own tower."""
    return part is AUDIO and bool(released.get("unfreeze_mm_audio_tower"))


def _compare(
    own: dict[str, torch.Tensor],
    named: dict[str, torch.Tensor],
    files: CheckpointFiles,
    source: CheckpointFiles,
    part: Part,
) -> None:
    """Refuses towers that differ by more than rounding: the released code would compute something else."""
    worst = ("", 0.0, 0.0)
    for name, weight in own.items():
        other = named.get(name)
        if other is None or other.shape != weight.shape:
            found = "missing" if other is None else f"of shape {list(other.shape)}"
            raise TrainingError(
                f"{source.name}: {name} is {found}, but in the checkpoint {files.name} it has the shape"
                f" {list(weight.shape)}; this is not its {part.word}: give the right folder as {part.key}"
            )
        ours, theirs = weight.float(), other.float()
        difference = (ours - theirs).abs()
        allowed = ABSOLUTE_TOLERANCE + RELATIVE_TOLERANCE * torch.maximum(ours.abs(), theirs.abs())
        excess = float((difference / allowed).max())
        if not excess <= max(worst[1], 1.0):  # written so that NaN counts as an excess
            worst = (name, excess, float(difference.max()))
    if worst[0]:
        raise TrainingError(
            f"{files.name}: its {part.word} is not the one at {source.name}: largest difference"
            f" {worst[2]:.3g} in {worst[0]}, {worst[1]:.3g} times what rounding to half precision explains."
            f" The released code uses the named tower: give the right folder as {part.key}, or"
            f' {part.key}="" to use the one in the checkpoint'
        )


__all__ = ["convert_name", "convert_weights", "released_weights", "tower_name"]
