"""Packages that only some settings need are the pinned ones, or refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from erv.training.common.adapters import FOUR_BITS, four_bit_fault
from erv.training.common.pins import installed_version, version_fault
from erv.training.grpo.engine.lacks import REQUIREMENTS
from tests.support.paths import ROOT


@pytest.mark.parametrize(("package", "path"), [("vllm", REQUIREMENTS), ("bitsandbytes", FOUR_BITS)])
def test_another_version_is_refused(package: str, path: Path) -> None:
    pinned = (ROOT / path).read_text(encoding="utf-8").split(f"{package}==")[1].strip()
    assert version_fault(package, pinned, ROOT / path) is None
    assert version_fault(package, f"{pinned}+cu129", ROOT / path) is None
    assert version_fault(package, "0.1.0", ROOT / path) == f"{package} 0.1.0, expected {pinned}"
    assert version_fault(package, f"{pinned}1", ROOT / path) is not None
    assert version_fault(package, None, ROOT / path) == f"no {package}"
    missing = version_fault(package, pinned, ROOT / "none" / path)
    assert missing == f"{package} {pinned}, and {path}, which names the expected version, isn't here"


def test_four_bits_come_with_their_remedy() -> None:
    assert four_bit_fault("0.1", ROOT) is not None
    assert str(four_bit_fault(None, ROOT)) == (
        "no bitsandbytes; install it with `pip install -r requirements/lora-nf4.txt`, or set lora.quantize:"
        " none"
    )
    assert installed_version("no-such-package") is None
    assert installed_version("torch") is not None
