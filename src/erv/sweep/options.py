"""What the options of a sweep may be: for its command, its form, and what checks them.

Imports nothing heavy, so that the command's help is quick.
"""

from __future__ import annotations

from typing import Literal, get_args

Metric = Literal["accuracy", "reward", "loss"]
Direction = Literal["maximize", "minimize"]
Sampler = Literal["tpe", "random"]
METRICS: tuple[Metric, ...] = get_args(Metric)
DIRECTIONS: tuple[Direction, ...] = get_args(Direction)
SAMPLERS: tuple[Sampler, ...] = get_args(Sampler)  # the usual one first
NAME = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,39}$"  # as JSON schemas have it, too
MOST_TRIALS = 10_000
MOST_AT_A_TIME = 64
