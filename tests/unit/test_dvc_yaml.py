"""`dvc.yaml` says all that a stage depends on: its script, its code, its parameters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from erv.pipeline.dvc import read_stages
from tests.support.sync_deps import ROOT, closure, imports_of

PIPELINE: dict[str, Any] = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
STAGES = list(PIPELINE)


def test_the_ten_stages_in_order() -> None:
    assert STAGES == [
        "ingest", "validate", "extract", "sft", "distill", "train_erv", "grpo", "evaluate", "report",
        "register",
    ]  # fmt: skip


@pytest.mark.parametrize("stage", STAGES)
def test_its_script_exists_and_is_a_dependency(stage: str) -> None:
    assert f"python -m stages.{stage} " in PIPELINE[stage]["cmd"]
    assert (ROOT / "stages" / f"{stage}.py").is_file()
    assert f"stages/{stage}.py" in PIPELINE[stage]["deps"]


@pytest.mark.parametrize("stage", STAGES)
def test_its_code_is_what_it_imports(stage: str) -> None:
    code = {path for path in PIPELINE[stage]["deps"] if path.startswith(("src/erv", "data/label_spaces"))}
    wanted = closure(stage)
    message = "\n".join(
        [f"dvc.yaml, {stage}: `python -m tests.support.sync_deps` mends this; deps to change:"]
        + [f"      + {path}" for path in sorted(wanted - code)]
        + [f"      - {path}" for path in sorted(code - wanted)]
    )
    assert code == wanted, message


@pytest.mark.parametrize("stage", STAGES)
def test_it_names_each_dependency_once(stage: str) -> None:
    assert len(set(PIPELINE[stage]["deps"])) == len(PIPELINE[stage]["deps"])


def test_dvc_itself_reads_the_graph() -> None:
    stages = {stage.name: stage for stage in read_stages(ROOT)}
    assert len(stages) == 3 * 3 + 3 + 2 + 3 + 2
    data = [f"{step}@{name}" for step in ("extract", "ingest") for name in ("dfew", "mafw", "reasoning")]
    assert stages["grpo@erv"].upstream == (*data, "sft", "train_erv")
    assert "report" in stages["register"].upstream
    for last in ("report", "register"):
        assert {"evaluate@sft", "evaluate@r1_omni", "evaluate@erv"} <= set(stages[last].upstream)


def test_every_output_is_cached() -> None:
    for stage, definition in PIPELINE.items():
        for out in [*definition.get("outs", []), *definition.get("metrics", [])]:
            assert isinstance(out, str), (
                f"{stage}: {out}: a flag on an out breaks restores from the run cache"
            )


def test_imports_for_type_checking_do_not_count(tmp_path: Path) -> None:
    script = tmp_path / "stage.py"
    script.write_text(
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    from erv.shards import Clip\n"
        "def f():\n    from erv.labels import LabelSpace\n    import erv.media.decode\n"
    )
    assert imports_of(script, "stages") == {"erv", "erv.labels", "erv.media.decode"}
