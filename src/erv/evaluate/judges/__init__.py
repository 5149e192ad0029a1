"""Judges, which name the emotion that an explanation speaks of, without seeing clip, answer or truth."""

from erv.evaluate.judges.protocol import OUTCOMES, Judge, Outcome, Verdict
from erv.evaluate.judges.worth import judge_quality, require_quality

__all__ = ["OUTCOMES", "Judge", "Outcome", "Verdict", "judge_quality", "require_quality"]
