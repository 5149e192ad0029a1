"""Keys and names of a server from the environment."""

from __future__ import annotations

import pytest

from erv.errors import SettingsError
from erv.web.keys import further_hosts, take_keys

A, B = "a" * 16, "b" * 20


@pytest.mark.parametrize(("text", "keys"), [(None, ()), ("", ()), (A, (A,)), (f" {A} , {B}", (A, B))])
def test_keys_are_taken_out(text: str | None, keys: tuple[str, ...]) -> None:
    variables = {"OTHER": "x"} | ({} if text is None else {"ERV_SERVE_KEY": text})
    assert take_keys("ERV_SERVE_KEY", variables) == keys
    assert variables == {"OTHER": "x"}


@pytest.mark.parametrize("text", ["short", f"{A},", f"{A},short", f"{A},{A}", "ä" * 16, "a b" * 16])
def test_wrong_keys(text: str) -> None:
    with pytest.raises(SettingsError, match="ERV_SERVE_KEY") as refused:
        take_keys("ERV_SERVE_KEY", {"ERV_SERVE_KEY": text})
    for key in text.split(","):
        assert not key or key not in str(refused.value)


def test_hosts() -> None:
    assert further_hosts("ERV_SERVE_HOSTS", {"ERV_SERVE_HOSTS": " models.example, *.lab.example,"}) == (
        "models.example",
        "*.lab.example",
    )
    assert further_hosts("ERV_SERVE_HOSTS", {}) == ()
