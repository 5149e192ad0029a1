"""What a version's policy is asked about a row: what it was asked about such a clip when it was evaluated.

The prompt is stored with the policy. Its fields are filled in per row, see `erv.prompts.Prompt`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from erv.errors import DataError
from erv.labels import LabelSpace
from erv.prompts import Prompt

if TYPE_CHECKING:
    from erv.policies import Policy

LONGEST_SUBTITLE = 4000  # characters; a longer one would cost the memory of a whole batch
HALVED = "half a character, as of an emoji that was cut; send whole ones"  # see `is_whole`


class Question:
    """Fills in the fields of a prompt.

    Args:
        prompt: of the policy.
        spaces: see `erv.answering.spaces.spaces_of`.
    """

    def __init__(self, prompt: Prompt, spaces: Mapping[str, str]) -> None:
        self._prompt, self._spaces = prompt, spaces

    def about(self, dataset: Any = None, subtitle: Any = None) -> str | None:
        """The text of the user turn; None if it is the same for every clip.

        Args:
            dataset: the data set whose emotions are listed; None for the only one that the version was tested
                with.
            subtitle: what is said in the clip; None if nobody knows.

        Raises:
            DataError: it can't be asked as it was when the version was evaluated; a sentence for the client.
        """
        fields = self._prompt.fields
        if not fields:
            return None
        labels = self._labels(dataset) if "labels" in fields else ()
        said = _said(subtitle) if "subtitle" in fields else None
        return self._prompt.ask(labels, said)

    def _labels(self, dataset: Any) -> Sequence[str]:
        tested = list(self._spaces)
        if not tested:
            raise DataError(
                "the question of this version lists the emotions of a data set, and the version does not say"
                " which it was tested with; run `dvc repro register` and publish it again"
            )
        if dataset is None and len(tested) > 1:
            raise DataError(
                "the question of this version lists the emotions of a data set, and it was tested with"
                f" {', '.join(tested)}; name one of them in the field dataset"
            )
        chosen = tested[0] if dataset is None else dataset
        if not isinstance(chosen, str) or chosen not in tested:  # a cell may be anything, an array too
            raise DataError(
                "the question of this version lists the emotions of a data set, and it was tested with"
                f" {', '.join(tested)}, not with {str(dataset)[:50]!r}; name one of those in the field"
                " dataset"
            )
        return LabelSpace.load(self._spaces[chosen]).names


def has_other_places(policy: Policy, question: str) -> bool:
    """Whether a text has placeholders for frames or sound, on which all that is asked with it would fail."""
    places = set(policy.model.placeholder_ids)
    usual, found = (
        sum(token in places for token in policy.processor.prompt_ids(text)) for text in (None, question)
    )
    return usual != found


def is_whole(text: str) -> bool:
    """Whether a text has no half of a character (a surrogate), which JSON can name and no tokenizer takes."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _said(subtitle: Any) -> str | None:
    if subtitle is not None and not isinstance(subtitle, str):
        raise DataError("the subtitle is not a text; the field subtitle holds what is said in the clip")
    if subtitle is not None and len(subtitle) > LONGEST_SUBTITLE:
        raise DataError(f"the subtitle is longer than {LONGEST_SUBTITLE} characters; shorten it")
    if subtitle is not None and not is_whole(subtitle):
        raise DataError(f"the subtitle has {HALVED}")
    return subtitle
