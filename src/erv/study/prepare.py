"""Makes a study from evaluated policies: plan, key and clips, the same bytes from the same inputs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from erv.errors import DataError
from erv.files import scratch_folder, sha256_of_text, write_text
from erv.pipeline import read_lock_entries
from erv.settings import Settings
from erv.study.contents import KEY
from erv.study.evaluated import read_evaluations
from erv.study.making import Documents, Making
from erv.study.media import check_media
from erv.study.pinning import pin
from erv.study.plan import MEDIA, PLAN, folder_of


@dataclass(frozen=True)
class Prepared:
    """A study that was made.

    Attributes:
        folder: `studies/NAME`.
        sha256: of its plan.
        new: whether it was not there before.
        said: what to tell about it, a sentence each.
    """

    folder: Path
    sha256: str
    new: bool
    said: tuple[str, ...]


def prepare(name: str, settings: Settings) -> Prepared:
    """Makes the study and pins it.

    Args:
        name: of the study and of its folder.
        settings: all of them; `study` says what is made.

    Raises:
        SettingsError: the section `study` asks for what the evaluations can't give.
        EvaluationError: a policy was not evaluated here as `dvc.lock` says.
        DataError: there is another study of this name, or this one with another key or other clips than it
            was made with; a clip can't be fetched; DVC refuses.
    """
    folder = folder_of(name)
    if folder.exists() and not (folder / PLAN).is_file():
        raise DataError(
            f"{folder}: is there without {PLAN}; `dvc pull {folder / PLAN}.dvc`, or take another name"
        )
    making = Making.of(name, settings, read_evaluations(settings, read_lock_entries()))
    with scratch_folder(folder) as work:
        (work / MEDIA).mkdir()
        made = making.make(work / MEDIA)
        write_text(made.plan, work / PLAN)
        write_text(made.key, work / KEY)
        sha256 = sha256_of_text(made.plan)
        new = not folder.exists()
        if new:
            work.replace(folder)
        elif (folder / PLAN).read_bytes() != made.plan.encode():
            raise DataError(
                f"{folder / PLAN}: is a study already, and what eval/ and params.yaml give now is another"
                " one. Answers belong to one plan: give the new study another name"
            )
        else:
            # What is pinned below counts as right from then on.
            _check_the_rest(folder, made)
    pin([folder / PLAN, folder / KEY, folder / MEDIA])
    return Prepared(folder, sha256, new, tuple(made.said))


def _check_the_rest(folder: Path, made: Documents) -> None:
    """Checks key and clips of a study whose plan is the one that was made."""
    key, media = folder / KEY, folder / MEDIA
    if not key.is_file():
        raise DataError(f"{key}: not found; `dvc pull {key}.dvc`, or get it from who prepared the study")
    if key.read_bytes() != made.key.encode():
        raise DataError(f"{key}: not the key that belongs to the plan; `dvc checkout {key}.dvc` restores it")
    check_media(media, made.media)
    known = {f"{name}.mp4" for name in made.media}
    if more := sorted(path.name for path in media.iterdir() if path.name not in known):
        raise DataError(f"{media / more[0]}: no clip of the study; delete it, or `dvc checkout {media}.dvc`")
