"""Stores the label spaces of the data sets that a policy was tested with in its bundle.

A question can list the emotions of a data set, and answers are read in its label space. A served version has
no workspace, so spaces of one's own go with it; those that come with erv are part of the code that answers.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from erv.errors import RegistryError
from erv.labels import LabelSpace, own_file

SPACES = "label_spaces"  # its folder in a bundle and in an exported folder


def store_spaces(datasets: Iterable[str], bundle: Path) -> dict[str, str | None]:
    """Copies the workspace's own label spaces of data sets into a bundle.

    Returns:
        `datasets` of `serving.json`: per data set the file in the bundle, None for a space of erv's.

    Raises:
        DataError: a space is missing or contradicts itself.
    """
    stored: dict[str, str | None] = {}
    for name in sorted(set(datasets)):
        LabelSpace.load(name)
        own = own_file(name)
        stored[name] = None if own is None else _copied(own, name, bundle)
    return stored


def take_spaces(folder: Path, datasets: Mapping[str, str | None], bundle: Path) -> None:
    """Copies the label spaces of an exported folder into a bundle.

    Args:
        folder: the exported folder.
        datasets: of its `serving.json`.
        bundle: where they go.

    Raises:
        RegistryError: a data set has no space there and none that comes with erv.
        DataError: a space is missing, contradicts itself, or has no map to MAFW.
    """
    for name, file in sorted(datasets.items()):
        if file is None and name in LabelSpace.shipped():
            continue
        if file != f"{SPACES}/{name}.yaml":
            raise RegistryError(
                f"{folder / 'serving.json'}: datasets.{name} is {file!r}, expected '{SPACES}/{name}.yaml',"
                " the file in the folder with its label space; export the version again"
            )
        LabelSpace.load(folder / file).to("mafw")
        _copied(folder / file, name, bundle)


def _copied(source: Path, name: str, bundle: Path) -> str:
    file = f"{SPACES}/{name}.yaml"
    (bundle / SPACES).mkdir(exist_ok=True)
    shutil.copyfile(source, bundle / file)
    return file
