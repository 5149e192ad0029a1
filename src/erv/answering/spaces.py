"""The label spaces of the data sets that a version was tested with, as they are stored with it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from erv.errors import RegistryError
from erv.labels import LabelSpace


def spaces_of(bundle: Path, datasets: Mapping[str, str | None] | None) -> dict[str, str]:
    """What `LabelSpace.load` takes for each data set that a version was tested with, by name, sorted.

    Args:
        bundle: folder of the bundle.
        datasets: from its `serving.json`: per data set the file in the bundle that has its label space, or
            None for a space that comes with erv. None as a whole if the version doesn't say.

    Returns:
        Empty if the version doesn't say.

    Raises:
        RegistryError: the code that answers has no space of that name.
    """
    spaces = {}
    for name, file in sorted((datasets or {}).items()):
        # By its name alone a space would also be looked for in the folder where the server was started.
        if file is None and name not in LabelSpace.shipped():
            raise RegistryError(
                f"{bundle}/serving.json: this version was tested with {name!r}, of which this erv has no"
                " label space; publish it again with the erv that made it"
            )
        spaces[name] = name if file is None else str((bundle / file).resolve())
    return spaces
