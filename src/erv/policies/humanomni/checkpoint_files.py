"""Finds and reads the files of a checkpoint, in a local folder or under a name on the Hugging Face hub.

Only JSON and safetensors are read: nothing that is loaded can run code.
"""

from __future__ import annotations

import json
import os
from collections.abc import Container, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from transformers.utils import cached_file
from transformers.utils.hub import get_checkpoint_shard_files

from erv.errors import TrainingError

_HUB_OPTIONS = ("cache_dir", "force_download", "local_files_only", "token", "revision", "subfolder")
_WEIGHTS = "model.safetensors"
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


class CheckpointFiles:
    """The files of one checkpoint.

    Args:
        name: a local folder, or a name on the hub.
        **options: the options of `from_pretrained` that say where to look (`cache_dir`, `revision`, `token`,
            `local_files_only`, `force_download`, `subfolder`). `mm_vision_tower` and `mm_audio_tower` replace
            the towers that a released configuration names. Other options are ignored.
    """

    def __init__(self, name: str | os.PathLike[str], **options: Any) -> None:
        self.name = str(name)
        self.options = {key: options[key] for key in _HUB_OPTIONS if options.get(key) is not None}
        self.towers = {
            key: options[key] for key in ("mm_vision_tower", "mm_audio_tower") if options.get(key) is not None
        }

    @property
    def folder(self) -> Path | None:
        """The local folder, or None for a name on the hub."""
        path = Path(self.name) / self.options.get("subfolder", "")
        return path if path.is_dir() else None

    def find(self, filename: str) -> Path | None:
        """The local path of a file, downloaded if necessary and allowed; None if there is no such file."""
        try:
            found = cached_file(
                self.name, filename, **self.options, _raise_exceptions_for_missing_entries=False
            )
        except (OSError, ValueError):  # no such repository, no network, or no valid name
            return None
        return None if found is None else Path(found)

    def read_json(self, filename: str) -> dict[str, Any] | None:
        """The content of a JSON file; None if there is no such file.

        Raises:
            TrainingError: the file doesn't hold a JSON object.
        """
        path = self.find(filename)
        if path is None:
            return None
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise TrainingError(f"{path}: not valid JSON ({error}); fetch the file again") from error
        if not isinstance(content, dict):
            raise TrainingError(f"{path}: expected a JSON object; fetch the file again")
        return content

    def weight_files(self) -> list[Path]:
        """The safetensors files: one, or the shards that the index names; empty if there are none.

        Raises:
            TrainingError: a shard is missing.
        """
        single = self.find(_WEIGHTS)
        if single is not None:
            return [single]
        index = self.find(f"{_WEIGHTS}.index.json")
        if index is None:
            return []
        try:
            shards, _ = get_checkpoint_shard_files(self.name, str(index), **self.options)
        except (OSError, ValueError, KeyError) as error:
            raise TrainingError(f"{index}: can't find its shards ({error}); fetch them again") from error
        paths = [Path(shard) for shard in shards]
        for path in paths:
            if not path.is_file():
                raise TrainingError(f"{path}: not found, but {index.name} names it; fetch the shard again")
        return paths

    def weight_names(self) -> list[str]:
        """Names of all tensors; raises the same errors as `weights`."""
        return [name for opened in self._opened() for name in opened.keys()]  # noqa: SIM118 - no mapping

    def weights(self, keep: Container[str] | None = None) -> Iterator[tuple[str, torch.Tensor]]:
        """Names and tensors, one at a time.

        Args:
            keep: names of the tensors to read; None for all.

        Raises:
            TrainingError: there are no safetensors, or a file is damaged.
        """
        for opened in self._opened():
            for name in opened.keys():  # noqa: SIM118 - no mapping
                if keep is None or name in keep:
                    yield name, opened.get_tensor(name)

    def _opened(self) -> Iterator[safe_open]:
        files = self.weight_files()
        if not files:
            raise TrainingError(self.no_weights())
        for path in files:
            try:
                opened = safe_open(path, framework="pt")
            except SafetensorError as error:
                raise TrainingError(
                    f"{path}: not a whole safetensors file ({error}); fetch it again"
                ) from error
            with opened:
                yield opened

    def no_weights(self) -> str:
        """The error message for a checkpoint without safetensors; it differs if there is a pickle."""
        folder = self.folder
        pickles = sorted(path.name for pattern in _PICKLES for path in folder.glob(pattern)) if folder else []
        if pickles:
            return (
                f"{self.name}: its weights are a pickle ({pickles[0]}), which could run code when loaded;"
                " convert the checkpoint to safetensors (model.safetensors) first"
            )
        return (
            f"{self.name}: no model.safetensors and no model.safetensors.index.json here; fetch the weights"
            " again, or convert the checkpoint to safetensors first"
        )


__all__ = ["CheckpointFiles"]
