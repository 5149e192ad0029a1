"""What is foreseen of a run: of each stage what would become of it and why, and the sums."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from erv.doctor.pools_ahead import PoolAhead

State = Literal["runs", "follows", "from cache", "from remote", "unchanged"]


@dataclass(frozen=True)
class Why:
    """A reason for which a stage doesn't stay as it is.

    Attributes:
        what: `parameter`, `code`, `data`, `output`, `command`, `follows`, `never ran` or `forced`.
        name: of the parameter, file or stage; empty if there is none.
        before, after: values of a parameter, None where it has none; hashes of a file.
        change: how a file of code differs, or what DVC says of an output; empty otherwise.
    """

    what: str
    name: str = ""
    before: Any = None
    after: Any = None
    change: str = ""


@dataclass(frozen=True)
class Foreseen:
    """What would become of a stage.

    Attributes:
        name: the stage.
        state: `runs` for its own changes, `follows` if what it reads may become other, `from cache` if DVC
            has its outputs, `from remote` if DVC's remote has them, or `unchanged`.
        why: the reasons.
        seconds: how long its last run took; None if that is unknown, or nothing would run.
        elsewhere: on which other machine or device that was; empty if it was on these.
        harmless: only code changed, and nothing that runs: `erv accept` would keep the result.
        same: its outputs are, or become again, what `dvc.lock` names.
        pool: the work pool that it would be sent to; empty if it would run here, or wouldn't run.
    """

    name: str
    state: State
    why: tuple[Why, ...] = ()
    seconds: float | None = None
    elsewhere: str = ""
    harmless: bool = False
    same: bool = False
    pool: str = ""

    @property
    def works(self) -> bool:
        """Whether its command would run."""
        return self.state in ("runs", "follows")


@dataclass(frozen=True)
class Foresight:
    """The whole run.

    Attributes:
        stages: all selected ones, each after what it depends on.
        seconds: of all that would run, one after another, as far as it is known.
        longest_chain: seconds of the slowest chain of stages that wait for each other: no number of workers
            makes the run shorter.
        unknown: names of the stages that would run and have no known time.
        price_per_hour: from `machine.price_per_hour`.
        notes: why times are unknown or the remote wasn't asked, and why the run would be refused; empty if
            nothing went wrong.
        fetches: whether `erv run` restores results from the remote by itself: this shell names the store.
        pools: those that stages would be sent to.
    """

    stages: tuple[Foreseen, ...]
    seconds: float
    longest_chain: float
    unknown: tuple[str, ...]
    price_per_hour: float | None
    notes: tuple[str, ...] = ()
    fetches: bool = True
    pools: tuple[PoolAhead, ...] = ()

    @property
    def price(self) -> float | None:
        """What the stages of known time would cost one after another; None without a price per hour.

        The machine is paid by the hour, so stages side by side cost less, down to `least_price`.
        """
        return None if self.price_per_hour is None else self.seconds / 3600 * self.price_per_hour

    @property
    def least_price(self) -> float | None:
        """What they would cost if only those that wait for each other took time: of the longest chain."""
        return None if self.price_per_hour is None else self.longest_chain / 3600 * self.price_per_hour

    def document(self) -> dict[str, Any]:
        """For `--json`; stages in order, times in seconds."""
        return {**asdict(self), "price": self.price, "least_price": self.least_price}
