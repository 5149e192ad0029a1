"""The GPU proof: one sentence without a GPU, and on a CPU the same comparisons without graphs."""

from dataclasses import replace

import pytest
import torch

from benchmarks.gpu_proof import GROUP, main, prove
from benchmarks.grpo_sizes import SIZES, Size
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


def test_both_sides_of_every_row_compute_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    size = Size(
        replace(SMALLEST, mels=32, vocabulary=400),
        prompts=2,
        completion=6,
        changes={"text_config": {"vocab_size": 700}},
    )
    monkeypatch.setitem(SIZES, "tiny", size)
    rows = prove("tiny", "cpu", 1)["rows"]
    assert rows["base"]["difference"] == {"bits equal": True}
    assert 0 < max(rows["towers"]["difference"].values()) < 0.05
    assert max(rows["checkpointing"]["difference"].values()) < 1e-4
    assert rows["decode"]["difference"] == {"rows equal, static cache": f"{2 * GROUP} of {2 * GROUP}"}
    for row in rows.values():
        assert all(seconds > 0 for seconds in row["seconds"].values())
        assert len(row["seconds"]) == 2
