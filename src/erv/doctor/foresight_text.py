"""What is foreseen of a run, as the terminal shows it: lines of at most 100 columns."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator

from erv.doctor.foreseen import Foreseen, Foresight, Why

COLUMNS = 100
_LONGEST_VALUE = 36
# Of one stage, and of several.
_SAID = {
    "runs": ("would run", "would run"),
    "follows": (
        "would follow, unless what it reads stays the same",
        "would follow, unless what they read stays the same",
    ),
    "from cache": ("would be taken from DVC's cache", "would be taken from DVC's cache"),
    "from remote": ("has its results in DVC's remote", "have their results in DVC's remote"),
    "unchanged": ("needs nothing", "need nothing"),
}


def lines(found: Foresight) -> Iterator[str]:
    """All lines: the stages that would do something with their reasons, then the sums."""
    for item in found.stages:
        if item.state not in ("unchanged", "from remote"):
            yield from _stage(item)
    counts = {state: sum(item.state == state for item in found.stages) for state in _SAID}
    said = [f"{count} {_SAID[state][count > 1]}" for state, count in counts.items() if count]
    stages = "1 stage" if len(found.stages) == 1 else f"{len(found.stages)} stages"
    yield from _wrapped(f"{stages}: {'; '.join(said)}")
    yield from _fetched(found)
    yield from _sent(found)
    if any(item.works for item in found.stages):
        yield from _wrapped(_time(found))
        if found.price is not None:
            yield from _wrapped(_price(found))
    for note in found.notes:
        yield from _wrapped(note)


def duration(seconds: float) -> str:
    """`4 s`, `3 min 05 s`, `2 h 07 min`."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def _stage(item: Foreseen) -> Iterator[str]:
    took = "time unknown" if item.seconds is None else f"took {duration(item.seconds)} last time"
    took += f", {item.elsewhere}" if item.elsewhere else ""
    where = f" in work pool {item.pool}" if item.pool else ""
    yield from _wrapped(f"{item.name}: {item.state}{where}" + (f", {took}" if item.works else ""))
    follows = [why.name for why in item.why if why.what == "follows"]
    for why in item.why:
        if why.what != "follows":
            yield from _wrapped(_reason(why), "  ")
    if follows:
        yield from _wrapped(f"reads what {', '.join(follows)} would write", "  ")
    if item.harmless:
        yield from _wrapped("nothing that runs has changed: `erv accept` keeps the result", "  ")


def _reason(why: Why) -> str:
    if why.what == "parameter":
        return f"parameter {why.name} {_value(why.before)} -> {_value(why.after)}"
    sentence = {
        "forced": "--force",
        "never ran": "it has not run yet",
        "command": "its command has changed",
    }.get(why.what, f"{why.what} {why.name}")
    if why.what == "data" and not why.change:
        return f"{sentence} has changed"
    return f"{sentence} ({why.change})" if why.change else sentence


def _value(value: object) -> str:
    text = "(none)" if value is None else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 1]}…"


def _time(found: Foresight) -> str:
    known = sum(item.seconds is not None for item in found.stages)
    if not known:
        return "time: unknown"
    elsewhere = "; some of it was measured elsewhere" if any(item.elsewhere for item in found.stages) else ""
    chain = f"; the longest chain takes {duration(found.longest_chain)}" if known > 1 else ""
    return f"time: {duration(found.seconds)} one after another{chain}{_without(found)}{elsewhere}"


def _price(found: Foresight) -> str:
    high, low = f"{found.price:.2f}", f"{found.least_price:.2f}"
    said = (
        high
        if high == low
        else f"{low} if stages run side by side wherever they can, {high} one after another"
    )
    return f"price: {said}, at {found.price_per_hour:g} an hour (machine.price_per_hour){_without(found)}"


def _fetched(found: Foresight) -> Iterator[str]:
    names = [item.name for item in found.stages if item.state == "from remote"]
    if not names:
        return
    yield from _wrapped(f"in DVC's remote: {', '.join(names)}", "  ")
    first = "`dvc pull` fetches these results first"
    if found.fetches:
        yield from _wrapped(f"{first}; `erv run` does so by itself", "  ")
    else:
        yield from _wrapped(f"{first}; `erv run` can't, as this shell names no object store", "  ")


def _sent(found: Foresight) -> Iterator[str]:
    for pool in found.pools:
        remedy = f"; {pool.remedy}" if pool.remedy else ""
        yield from _wrapped(
            f"in work pool {pool.name}: {', '.join(pool.stages)}; {pool.detail}{remedy}", "  "
        )


def _without(found: Foresight) -> str:
    return f", without {', '.join(found.unknown)}, whose time is unknown" if found.unknown else ""


def _wrapped(text: str, indent: str = "") -> list[str]:
    return textwrap.wrap(
        text,
        COLUMNS,
        initial_indent=indent,
        subsequent_indent=f"{indent}  ",
        break_on_hyphens=False,
    )
