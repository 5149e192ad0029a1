"""A judge that is asked in words: a chat model, behind an endpoint (`openai`) or in a folder (`local`)."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from erv.chat import Asked, Refusal
from erv.evaluate.judges.independence import tensor_digests
from erv.evaluate.judges.protocol import FAILED, SILENT, Verdict
from erv.evaluate.judges.questions import OfficialQuestions, OpenQuestions
from erv.labels import LabelSpace

if TYPE_CHECKING:
    from torch import Tensor

Mode = Literal["open", "official"]


class ChatJudge:
    """A chat model that names the emotion of explanations.

    Attributes:
        name: of the judge.
        texts: none.
        weights: digests of the tensors of a model that runs here; none for an endpoint, whose can't be seen.

    Args:
        asked: the model.
        name: of the judge.
        mode: `open` (our question, outcomes as they are) or `official` (the method's own).
        identity: what decides its replies beside the questions, for the digest.
        tensors: the weights of a model that runs here.
    """

    texts: tuple[str, ...] = ()

    def __init__(
        self,
        asked: Asked,
        name: str,
        mode: Mode,
        identity: Mapping[str, Any],
        tensors: Callable[[], Mapping[str, Tensor]] | None = None,
    ) -> None:
        self.name = name
        self._asked, self._mode, self._identity, self._tensors = asked, mode, dict(identity), tensors

    @functools.cached_property
    def weights(self) -> frozenset[str]:
        """Digests of the model's tensors."""
        return frozenset() if self._tensors is None else tensor_digests(self._tensors())

    @property
    def asked(self) -> Asked:
        """The model, whose `usage` says what it took."""
        return self._asked

    def judge(self, explanations: Sequence[str | None], space: LabelSpace) -> list[Verdict]:
        """Asks about each explanation; equal ones once.

        Args:
            explanations: n texts.
            space: the data set's own space; its names are in the question.

        Returns:
            n verdicts. In mode `open`, an empty explanation is `silent` without being asked about, and one
            about which there is no usable reply has `failed`. In mode `official` all are `named`: what is
            empty or can't be read is neutral, as in the released code, or `outside` in a space without
            neutral.

        Raises:
            ChatError: the model can't continue; replies so far are kept.
        """
        if self._mode == "official":
            official = OfficialQuestions(space)
            replies = self._asked.ask([text or "" for text in explanations], official)
            return [official.filtered if isinstance(reply, Refusal) else reply for reply in replies]
        full = [text for text in explanations if text and text.strip()]
        said = dict(zip(full, self._asked.ask(full, OpenQuestions(space)), strict=True))
        return [_verdict(said[text]) if text in said else SILENT for text in explanations]

    def knows(self, space: LabelSpace) -> tuple[str, ...]:
        """All names of the space, since it is given them."""
        return space.names

    def describe(self) -> dict[str, Any]:
        """Name, architecture, mode and digest."""
        space = LabelSpace.load("mafw")
        question = (OfficialQuestions if self._mode == "official" else OpenQuestions)(space).first("")
        parts = json.dumps([self.name, self._mode, question, self._identity], sort_keys=True)
        return {
            "name": self.name,
            "architecture": f"chat model, asked with the {self._mode} question",
            "mode": self._mode,
            "digest": hashlib.sha256(parts.encode()).hexdigest(),
        }


def _verdict(said: Verdict | Refusal) -> Verdict:
    return FAILED if isinstance(said, Refusal) else said
