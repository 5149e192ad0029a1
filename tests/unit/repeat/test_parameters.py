"""Which parameters make two runs different."""

import pytest

from erv.errors import SettingsError
from erv.repeat.parameters import deciding, differing, digest

SHIPPED = b"seed: 1\ningest: {fold: 1, expect: subset}\nmachine: {processes: 1}\ngrpo: {beta: 0.04}\n"


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (b"seed: 1", b"seed: 2", None),
        (b"fold: 1", b"fold: 5", None),
        (b"processes: 1", b"processes: 4", None),
        (b"grpo:", b"# a comment\ngrpo:", None),
        (b"beta: 0.04", b"beta: 0.1", "grpo.beta is 0.1 there and 0.04 now"),
        (b"expect: subset", b"expect: full", "ingest.expect is full there and subset now"),
        (b"beta: 0.04", b"beta: 0.04, seed: 3", "grpo.seed is 3 there and absent now"),
        (b"grpo: {beta: 0.04}", b"", "grpo.beta is absent there and 0.04 now"),
    ],
)
def test_all_but_seed_fold_and_machine_decide(old, new, expected):
    here, there = deciding(SHIPPED), deciding(SHIPPED.replace(old, new))
    assert differing(there, here) == expected
    assert (digest(there) == digest(here)) == (expected is None)


def test_what_is_no_mapping_is_named():
    with pytest.raises(SettingsError, match=r"params\.yaml: expected a mapping of sections, found list"):
        deciding(b"- 1")
