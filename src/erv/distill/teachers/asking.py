"""The question to a teacher about a sentence, and the reading of its reply."""

from __future__ import annotations

from erv.chat.protocol import Fault, Message, corrected, json_object, one_line
from erv.labels import NEUTRAL, LabelSpace
from erv.sentences import encodable

MAX_LABELS = 3
_LONGEST_LABEL = 40

_TASK = """\
You label single sentences. They come from descriptions of how a person in a video looks, speaks and acts.
Say which emotions of that person the sentence tells of.

Labels: {names}

- Judge by the sentence alone.
- Give one to three labels, spelled exactly as above.
- A sentence that tells of no emotion has the one label {neutral}, which never stands beside another.
- Reply with one JSON object of this form and with nothing else: {form}"""
_FORM = '{"labels": ["..."]}'
_CORRECTION = (
    "That reply can't be used: {reason}. Label the same sentence again. Reply only with a JSON object of the"
    " form {form}, with one to three of these labels: {names}."
)


class LabelQuestions:
    """Which emotions of a space a sentence tells of; see `erv.chat.Questions`."""

    noun = "sentences"
    done = "labelled"
    strict = True

    def __init__(self, space: LabelSpace) -> None:
        self._space = space

    def first(self, text: str) -> list[Message]:
        """The conversation that asks for the labels of a sentence."""
        task = _TASK.format(names=", ".join(self._space.names), neutral=NEUTRAL, form=_FORM)
        return [{"role": "system", "content": task}, {"role": "user", "content": encodable(text)}]

    def correction(self, reply: str, reason: str) -> list[Message]:
        """The next turns after a malformed reply, given the reason that `read` gives."""
        names = ", ".join(self._space.names)
        return corrected(reply, _CORRECTION.format(reason=reason, form=_FORM, names=names))

    def read(self, reply: str) -> tuple[str, ...] | Fault:
        """The labels that a reply names, in the order of the space; or why it is malformed.

        A reply is the JSON object `{"labels": [...]}` with one to three names or synonyms of the space, see
        `json_object`.
        """
        content = json_object(reply)
        if isinstance(content, Fault) and content.reason != "it is not a JSON object":
            return content
        given = content.get("labels") if isinstance(content, dict) else None
        if isinstance(content, Fault) or set(content) != {"labels"} or not isinstance(given, list):
            return Fault("it is not a JSON object with the one key labels and a list of names")
        if not 1 <= len(given) <= MAX_LABELS:
            return Fault(f"it has {len(given)} labels")
        named = set()
        for item in given:
            if not isinstance(item, str):
                return Fault("a label is not text")
            label = self._space.normalize(item)
            if label is None:
                return Fault(f"{one_line(item, _LONGEST_LABEL)!r} is not one of the labels")
            named.add(label)
        if NEUTRAL in named and len(named) > 1:
            return Fault(f"{NEUTRAL} stands beside another label")
        return tuple(name for name in self._space.names if name in named)
