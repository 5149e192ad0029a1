"""Tower features of clips, encoded once and kept.

The vision and audio towers are frozen, so their output for a clip never changes during training. It is
computed when the clip is first seen and reused for all its completions and all later steps. We keep the
output **before** the projectors, so that the projectors still train and the reference has a projection of its
own.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence

import torch

from erv.errors import DataError
from erv.policies import Policy
from erv.shards import Clip, ShardReader

Tensors = dict[str, torch.Tensor]


class ClipFeatures:
    """Maps clip keys to stacked features, with a bounded cache of encoded clips.

    Each clip is encoded alone. Its features then don't depend on which other clips shared a batch (sums in
    another order differ in the last bits), so a resumed run sees the same numbers as an uninterrupted one.
    """

    def __init__(
        self,
        encode: Callable[[Clip], Tensors],
        readers: Mapping[str, ShardReader],
        *,
        memory_bytes: int = 2**30,
    ) -> None:
        """Starts with an empty cache.

        Args:
            encode: maps a clip to its features, each a tensor without a batch dimension.
            readers: shards by data set name; a clip's key is `<data set>/<clip id>`.
            memory_bytes: size above which the least recently used clips are dropped.
        """
        self._encode = encode
        self._readers = readers
        self._memory_bytes = memory_bytes
        self._kept: OrderedDict[str, Tensors] = OrderedDict()
        self._used_bytes = 0
        self.encoded = 0  # number of clips encoded, for the benchmark and the tests

    def __call__(self, keys: Sequence[str]) -> Tensors:
        """Features of the given clips, stacked: name -> tensor [len(keys), ...] on the encoder's device.

        Raises:
            DataError: no shard has the clip, or two clips have features of different shapes.
        """
        clips = [self._one(key) for key in keys]
        stacked = {}
        for name in clips[0]:
            shapes = {tuple(clip[name].shape) for clip in clips}
            if len(shapes) > 1:
                raise DataError(
                    f"clips {', '.join(keys)}: {name} have different shapes {sorted(shapes)}; "
                    "extract all data sets with the same number of frames and size"
                )
            stacked[name] = torch.stack([clip[name] for clip in clips])
        return stacked

    def _one(self, key: str) -> Tensors:
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        dataset, _, clip_id = key.partition("/")
        if dataset not in self._readers:
            raise DataError(f"clip {key}: no shards of data set {dataset!r} were given")
        features = self._encode(self._readers[dataset].get(clip_id))
        self.encoded += 1
        self._kept[key] = features
        self._used_bytes += _size(features)
        while self._used_bytes > self._memory_bytes and len(self._kept) > 1:
            _, dropped = self._kept.popitem(last=False)
            self._used_bytes -= _size(dropped)
        return features


def policy_encoder(policy: Policy, dtype: torch.dtype = torch.float32) -> Callable[[Clip], Tensors]:
    """A function that encodes one clip with a policy's processor and its frozen towers.

    Args:
        policy: the policy; it may change later, but not its towers.
        dtype: what the towers compute in, under autocast; float32 means without. The features have the
            policy's own type.
    """

    def encode(clip: Clip) -> Tensors:
        prepared = policy.processor.prepare_clip(clip.frames, clip.audio, clip.sample_rate)
        # No dropout: the kept features must be those that an evaluation would see. Only the modules that are
        # in training mode are touched: setting the whole model took as long as a third of the towers.
        training = [module for module in policy.model.modules() if module.training]
        for module in training:
            module.training = False
        with torch.autocast(policy.device.type, dtype=dtype, enabled=dtype != torch.float32):
            features = policy.model.encode_clips(
                **{name: value.unsqueeze(0) for name, value in prepared.items()}
            )
        for module in training:
            module.training = True
        return {name: value[0].to(policy.model.dtype) for name, value in features.items()}

    return encode


def _size(features: Tensors) -> int:
    return sum(value.numel() * value.element_size() for value in features.values())
