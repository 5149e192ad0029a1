"""Projects tower features to tokens of the language model: three visual branches, and the audio MLP.

This computes the same as the projector of the released HumanOmni (`all_in_one_small`, `all_in_one`), but is
laid out for speed. Channels stay last, so that 1x1 convolutions are matrix products and LayerNorm needs no
transposition. The windows of the 2x2x2 convolution don't overlap in space, so it is one matrix product too.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

DEPTHS = {"all_in_one_small": 2, "all_in_one": 4}
_EPSILON = 1e-5  # timm swaps its LayerNorm2d (1e-6) for a norm + activation class with this one


class SqueezeExcite(nn.Module):
    """Weighs channels by the content of the whole frame."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.reduce = nn.Linear(channels, squeezed)
        self.expand = nn.Linear(squeezed, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`x`: [frames, s, s, channels]."""
        mean = x.mean(dim=(1, 2), keepdim=True)
        return x * torch.sigmoid(self.expand(functional.silu(self.reduce(mean))))


class Bottleneck(nn.Module):
    """RegNet bottleneck as timm builds it: depthwise 3x3, squeeze-excite, LayerNorm over channels."""

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__()
        self.mix_in = nn.Linear(channels_in, channels, bias=False)
        self.norm_in = nn.LayerNorm(channels, eps=_EPSILON)
        self.spatial = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.norm_spatial = nn.LayerNorm(channels, eps=_EPSILON)
        self.excite = SqueezeExcite(channels, round(channels_in * 0.25))
        self.mix_out = nn.Linear(channels, channels, bias=False)
        self.norm_out = nn.LayerNorm(channels, eps=_EPSILON)
        self.shortcut = (
            nn.Identity()
            if channels_in == channels
            else nn.Sequential(
                nn.Linear(channels_in, channels, bias=False), nn.LayerNorm(channels, eps=_EPSILON)
            )
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`x`: [frames, s, s, channels_in]; returns [frames, s, s, channels]."""
        hidden = functional.silu(self.norm_in(self.mix_in(x)))
        hidden = self.spatial(hidden.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        hidden = self.excite(functional.silu(self.norm_spatial(hidden)))
        return functional.silu(self.norm_out(self.mix_out(hidden)) + self.shortcut(x))


class Branch(nn.Module):
    """The "video" and "body" branches: residual blocks around a causal halving of the grid; a readout."""

    def __init__(self, width: int, hidden: int, depth: int) -> None:
        super().__init__()
        self.before = nn.Sequential(*(Bottleneck(width if i == 0 else hidden, hidden) for i in range(depth)))
        # Order of the inputs: time (previous, current), row, column, channel.
        self.sampler = nn.Linear(8 * hidden, hidden)
        self.after = nn.Sequential(*(Bottleneck(hidden, hidden) for _ in range(depth)))
        self.readout = nn.Sequential(nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, hidden))

    def forward(self, features: torch.Tensor, side: int) -> torch.Tensor:
        """`features`: [clips, frames, side * side, width]; returns [clips, frames * s' * s', hidden]."""
        clips, frames, _, width = features.shape
        grid = self.before(features.reshape(clips * frames, side, side, width))
        hidden = grid.shape[-1]
        grid = grid.reshape(clips, frames, side, side, hidden)
        # `all_in_one` pads an odd grid; only the padding in front is ever inside a window.
        odd = side % 2
        grid = functional.pad(grid, (0, 0, odd, 0, odd, 0, 1, 0))
        half = (side + odd) // 2
        pairs = torch.stack((grid[:, :-1], grid[:, 1:]), dim=2)
        windows = pairs.reshape(clips, frames, 2, half, 2, half, 2, hidden).permute(0, 1, 3, 5, 2, 4, 6, 7)
        sampled = functional.silu(self.sampler(windows.reshape(clips * frames, half, half, 8 * hidden)))
        tokens: torch.Tensor = self.readout(self.after(sampled)).reshape(clips, frames * half * half, hidden)
        return tokens


class FaceBranch(nn.Module):
    """The "face" branch: an MLP per patch, then the grid halved by bilinear interpolation."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.enter = nn.Linear(width, hidden)
        self.readout = nn.Linear(hidden, hidden)

    def forward(self, features: torch.Tensor, side: int) -> torch.Tensor:
        """`features`: [clips, frames, side * side, width]; returns [clips, frames * s' * s', hidden]."""
        clips, frames, _, width = features.shape
        hidden = functional.gelu(self.enter(features.reshape(clips * frames, side, side, width)))
        half = (side + 1) // 2
        # Interpolation weights sum to one, so it commutes with the last linear layer: a quarter of the work.
        if side % 2 == 0:
            hidden = hidden.reshape(clips * frames, half, 2, half, 2, -1).mean(dim=(2, 4))
        else:
            hidden = functional.interpolate(
                hidden.permute(0, 3, 1, 2), size=(half, half), mode="bilinear", align_corners=False
            ).permute(0, 2, 3, 1)
        tokens: torch.Tensor = self.readout(hidden).reshape(clips, frames * half * half, -1)
        return tokens


class VisualProjector(nn.Module):
    """Three branches over the same features, mixed by the gate's weights.

    There are no face or body crops: the names only say what each branch was meant for.
    """

    def __init__(self, width: int, hidden: int, kind: str) -> None:
        super().__init__()
        depth = DEPTHS[kind]
        self.kind = kind
        self.video = Branch(width, hidden, depth)
        self.body = Branch(width, hidden, depth)
        self.face = FaceBranch(width, hidden)

    def forward(self, features: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """Mixes the branches.

        Args:
            features: [clips, frames, patches, width], from the vision tower.
            weights: [clips, 3], the shares of video, body and face.

        Returns:
            [clips, frames * ceil(s/2)**2, hidden] for patches = s * s.

        Raises:
            ValueError: this kind of projector does not take such a patch grid.
        """
        side = round(features.shape[2] ** 0.5)
        if side % 2 != (self.kind == "all_in_one"):
            parity = "even" if self.kind == "all_in_one_small" else "odd"
            raise ValueError(f"projector {self.kind} takes an {parity} patch grid, found {side}x{side}")
        branches = (self.video(features, side), self.body(features, side), self.face(features, side))
        mixed = [weights[:, i, None, None] * branch for i, branch in enumerate(branches)]
        total: torch.Tensor = mixed[0] + mixed[1] + mixed[2]
        return total


class AudioProjector(nn.Module):
    """Mean pooling over time, then an MLP."""

    def __init__(self, width: int, hidden: int, pool: int) -> None:
        super().__init__()
        self.pool = pool
        self.enter = nn.Linear(width, hidden)
        self.readout = nn.Linear(hidden, hidden)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """`features`: [clips, positions, width]; returns [clips, positions // pool, hidden]."""
        clips, positions, width = features.shape
        kept = positions // self.pool * self.pool
        pooled = features[:, :kept].reshape(clips, kept // self.pool, self.pool, width).mean(dim=2)
        tokens: torch.Tensor = self.readout(functional.gelu(self.enter(pooled)))
        return tokens


class Gate(nn.Module):
    """Shares of the three visual branches, from the first position of the gate encoder."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.enter = nn.Linear(width, inner)
        self.readout = nn.Linear(inner, 3)

    def forward(self, first: torch.Tensor) -> torch.Tensor:
        """`first`: [clips, width]; returns [clips, 3], rows that sum to one."""
        return torch.softmax(self.readout(functional.gelu(self.enter(first))), dim=-1)
