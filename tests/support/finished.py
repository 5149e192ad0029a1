"""A copy of the repository in which every stage counts as done, with outputs that are empty."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from pathlib import Path

from tests.support.paths import ROOT

_COPIED = (
    "src",
    "stages",
    "flows",
    "data/judge_texts",
    "data/label_spaces",
    "data/prompts",
    "data/rollouts",
    "requirements",
    ".dvc",
)


def finish(folder: Path, **replaced: str) -> Path:
    """Fills an empty folder.

    Args:
        folder: to become the workspace.
        **replaced: texts of `params.yaml` to replace, by a name that says what for: `old -> new`.
    """
    for name in _COPIED:
        ignored = shutil.ignore_patterns("__pycache__", "cache", "tmp", "config.local", "*.egg-info")
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    for name in ("dvc.yaml", "params.yaml", ".dvcignore", ".gitignore"):
        shutil.copy(ROOT / name, folder)
    params = folder / "params.yaml"
    for change in replaced.values():
        before, after = change.split(" -> ")
        params.write_text(params.read_text().replace(before, after))
    subprocess.run(["git", "init", "-q", folder], check=True)
    from dvc.repo import Repo

    with contextlib.chdir(folder), Repo(".") as repo:
        written = {out.fs_path for stage in repo.index.stages for out in stage.outs}
        for stage in repo.index.stages:
            for dependency in (item.fs_path for item in stage.deps):
                path = Path(dependency)
                inside = any(path == Path(out) or path in Path(out).parents for out in written)
                if not path.exists() and not inside:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.touch()
        for out in written:
            path = Path(out)
            if not path.suffix:
                path = path / "content"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(out)
        repo.commit(force=True)
    return folder
