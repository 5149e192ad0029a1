"""What the documents name exists: files, make targets, commands, parameters."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from benchmarks import claim
from erv.cli import command as erv
from erv.stack.deployments import declared
from tests.support.paths import ROOT

DOCUMENTS = [
    ROOT / name
    for name in (
        "README.md",
        "CONTRIBUTING.md",
        "benchmarks/README.md",
        "infra/README.md",
        "data/judge_texts/README.md",
        "data/label_spaces/README.md",
        "data/prompts/README.md",
        "docs/architecture.md",
        "docs/data.md",
        "docs/humanomni.md",
        "docs/judges.md",
        "docs/machines.md",
        "docs/metrics.md",
        "docs/paper.md",
        "docs/policies.md",
        "docs/security.md",
        "docs/serving.md",
        "docs/studies.md",
        "docs/training.md",
        "docs/verifier.md",
    )
]
# What a run of the pipeline makes, and so is not in a fresh clone.
MADE = ("data/", "models/", "eval/", "report/", ".erv/", "dvc.lock")
# Metrics and artifacts of an MLflow run, and names of models.
NO_PATHS = (
    *("reward/", "reward_by_class/", "explanations/", "answers/", "samples/", "engine/", "openai/"),
    *("validation/", "sweep/"),
)
# What the official trees of the data sets hold.
OFFICIAL = ("Annotation/", "Clip/", "Labels/", "clip/", "clips/", "label/")


def words_in_code(path: Path) -> list[str]:
    """Inline code and the lines of code blocks."""
    text = path.read_text(encoding="utf-8")
    blocks = re.findall(r"```\w*\n(.*?)```", text, re.DOTALL)
    return [
        *re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL)),
        *"\n".join(blocks).split("\n"),
    ]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_paths_exist(path: Path) -> None:
    named = [word for word in words_in_code(path) if re.fullmatch(r"\.?[\w.-]+/[\w./-]*", word)]
    missing = [
        word
        for word in named
        if not word.startswith((*MADE, *OFFICIAL, *NO_PATHS))
        and "NAME" not in word
        and not (ROOT / word).exists()
        and not (path.parent / word).exists()
        and "prefect" not in word
        and word not in declared(ROOT)
        and not re.fullmatch(r"\w+/local|policy/|encoder/|adapter/", word)
    ]
    assert not missing


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8"))
    missing = [link for link in links if "://" not in link and not _leads_somewhere(path, link)]
    assert not missing


def _leads_somewhere(page: Path, link: str) -> bool:
    """Whether the file is there, and in it the heading that a fragment names, as GitHub writes it."""
    file, _, fragment = link.partition("#")
    target = page.parent / file if file else page
    if not target.exists():
        return False
    titles = re.findall(r"^#+ (.+)$", target.read_text(encoding="utf-8"), re.MULTILINE) if fragment else []
    slugs = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
    return not fragment or fragment in slugs


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_make_targets_exist(path: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    used = {target for word in words_in_code(path) for target in re.findall(r"\bmake ([a-z-]+)", word)}
    assert used <= targets
    assert path != ROOT / "README.md" or {"demo", "test"} <= used


def test_the_demo_ends_with_a_clip_to_try(tmp_path: Path) -> None:
    """A new user has no clip at hand, and didn't know where the sample corpus is."""
    clips = tmp_path / ".erv/sample/reasoning/video"
    clips.mkdir(parents=True)
    for number in (2, 1):
        (clips / f"sample_0000000{number}.mp4").touch()
    (line,) = re.findall(r"^\t@(echo .*erv explain.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    said = subprocess.check_output(["sh", "-c", line.replace("$$", "$")], cwd=tmp_path, text=True)
    assert said == "  erv explain .erv/sample/reasoning/video/sample_00000001.mp4\n"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_commands_exist(path: Path) -> None:
    used = {
        found for word in words_in_code(path) for found in re.findall(r"^(?:eval \"\$\()?erv ([a-z-]+)", word)
    }
    for command in sorted(used):
        result = CliRunner().invoke(erv, [command, "--help"])
        assert result.exit_code == 0, f"{path.name} names `erv {command}`: {result.output}"


def test_parameters_exist() -> None:
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    sections = "|".join(params)
    for word in words_in_code(ROOT / "README.md"):
        for key in re.findall(rf"^(?:dvc exp run -S )?((?:{sections})(?:\.\w+)+)", word):
            found = params
            for part in key.split("."):
                assert part in found, f"README.md names {key}"
                found = found[part]


def test_the_table_of_the_claim_is_that_of_the_benchmark() -> None:
    results = json.loads((ROOT / "benchmarks" / "claim.json").read_text(encoding="utf-8"))
    assert results.keys() <= {str(seed) for seed in claim.SEEDS}
    document = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8").splitlines()
    missing = [line for line in claim.table(results).splitlines() if line not in document]
    assert not missing
    held = [f"- {target.line()}" for target in claim.targets(results)]
    assert [line for line in held if line not in document] == []


def test_every_number_says_which_command_printed_it() -> None:
    for name, heading, command in (
        ("README.md", "Results", "make demo"),
        ("benchmarks/README.md", "The demo run in detail", "make demo"),
        ("benchmarks/README.md", "The claim: ten seeds", "python -m benchmarks.claim"),
    ):
        text = (ROOT / name).read_text(encoding="utf-8")
        assert "@@" not in text
        results = text.partition(f"## {heading}\n")[2].partition("\n## ")[0]
        assert re.search(r"\| *`?erv`? *\|", results)
        assert command in results
        assert "planted" in results or heading == "The claim: ten seeds"


PAGES = [*DOCUMENTS, ROOT / "docs/daily.md", ROOT / "docs/lineage.md"]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_who_is_told_to_commit_locks_is_told_to_commit_the_parameters(path: Path) -> None:
    """A colleague who has the locks of other parameters runs everything again."""
    text = " ".join(path.read_text(encoding="utf-8").split())
    told = re.findall(r"[Cc]ommit[^:;]{0,60}?(?:lock\.json|lock files).{0,120}", text)
    assert [where for where in told if "params.yaml" not in where] == []
