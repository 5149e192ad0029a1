"""The address of a stage, under which its run is recorded, is the one that DVC gives it."""

from argparse import Namespace

import pytest

from erv.stage import _address


@pytest.mark.parametrize(
    ("said", "address"),
    [
        ("arms@arm0", "arms@arm0"),  # an entry of a matrix that is a mapping: DVC numbers it
        ("dvc.yaml:arms@arm0", "arms@arm0"),
        ("", "arms@theirs"),  # without DVC
        ("grpo@erv", "arms@theirs"),  # some other stage's environment
    ],
)
def test_dvc_says_it(said: str, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_STAGE", said)
    assert _address("arms", Namespace(name="theirs", folder=None)) == address


def test_stages_without_a_matrix_have_their_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DVC_STAGE", raising=False)
    assert _address("sft", Namespace()) == "sft"
    assert _address("grpo", Namespace(variant="erv")) == "grpo@erv"
