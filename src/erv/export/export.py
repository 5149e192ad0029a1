"""Writes a published version as a `from_pretrained` folder with a card.

config.json, weights, tokenizer   the policy, at the top
verifier/                         the verifier
serving.json                      how clips are decoded, and what the policy was tested with
label_spaces/                     of data sets that it was tested with, if they don't come with erv
lineage.json                      what made the version, by hashes
README.md                         the card
"""

from __future__ import annotations

import errno
import shutil
from collections.abc import Sequence
from pathlib import Path

from erv.errors import RegistryError
from erv.export.card import model_card
from erv.files import model_folder, scratch_folder, sweep_beside
from erv.policies.common.arm import FILE as ARM
from erv.policies.common.arm import stated_arm
from erv.policies.common.families import family_of, read_config
from erv.register.external import CARD, SERVING, VERIFIER
from erv.register.fetched import FetchedVersion
from erv.register.record import RECORD
from erv.register.tested import SPACES
from erv.register.verdict import Verdict


def export(version: FetchedVersion, folder: Path, verdicts: Sequence[Verdict] | None = None) -> None:
    """Writes the folder. Equal versions with equal verdicts give equal bytes.

    Args:
        version: what to write.
        folder: must not exist, or be empty.
        verdicts: on its gates, for the card; None if they were never decided.

    Raises:
        RegistryError: the folder has something in it, or the version holds a reference to weights elsewhere.
    """
    target = folder.resolve()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise _taken(folder)
    policy = version.bundle / "policy"
    if stated_arm(policy).folder is not None:  # one without a folder answers without thinking
        raise RegistryError(
            f"{version.title}: its policy is an arm, whose weights are elsewhere ({ARM}); export a version"
            " of a policy that was trained here"
        )
    family = family_of(read_config(policy), policy)
    sweep_beside(target)
    with scratch_folder(target, shared=True) as scratch:
        with model_folder(scratch / target.name) as work:
            shutil.copytree(policy, work, dirs_exist_ok=True)
            shutil.copytree(version.bundle / VERIFIER, work / VERIFIER)
            shutil.copyfile(version.bundle / SERVING, work / SERVING)
            if (version.bundle / SPACES).is_dir():
                shutil.copytree(version.bundle / SPACES, work / SPACES)
            shutil.copyfile(version.folder / RECORD, work / RECORD)
            card = model_card(version, family, verdicts)
            (work / CARD).write_text(card, encoding="utf-8", newline="\n")
        try:
            # Takes the place of nothing or of an empty folder, whatever happened there meanwhile.
            (scratch / target.name).rename(target)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise
            raise _taken(folder) from None


def _taken(folder: Path) -> RegistryError:
    return RegistryError(f"{folder}: has something in it already; name a new folder")
