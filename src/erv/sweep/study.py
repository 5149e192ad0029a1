"""The trials of a sweep, as Optuna keeps them in a file: suggested, watched, pruned, counted."""

from __future__ import annotations

import dataclasses
import logging
import math
import sqlite3
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from erv.errors import full_disk
from erv.files import sha256_of_text
from erv.sweep.errors import SweepError
from erv.sweep.plan import Plan

if TYPE_CHECKING:
    from optuna import Trial
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial

FILE = "study.db"
RANDOM_FIRST = 5  # trials before the sampler draws conclusions
# Attributes: the trial that this one goes on with; why it failed; whose values it has, too.
_AGAIN, _ERROR, _NOTE = "again", "error", "note"
_LOCKED_SECONDS = 20  # for which the file may be locked by a reader, such as Optuna's dashboard
# For which intermediate values don't wait for it again: who watches a trial also reads what it prints.
_PAUSE_SECONDS = 60

State = Literal["done", "pruned", "failed", "interrupted", "running", "waiting"]


@dataclass(frozen=True)
class Asked:
    """A trial that is to run.

    Attributes:
        number: from 0.
        overrides: its values, as `erv run --set` takes them.
    """

    number: int
    overrides: tuple[str, ...]


@dataclass(frozen=True)
class Row:
    """What came of a trial.

    Attributes:
        number: from 0.
        overrides: its values, as `erv run --set` takes them.
        state: `interrupted` if the sweep ended before it; it goes on with the sweep.
        value: of the metric; for a pruned one the last that was seen.
        step: the step of that, if it was pruned.
        message: why it failed, or whose values it has.
    """

    number: int
    overrides: tuple[str, ...]
    state: State
    value: float | None = None
    step: int | None = None
    message: str = ""


class StudyAway(SweepError):
    """The file of the study is locked, full or damaged; what it has stays, and the sweep goes on later."""


class Study:
    """The trials of one sweep. Hold its folder's lock, unless it is only read. Thread-safe.

    Args:
        folder: of the sweep.
        plan: what it was begun with.
        reads: whether it is only looked at, and nothing made or written.

    Raises:
        StudyAway: its file can't be used, as all methods do that need it.
        KeyError: it is only looked at, and has not begun.
    """

    def __init__(self, folder: Path, plan: Plan, *, reads: bool = False) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        logging.getLogger("optuna").propagate = False
        self._plan, self._space, self._file = plan, plan.dimensions, folder / FILE
        self._guard = threading.RLock()
        self._trials: dict[int, Trial] = {}
        self._away: tuple[float, str] | None = None
        pruner = (
            optuna.pruners.MedianPruner(n_startup_trials=plan.prune_after)
            if plan.prune
            else optuna.pruners.NopPruner()
        )
        with self._told():
            storage = optuna.storages.RDBStorage(
                f"sqlite:///{self._file}",
                engine_kwargs={"connect_args": {"timeout": _LOCKED_SECONDS}},
                skip_table_creation=reads,
            )
            if reads:
                self._study = optuna.load_study(study_name=plan.name, storage=storage, pruner=pruner)
                return
            self._study = optuna.create_study(
                storage=storage,
                study_name=plan.name,
                direction="minimize" if plan.direction == "minimize" else "maximize",
                pruner=pruner,
                load_if_exists=True,
            )

    def requeue(self) -> list[int]:
        """Has the trials run again that were running when the sweep ended; returns their numbers."""
        from optuna.trial import TrialState

        found = self._all()
        queued = {trial.user_attrs.get(_AGAIN) for trial in found if trial.state is TrialState.WAITING}
        numbers = []
        with self._told():
            for trial in found:
                if trial.state is not TrialState.RUNNING:
                    continue
                if _ERROR in trial.user_attrs:  # it failed, and the file was locked before that was whole
                    self._study.tell(trial.number, state=TrialState.FAIL)
                    continue
                if self._is_whole(trial) and trial.number not in queued:
                    self._study.enqueue_trial(trial.params, user_attrs={_AGAIN: trial.number})
                self._study.tell(trial.number, state=TrialState.FAIL)
                numbers.append(trial.number)
        return numbers

    def ask(self) -> Asked:
        """The next trial: one that was interrupted, or values that the sampler suggests.

        The sampler's random numbers depend on the seed and on how many suggestions there were, so a sweep
        that was interrupted goes on as it would have.
        """
        with self._told():
            suggested = sum(_AGAIN not in t.user_attrs and self._is_whole(t) for t in self._all())
            self._study.sampler = self._sampler(suggested)
            trial = self._study.ask(self._space.distributions)
            self._trials[trial.number] = trial
            return Asked(trial.number, self._space.overrides(trial.params))

    def report(self, number: int, value: float, step: int) -> bool:
        """Notes an intermediate value; returns whether the trial is not worth finishing.

        One that is no finite number isn't noted: what it means is told when the trial ends.

        Raises:
            StudyAway: the file can't be used now, or could not be used a moment ago.
        """
        if not math.isfinite(value):
            return False
        with self._told(), warnings.catch_warnings():
            if self._away is not None and time.monotonic() - self._away[0] < _PAUSE_SECONDS:
                raise StudyAway(self._away[1])
            warnings.simplefilter("ignore")  # of a step that was reported before
            self._trials[number].report(value, step)
            return bool(self._trials[number].should_prune())

    def done(self, number: int, value: float, note: str = "") -> None:
        """Notes that a trial is finished, and what it is worth; without a finite value, it has failed."""
        if not math.isfinite(value):
            self.failed(number, f"the value is {value}, which can't be compared")
            return
        with self._told(f"that trial {number} is worth {value} isn't noted yet"):
            self._note(number, note)
            self._study.tell(number, value)

    def pruned(self, number: int, note: str = "") -> None:
        """Notes that a trial was ended."""
        from optuna.trial import TrialState

        with self._told(f"that trial {number} was pruned isn't noted yet"):
            self._note(number, note)
            self._study.tell(number, state=TrialState.PRUNED)

    def failed(self, number: int, message: str) -> None:
        """Notes that a trial failed, and why."""
        from optuna.trial import TrialState

        with self._told(f"that trial {number} failed ({message}) isn't noted yet"):
            self._trials[number].set_user_attr(_ERROR, message)
            self._study.tell(number, state=TrialState.FAIL)

    def rows(self, *, at_work: bool = True) -> list[Row]:
        """What came of each trial, in their order, without those that were interrupted: others went on.

        Args:
            at_work: whether a process works on the sweep. If none does, what was running is interrupted.
        """
        found = [self._row(trial) for trial in self._all() if not self._is_left(trial)]
        if at_work:
            return found
        return [
            dataclasses.replace(row, state="interrupted") if row.state in ("running", "waiting") else row
            for row in found
        ]

    def best(self) -> Row | None:
        """The finished trial with the best value; None without any."""
        rows = [row for row in self.rows() if row.state == "done" and row.value is not None]
        if not rows:
            return None
        sign = -1.0 if self._plan.direction == "minimize" else 1.0
        return max(rows, key=lambda row: sign * (row.value or 0.0))

    def settled(self) -> int:
        """How many trials are finished, pruned or failed."""
        return sum(row.state in ("done", "pruned", "failed") for row in self.rows())

    def _all(self) -> Sequence[FrozenTrial]:
        with self._told():
            return self._study.get_trials(deepcopy=False)

    @contextmanager
    def _told(self, lost: str = "") -> Iterator[None]:
        """Has the file for one thread, and tells in a sentence that it can't be used.

        Args:
            lost: what the file doesn't have then.
        """
        from optuna.exceptions import StorageInternalError
        from sqlalchemy.exc import SQLAlchemyError

        with self._guard:
            try:
                yield
            # The last if SQLite quotes what is damaged.
            except (StorageInternalError, SQLAlchemyError, UnicodeDecodeError) as error:
                said = _sentence(self._file, error, lost, self._plan.name)
                self._away = time.monotonic(), said
                raise StudyAway(said) from error

    def _note(self, number: int, note: str) -> None:
        if note:
            self._trials[number].set_user_attr(_NOTE, note)

    def _is_whole(self, trial: FrozenTrial) -> bool:
        """Whether the trial has all its values; one whose process was killed meanwhile has not."""
        return set(trial.params) == set(self._space.names)

    def _is_left(self, trial: FrozenTrial) -> bool:
        from optuna.trial import TrialState

        return trial.state is TrialState.FAIL and _ERROR not in trial.user_attrs

    def _row(self, trial: FrozenTrial) -> Row:
        states: dict[str, State] = {
            "COMPLETE": "done",
            "PRUNED": "pruned",
            "FAIL": "failed",
            "RUNNING": "running",
            "WAITING": "waiting",
        }
        values = trial.params or trial.system_attrs.get("fixed_params", {})
        overrides = self._space.overrides(values) if set(values) == set(self._space.names) else ()
        step = trial.last_step
        value = trial.value if trial.value is not None else trial.intermediate_values.get(step or 0)
        return Row(
            trial.number,
            overrides,
            states[trial.state.name],
            value,
            step if trial.state.name == "PRUNED" else None,
            str(trial.user_attrs.get(_ERROR) or trial.user_attrs.get(_NOTE, "")),
        )

    def _sampler(self, suggested: int) -> BaseSampler:
        import optuna

        seed = int(sha256_of_text(f"{self._plan.seed}:{suggested}")[:8], 16)
        if self._plan.sampler == "random":
            return optuna.samplers.RandomSampler(seed=seed)
        return optuna.samplers.TPESampler(seed=seed, n_startup_trials=RANDOM_FIRST)


def read_study(folder: Path, plan: Plan) -> Study | None:
    """The trials of a sweep, to look at; None if none was begun. Takes no lock, and writes nothing.

    Args:
        folder: of the sweep.
        plan: what it was begun with.

    Raises:
        StudyAway: the file can't be used.
    """
    if not (folder / FILE).is_file() or _has_no_tables(folder / FILE):
        return None
    try:
        return Study(folder, plan, reads=True)
    except KeyError:  # its process ended before the first trial
        return None


def _has_no_tables(file: Path) -> bool:
    """Whether Optuna is still making the file, or was ended when it did; False for one that can't be read."""
    ask = "SELECT count(*) FROM sqlite_master WHERE name = 'version_info'"
    try:
        with closing(sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True)) as tables:
            return bool(tables.execute(ask).fetchone() == (0,))
    except (sqlite3.Error, UnicodeDecodeError):
        return False  # `Study` says what is wrong with it


def _sentence(file: Path, error: Exception, lost: str, name: str) -> str:
    """What is wrong with the file, what it lacks, and what to do."""
    without = f", and {lost}" if lost else ""
    again = f"`erv sweep run {name}` goes on" + (" with that trial" if lost else "")
    if (full := full_disk(error)) is not None:
        return f"{file}: {full}{without}; {again}"
    cause = error.__cause__ or error  # Optuna says of any fault that its data may be invalid
    lines = str(getattr(cause, "orig", None) or cause).splitlines()
    reason = lines[0] if lines else type(cause).__name__
    return f"{file}: {reason}{without}; close what else uses the file, or restore it, and {again}"


def table(rows: Sequence[Row], metric: str) -> list[dict[str, Any]]:
    """The trials as rows of a table."""
    return [
        {
            "trial": row.number,
            "state": row.state if row.step is None else f"pruned at step {row.step}",
            metric: "" if row.value is None else f"{row.value:.4g}",
            "parameters": " ".join(row.overrides),
            "note": row.message,
        }
        for row in rows
    ]
