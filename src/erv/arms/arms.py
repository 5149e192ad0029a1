"""Records a policy that takes part in a comparison as it is: where its files are, and their digests.

The folder that this writes stands for the policy: it holds no weights, but everything that loads a policy
follows it (`erv.policies.common.arm`). The digest is the external source in the lineage of its
answers.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from erv.errors import DataError
from erv.files import sha256_of_file, sha256_of_text, whole_folder
from erv.model_folders import check_folder
from erv.policies.common.arm import Arm, read_arm, write_arm
from erv.policies.common.families import check_family

CONFIG = "config.json"  # copied, so that its family can be read where the arm is named


def record_arm(folder: Path, output: Path, *, family: str, thinks: bool) -> Arm:
    """Writes the folder of an arm.

    Args:
        folder: a policy folder: one of this run, or a local copy of somebody else's.
        output: the folder to write; replaced as a whole.
        family: `policy.family`, whose code is the only one that the run depends on.
        thinks: whether it explains before it answers.

    Returns:
        What was recorded.

    Raises:
        DataError: there is no such folder, it is an arm itself, or loading it would run code of the folder.
        TrainingError: it holds no policy, or one of another family.
    """
    if not folder.is_dir():
        raise DataError(
            f"{folder}: not a folder, but arms names it; give the folder of a policy (`hf download NAME"
            " --local-dir FOLDER` fetches one from the Hub)"
        )
    if read_arm(folder).folder is not None:
        raise DataError(f"{folder}: is an arm itself; name the folder with the weights")
    check_folder(folder)
    check_family(folder, family)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    hashes = {path.relative_to(folder).as_posix(): sha256_of_file(path) for path in files}
    arm = Arm(
        thinks=thinks and read_arm(folder).thinks,
        folder=str(folder),
        digest=sha256_of_text("".join(f"{digest}  {name}\n" for name, digest in hashes.items())),
        sizes={name: (folder / name).stat().st_size for name in hashes},
    )
    with whole_folder(output) as work:
        shutil.copyfile(folder / CONFIG, work / CONFIG)
        write_arm(arm, work)
    return arm
