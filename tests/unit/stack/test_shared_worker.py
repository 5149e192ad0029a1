"""A worker for stages of several clones: which names of pools it takes."""

from __future__ import annotations

import pytest

from erv.errors import SettingsError
from erv.settings.pool_name import check_pool_name
from erv.stack import launch
from flows import shared_pools


@pytest.mark.parametrize("name", ["gpu pool", "../x", "", "-x", "a" * 65, "gpu\n"])
def test_a_pool_that_no_placement_can_name(name: str) -> None:
    """It was made all the same, or refused with the pattern and the address of a library's manual."""
    for refuse in (check_pool_name, launch.serve_shared, lambda name: shared_pools.main([name])):
        with pytest.raises(
            SettingsError, match=r"can't be the name of a work pool; expected 1 to 64 letters"
        ):
            refuse(name)


def test_names_that_a_placement_can_name() -> None:
    for name in ("gpu", "A100.big_one-2", "a" * 64):
        check_pool_name(name)
