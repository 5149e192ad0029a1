"""The smallest policy with every part; tests change what they need with `dataclasses.replace`."""

from erv.sample.tiny_policy import TinySizes

SMALLEST = TinySizes(
    image_size=32,
    num_frames=2,
    vision_width=16,
    vision_layers=1,
    mels=16,
    audio_width=16,
    audio_layers=1,
    window_seconds=1,
    hidden=32,
    layers=2,
    heads=2,
    mlp=64,
    gate_width=16,
)
