"""A disk that fills up while a stage runs: a tmpfs with little more room than the workspace needs."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

from tests.chaos.place import Place

# More than a stage asks for before it starts, so that the disk fills up while it works.
_HEADROOM = 640 << 20


def full(place: Place, stage: str) -> None:
    """Fills the disk while a stage runs in a copy of the workspace; with room again, it must succeed.

    Raises:
        PermissionError: this user can't mount a tmpfs.
    """
    copy = place.path.parent / "small"
    copy.mkdir()
    needed = sum(file.stat().st_size for file in _files(place.path))
    rest = place.random.choice((0, 1 << 14, 1 << 17, 1 << 20))
    wait = place.random.uniform(0.5, max(2.0, 0.9 * place.seconds.get(stage, 5.0)))
    _mount(copy, 2 * needed + _HEADROOM)
    what = f"{stage}, {rest >> 10} KiB left on the disk after {wait:.1f} s"
    try:
        inside = copy / "erv"
        shutil.copytree(
            place.path, inside, symlinks=True, ignore=lambda folder, names: _skip(place.path, folder, names)
        )
        extra = {**place.environment.variables(), "PYTHONPATH": str(inside / "src"), "TMPDIR": str(copy)}
        command = ("python", "-m", "tests.chaos.one_stage", stage, "--force")
        started = place.start(*command, extra=extra, cwd=inside)
        time.sleep(wait)
        ballast = copy / "ballast"
        free = os.statvfs(copy)
        with ballast.open("wb") as stream:
            os.posix_fallocate(stream.fileno(), 0, max(1, free.f_bavail * free.f_frsize - rest))
        place.ledger.add(place.scene, "faults")
        ended = started.ended()
        place.allow(ended, what)
        ballast.unlink()
        place.require(place.start(*command, extra=extra, cwd=inside).ended(), f"{what}, then freed")
        for out in (out for out in place.outs if (inside / out).is_file()):
            if (inside / out).read_bytes() != (place.path / out).read_bytes():
                place.ledger.damage(place.scene, "silently wrong", f"{what}: {out} differs")
        place.ledger.say(f"{what}: {'failed clearly' if ended.code else 'succeeded'}")
    finally:
        subprocess.run(["umount", "--lazy", str(copy)], check=False)
        copy.rmdir()


def _mount(folder: Path, size: int) -> None:
    result = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size},mode=0755", "tmpfs", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode != 0:
        folder.rmdir()
        raise PermissionError(
            f"a full disk can't be tried: mounting a tmpfs failed ({result.stderr.strip()});"
            " run `make chaos` as root"
        )


def _files(folder: Path) -> list[Path]:
    skipped = (folder / ".erv/stack", folder / ".git")
    return [
        path
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink() and not any(path.is_relative_to(skip) for skip in skipped)
    ]


def _skip(root: Path, folder: str, names: list[str]) -> list[str]:
    """The servers' own data stay where they are; the copy uses the same servers."""
    return [name for name in names if Path(folder) / name == root / ".erv/stack"]
