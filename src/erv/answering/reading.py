"""Follows a growing completion: which text is sure, and which sentences of the explanation have ended."""

from __future__ import annotations

from erv.sentences import sentence_spans

_OPENING, _CLOSING = "<think>", "</think>"
_UNFINISHED = "\ufffd"  # what a tokenizer makes of the first bytes of a character


class Growing:
    """The text of one completion as it grows.

    Attributes:
        text: what was given out so far; at the end it is the completion.
    """

    def __init__(self) -> None:
        self.text = ""
        self._start: int | None = None  # of the think block that is read
        self._searched = 0
        self._said = 0  # sentences of that block that were given out

    def more(self, whole: str, *, ended: bool = False) -> str:
        """What can be given out now.

        Args:
            whole: the completion so far, stripped on the left; it begins with what `whole` was before, but
                for an unfinished character at its end.
            ended: whether nothing follows.
        """
        sure = whole.rstrip() if ended else whole.rstrip(_UNFINISHED).rstrip()
        if not sure.startswith(self.text):
            return ""  # a tokenizer that mends what it wrote; what follows is given out once it is longer
        found = sure[len(self.text) :]
        self.text = sure
        return found

    def sentences(self, *, ended: bool = False) -> list[str]:
        """The sentences that have ended since the last call, of all think blocks, as the verifier reads them.

        A sentence has ended when the next one or the closing tag follows.

        Args:
            ended: whether nothing follows, so that the last one has ended too.
        """
        found: list[str] = []
        while True:
            if self._start is None:
                at = self.text.find(_OPENING, self._searched)
                if at < 0:
                    return found
                self._start, self._said = at + len(_OPENING), 0
            closing = self.text.find(_CLOSING, self._start)
            block = self.text[self._start : closing if closing >= 0 else None]
            if closing < 0:
                block = _without_tag(block)
            spans = sentence_spans(block, semantics="strict")
            if closing < 0 and not ended:
                spans = spans[:-1]
            found += [block[start:end] for start, end in spans[self._said :]]
            self._said = max(self._said, len(spans))
            if closing < 0:
                return found
            self._searched, self._start = closing, None


def _without_tag(block: str) -> str:
    """A block without the beginning of its closing tag, which no sentence is part of."""
    for length in range(len(_CLOSING) - 1, 0, -1):
        if block.endswith(_CLOSING[:length]):
            return block[:-length]
    return block
