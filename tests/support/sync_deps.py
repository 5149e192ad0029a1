"""Keeps the modules that a stage imports among its dependencies in `dvc.yaml`.

    python -m tests.support.sync_deps          # rewrites dvc.yaml
    python -m tests.support.sync_deps --check  # prints what would change, exit code 1 if anything would

A change of code must make the stages run again that use it; DVC knows only what `deps` names.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# Modules around a stage that can't change what it writes. A change in one of them runs nothing again.
PLUMBING = {
    "erv",  # the version number
    "erv.stage",  # arguments, logging, exit codes
    "erv.tracking.run",  # what goes to MLflow
    "erv.tracking.delivery",  # how it gets there
    "erv.figures.pages",  # so do the figures of the data
    "erv.validate.data_docs",  # and the Data Docs
    "erv.environment",  # addresses and keys
    "erv.pipeline.process",  # dying with the parent
    "erv.errors",  # sentences
    "erv.settings",  # the parameters themselves are dependencies
    "erv.settings.section",
    "erv.settings.policies",
    "erv.settings.verifier",
    # They read bytes whose hash is checked against the lock, or make the lock, a dependency itself.
    "erv.storage.store",
    "erv.sources.archives",
    "erv.pinning.bucket_source",
    "erv.sources.fetching",
    "erv.pinning.folder_source",
    "erv.sources.frame_folders",
    "erv.pinning.journal",
    "erv.pinning.pinning",
    "erv.sources.selection",
    "erv.sources.threads",
}
# Files that are no modules but are read by one.
DATA = {
    "erv.ingest.published": ["src/erv/ingest/published.yaml"],
    "erv.train_erv.behaviour": ["src/erv/train_erv/behaviour.yaml"],
    "erv.labels": ["src/erv/label_spaces", "data/label_spaces"],  # the shipped ones and the user's
    "erv.report.report": ["src/erv/report/templates"],
}


def module_file(module: str) -> Path | None:
    """The file of a module of ours, or None."""
    base = ROOT / "src" / Path(*module.split("."))
    for candidate in (base / "__init__.py", base.with_suffix(".py")):
        if candidate.is_file():
            return candidate
    return None


def imports_of(path: Path, package: str) -> set[str]:
    """The modules of ours that a file imports, inside functions too; not those for type checking only."""
    found: set[str] = set()
    for node in _walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            source = node.module or ""
            if node.level:
                source = ".".join([*package.split(".")[: -node.level + 1 or None], source]).rstrip(".")
            names = [source, *(f"{source}.{alias.name}" for alias in node.names)]
        else:
            continue
        for name in names:
            parts = name.split(".")
            if parts[0] != "erv":
                continue
            # Importing a.b runs a's __init__ as well.
            found.update(".".join(parts[: i + 1]) for i in range(len(parts)))
    return {name for name in found if module_file(name)}


def _walk(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child
        yield from _walk(child)


def closure(stage: str) -> set[str]:
    """Repository paths of all that `stages/STAGE.py` imports, directly or not, but for plumbing."""
    pending = imports_of(ROOT / "stages" / f"{stage}.py", "stages")
    seen: set[str] = set()
    while pending:
        module = pending.pop()
        if module in seen or module in PLUMBING:
            continue
        seen.add(module)
        path = module_file(module)
        assert path is not None
        package = module if path.name == "__init__.py" else module.rpartition(".")[0]
        pending |= imports_of(path, package)
    paths = {_relative(module_file(module)) for module in seen if not _is_empty(module_file(module))}
    return paths | {path for module in seen for path in DATA.get(module, ())}


def _is_empty(path: Path | None) -> bool:
    """Whether a file holds nothing but a docstring."""
    assert path is not None
    body = ast.parse(path.read_text(encoding="utf-8")).body
    return all(isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) for node in body)


def _relative(path: Path | None) -> str:
    assert path is not None
    return path.relative_to(ROOT).as_posix()


def stage_names(text: str) -> list[str]:
    """The stages of `dvc.yaml`, in its order."""
    return re.findall(r"^  (\w+):$", text.partition("\nstages:")[2], flags=re.MULTILINE)


def synced(text: str) -> str:
    """`dvc.yaml` with the code of each stage behind its script; comments and all else stay as they are."""
    lines = text.split("\n")
    for stage in stage_names(text):
        start = lines.index(f"  {stage}:")
        end = next((i for i in range(start + 1, len(lines)) if re.match(r"  \w", lines[i])), len(lines))
        block = [
            line for line in lines[start:end] if not re.match(r"      - (src/erv/|data/label_spaces$)", line)
        ]
        script = block.index(f"      - stages/{stage}.py")
        block[script + 1 : script + 1] = [f"      - {path}" for path in sorted(closure(stage))]
        lines[start:end] = block
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    path = ROOT / "dvc.yaml"
    text = path.read_text(encoding="utf-8")
    wanted = synced(text)
    if wanted == text:
        print("dvc.yaml: in step with the code")
        return 0
    if "--check" in arguments:
        import difflib

        print("\n".join(difflib.unified_diff(text.split("\n"), wanted.split("\n"), lineterm="", n=0)))
        return 1
    path.write_text(wanted, encoding="utf-8")
    print("dvc.yaml: rewritten; read the difference before you commit it")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
