"""Pinning: lists and hashes a raw tree and writes the lock file that the stages depend on."""

from erv.pinning.again import Repinned, look_again
from erv.pinning.journal import PINS
from erv.pinning.pinning import pin

__all__ = ["PINS", "Repinned", "look_again", "pin"]
