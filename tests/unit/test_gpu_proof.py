"""The GPU proof: one sentence without a GPU, and on a CPU the same comparisons without graphs."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks.gpu_proof import GROUP, Bench, by_engine, main, prove
from benchmarks.grpo_sizes import SIZES, Size
from erv.training.grpo.engine.client import EngineClient
from erv.training.grpo.engine.text_model import write_text_folder
from tests.support.sizes import SMALLEST


def test_without_a_gpu_it_says_so(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main([]) == 1
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err == (
        "error: there is no CUDA device here; run make gpu-proof where there is one, with CUDA's torch\n"
    )


TINY = Size(
    replace(SMALLEST, mels=32, vocabulary=400),
    prompts=2,
    completion=6,
    changes={"text_config": {"vocab_size": 700}},
)


def test_both_sides_of_every_row_compute_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SIZES, "tiny", TINY)
    rows = prove("tiny", "cpu", 1)["rows"]
    assert rows["base"]["difference"] == {"bits equal": True}
    assert 0 < max(rows["towers"]["difference"].values()) < 0.05
    assert max(rows["checkpointing"]["difference"].values()) < 1e-4
    assert rows["decode"]["difference"] == {"rows equal, static cache": f"{2 * GROUP} of {2 * GROUP}"}
    for row in rows.values():
        assert all(seconds > 0 for seconds in row["seconds"].values())
        assert len(row["seconds"]) == 2


@pytest.mark.slow
def test_the_row_of_vllm_compares_with_what_an_engine_writes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(SIZES, "tiny", TINY)
    bench = Bench("tiny", "cpu", tmp_path, 1)
    policy = bench.policy
    with EngineClient(
        [sys.executable, str(Path(__file__).parents[1] / "support" / "text_engine.py")],
        lambda folder: write_text_folder(policy.model, policy.processor.tokenizer, folder),
        {"dtype": "float32"},
    ) as engine:
        row = by_engine(bench, engine)
    difference = row["difference"]
    assert difference["greedy rows equal"] == f"{2 * GROUP} of {2 * GROUP}"
    assert difference["engine/kl"] < 1e-3
    assert difference["log-probabilities"] < 0.05  # placeholders and the end are never drawn
    assert set(row["seconds"]) == {"growing cache", "vLLM"}
