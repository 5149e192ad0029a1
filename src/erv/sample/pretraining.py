"""Pretrains the tiny policy's towers as classifiers, in place of SigLIP's and Whisper's training on web data.

Without it nothing works: trained through the language loss alone, towers this small never learn to look. Each
tower predicts the emotion and the cues of its own channel. The heads are discarded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from erv.policies.humanomni import HumanOmniForConditionalGeneration, HumanOmniProcessor
from erv.shards import Clip

VISION_STEPS = 1100
AUDIO_STEPS = 700
_BATCH = 32
_FRAMES_PER_CLIP = 2
_CUE_WEIGHT = 3.0  # there are many cues, mostly absent, so their mean loss is small next to the emotion's


@dataclass(frozen=True)
class LabelledClip:
    """A clip with what it really shows: its emotion and the cues of face and voice."""

    clip: Clip
    emotion: str
    face_cues: tuple[str, ...]
    voice_cues: tuple[str, ...]


@dataclass
class TowerData:
    """Clips as tensors: frames uint8 [N, T, 3, S, S], mels float [N, M, F], targets float [N, names]."""

    frames: torch.Tensor
    mels: torch.Tensor
    emotions: torch.Tensor
    face: torch.Tensor
    voice: torch.Tensor


class TowerHeads(nn.Module):
    """Linear classifiers on each tower; the vision one sees patches in place, because cues are local."""

    def __init__(
        self, model: HumanOmniForConditionalGeneration, emotions: int, face: int, voice: int
    ) -> None:
        super().__init__()
        config = model.config
        self.emotions = emotions
        patches = config.patches_per_side**2
        self.vision = nn.Linear(config.vision_config.hidden_size * patches, emotions + face)
        self.audio = nn.Linear(config.audio_config.d_model, emotions + voice)


def prepare(
    clips: Sequence[LabelledClip],
    processor: HumanOmniProcessor,
    names: tuple[list[str], list[str], list[str]],
) -> TowerData:
    """Makes tensors of clips; `names` are the emotions, face cues and voice cues in order."""
    emotions, face, voice = names
    prepared = [processor.prepare_clip(c.clip.frames, c.clip.audio, c.clip.sample_rate) for c in clips]

    def marks(chosen: Sequence[tuple[str, ...]], known: list[str]) -> torch.Tensor:
        return torch.tensor([[float(name in row) for name in known] for row in chosen])

    return TowerData(
        frames=torch.stack([torch.from_numpy(c.clip.frames.copy()).permute(0, 3, 1, 2) for c in clips]),
        mels=torch.stack([item["input_features"] for item in prepared]),
        emotions=torch.tensor([emotions.index(c.emotion) for c in clips]),
        face=marks([c.face_cues for c in clips], face),
        voice=marks([c.voice_cues for c in clips], voice),
    )


def label_names(clips: Sequence[LabelledClip]) -> tuple[list[str], list[str], list[str]]:
    """Emotions, face cues and voice cues that occur, sorted."""
    return (
        sorted({c.emotion for c in clips}),
        sorted({cue for c in clips for cue in c.face_cues}),
        sorted({cue for c in clips for cue in c.voice_cues}),
    )


def train_towers(
    model: HumanOmniForConditionalGeneration,
    processor: HumanOmniProcessor,
    clips: Sequence[LabelledClip],
    seed: int,
    *,
    vision_steps: int = VISION_STEPS,
    audio_steps: int = AUDIO_STEPS,
    progress: Callable[[str], None] = lambda line: None,
) -> Callable[[Sequence[LabelledClip]], dict[str, float]]:
    """Trains both towers in place and freezes them again.

    Args:
        model: the tiny policy, on the CPU.
        processor: its processor.
        clips: labelled clips.
        seed: of order, augmentation and heads.
        vision_steps: optimiser steps of 32 clips with 2 frames each.
        audio_steps: optimiser steps of 32 clips.
        progress: called with a line now and then.

    Returns:
        A function that measures both towers on other clips: `vision` and `audio` are the shares of
        clips with an emotion that the tower recognises by itself.
    """
    names = label_names(clips)
    data = prepare(clips, processor, names)
    by_eye, by_ear = (torch.Generator().manual_seed(2 * seed + channel) for channel in (0, 1))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        heads = TowerHeads(model, len(names[0]), len(names[1]), len(names[2]))
    vision, audio = model.model.vision_tower, model.model.audio_tower

    def vision_loss(rows: torch.Tensor) -> torch.Tensor:
        count = data.frames.shape[1]
        # The first quarter of a clip is often still neutral.
        frames = torch.randint(count // 4, count, (_FRAMES_PER_CLIP, len(rows)), generator=by_eye)
        pixels = torch.cat([data.frames[rows, frame] for frame in frames])
        logits = heads.vision(vision(augment_frames(pixels, by_eye)).flatten(1))
        return classification_loss(logits, data.emotions[rows].repeat(2), data.face[rows].repeat(2, 1))

    def audio_loss(rows: torch.Tensor) -> torch.Tensor:
        mels = augment_mels(data.mels[rows], by_ear)
        return classification_loss(
            heads.audio(audio(mels).last_hidden_state.mean(1)), data.emotions[rows], data.voice[rows]
        )

    for tower in (vision, audio):
        tower.requires_grad_(True)
    audio.embed_positions.requires_grad_(False)  # Whisper's are fixed sinusoids
    # In parallel threads: each has its own weights and random stream, and torch releases the GIL.
    with ThreadPoolExecutor(2) as pool:
        fitting = [
            pool.submit(fit, [tower, head], loss, len(clips), steps, rate, generator, report)
            for tower, head, loss, steps, rate, generator, report in (
                (vision, heads.vision, vision_loss, vision_steps, 1.5e-3, by_eye, _named("vision", progress)),
                (audio, heads.audio, audio_loss, audio_steps, 2e-3, by_ear, _named("audio", progress)),
            )
        ]
        for one in fitting:
            one.result()
    model.freeze_towers()
    model.eval()

    @torch.no_grad()
    def measure(others: Sequence[LabelledClip]) -> dict[str, float]:
        held = prepare(others, processor, names)
        count = held.frames.shape[1]
        frames = held.frames[:, count // 4 :].float() / 127.5 - 1
        features = model.encode_clips(frames, held.mels)
        seen = heads.vision(features["video_features"].flatten(2))[..., : heads.emotions].mean(1).argmax(1)
        heard = heads.audio(features["audio_features"].mean(1))[:, : heads.emotions].argmax(1)
        return {
            "vision": (seen == held.emotions).float().mean().item(),
            "audio": (heard == held.emotions).float().mean().item(),
        }

    return measure


def _named(tower: str, progress: Callable[[str], None]) -> Callable[[str], None]:
    return lambda line: progress(f"{tower} tower: {line}")


def fit(
    modules: Sequence[nn.Module],
    loss_of: Callable[[torch.Tensor], torch.Tensor],
    clips: int,
    steps: int,
    rate: float,
    generator: torch.Generator,
    progress: Callable[[str], None],
) -> None:
    """AdamW with one warm-up and decay over random batches, on the parameters that require a gradient."""
    trained = [p for module in modules for p in module.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=rate, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=max(2, steps), pct_start=0.1)
    for module in modules:
        module.train()
    for step in range(1, steps + 1):
        loss = loss_of(torch.randint(0, clips, (_BATCH,), generator=generator))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        schedule.step()
        if step % 200 == 0 or step == steps:
            progress(f"step {step}/{steps}, loss {loss.item():.3f}")
    for module in modules:
        module.eval()


def classification_loss(logits: torch.Tensor, emotions: torch.Tensor, cues: torch.Tensor) -> torch.Tensor:
    """Of logits [n, emotions + cues], against emotions int [n] and cues float [n, cues]."""
    split = logits.shape[1] - cues.shape[1]
    cue_loss = functional.binary_cross_entropy_with_logits(logits[:, split:], cues)
    return functional.cross_entropy(logits[:, :split], emotions) + _CUE_WEIGHT * cue_loss


def augment_frames(pixels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Mirrors, turns, scales, shifts and recolours each frame: uint8 [n, 3, S, S] to float in about -1..1."""
    count = pixels.shape[0]
    images = pixels.float() / 127.5 - 1

    def draw(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=generator) * 2 - 1

    angle, scale = 0.15 * draw(count), 1 + 0.1 * draw(count)
    mirror = torch.where(draw(count) < 0, -1.0, 1.0)
    rows = (
        torch.stack((mirror * scale * angle.cos(), -scale * angle.sin(), 0.12 * draw(count)), dim=1),
        torch.stack((mirror * scale * angle.sin(), scale * angle.cos(), 0.12 * draw(count)), dim=1),
    )
    grid = functional.affine_grid(torch.stack(rows, dim=1), list(images.shape), align_corners=False)
    images = functional.grid_sample(images, grid, padding_mode="border", align_corners=False)
    share = ((draw(count, 1, 1, 1) + 1) * 0.65).clamp(max=1)
    images = torch.lerp(images, images.mean(dim=1, keepdim=True).expand_as(images), share)
    return images * (1 + 0.3 * draw(count, 3, 1, 1)) + 0.3 * draw(count, 3, 1, 1)


def augment_mels(mels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Shifts in time and pitch, and adds a little noise: [n, M, F]."""
    later = int(torch.randint(0, 10, (1,), generator=generator))
    higher = int(torch.randint(-1, 2, (1,), generator=generator))
    noise = torch.randn(mels.shape, generator=generator)
    return torch.roll(mels, (higher, later), dims=(1, 2)) + 0.1 * noise
