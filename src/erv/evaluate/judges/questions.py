"""The questions to a chat model about an explanation, and the reading of its replies."""

from __future__ import annotations

import string

from erv.chat import Fault, Message, one_line
from erv.chat.protocol import corrected, json_object
from erv.evaluate.judges.protocol import OUTSIDE, SILENT, Verdict
from erv.labels import NEUTRAL, LabelSpace
from erv.sentences import encodable, normalize

_LONGEST = 40
# What names no emotion, without punctuation, also before a noun: "mixed", "mixed feelings".
_SILENT_WORDS = (
    "none",
    "no",
    "no clear",
    "no single",
    "no specific",
    "nothing",
    "neither",
    "null",
    "na",
    "n a",
    "not applicable",
    "none given",
    "not given",
    "none stated",
    "not stated",
    "cannot tell",
    "can t tell",
    "cannot determine",
    "cannot be determined",
    "indeterminate",
    "inconclusive",
    "ambivalent",
    "conflicting",
    "contradictory",
    "unclear",
    "not clear",
    "unknown",
    "unsure",
    "not sure",
    "uncertain",
    "undefined",
    "undetermined",
    "unspecified",
    "not specified",
    "ambiguous",
    "mixed",
    "several",
    "multiple",
    "various",
    "both",
    "many",
    "no emotion named",
    "none of these",
    "none of the above",
)
_NOUNS = ("", " emotion", " emotions", " feeling", " feelings")
# Of two words, one that is known decides ("deep sadness"), unless the other may turn it around.
_TURNING = frozenset(
    ("no", "not", "never", "non", "without", "hardly", "barely", "less", "lacking", "anti", "un")
)
_DEGREES = frozenset(
    (
        "very",
        "mild",
        "mildly",
        "slight",
        "slightly",
        "deep",
        "deeply",
        "strong",
        "strongly",
        "intense",
        "quiet",
    )
)
_SILENCE = frozenset(word + noun for word in _SILENT_WORDS for noun in _NOUNS)

_TASK = """\
You read an explanation of what a person in a video feels. You have not seen the video.
Say which emotion the explanation as a whole speaks of.

Emotions: {names}

- Judge by the explanation alone, by all of it: one sentence that names an emotion can contradict the others.
- Give one emotion, spelled exactly as above. If it speaks of another emotion, give that one in one word.
- If it speaks of no emotion, or of several alike, give none. That is not {neutral}, which means that it says
  the person is calm.
- Reply with one JSON object of this form and with nothing else: {form}"""
_FORM = '{"emotion": "..."}'
_CORRECTION = (
    "That reply can't be used: {reason}. Judge the same explanation again. Reply only with a JSON object of"
    " the form {form}, with one of {names}, another emotion in one word, or none."
)
# The wording of the method's released code.
_OFFICIAL = (
    "Read the reasoning content and respond with the appropriate emotion in {labels}. Reply with only the"
    " emotion word.\nReason: {reason}\nAnswer Emotion:"
)


class OpenQuestions:
    """Which emotion an explanation speaks of: one of a space, another one, or none."""

    noun = "explanations"
    done = "read"
    strict = False

    def __init__(self, space: LabelSpace) -> None:
        self._space = space

    def first(self, text: str) -> list[Message]:
        """The conversation that asks about an explanation."""
        task = _TASK.format(names=", ".join(self._space.names), neutral=NEUTRAL, form=_FORM)
        return [{"role": "system", "content": task}, {"role": "user", "content": encodable(text)}]

    def correction(self, reply: str, reason: str) -> list[Message]:
        """The next turns after a malformed reply, given the reason that `read` gives."""
        names = ", ".join(self._space.names)
        return corrected(reply, _CORRECTION.format(reason=reason, form=_FORM, names=names))

    def read(self, reply: str) -> Verdict | Fault:
        """The verdict in a reply, or why it is malformed.

        A reply is the JSON object `{"emotion": "..."}`, see `json_object`. A name or synonym of the space is
        `named`, also beside a word for its degree ("deep sadness"); null, `none` and other words for no
        emotion or several are `silent`, and one other word, alone or with such a degree, is `outside`. Any
        other two words are malformed, since nothing says that they are an emotion. "No emotion" is silent
        although label spaces have it as a synonym of neutral: the question tells the two apart. A space's own
        canonical name is never silent.
        """
        content = json_object(reply)
        if isinstance(content, Fault):
            return content
        said = content.get("emotion", "")
        if set(content) == {"emotion"} and said is None:
            return SILENT
        if set(content) != {"emotion"} or not isinstance(said, str):
            return Fault("it is not a JSON object with the one key emotion and a text")
        emotion, plain = self._space.normalize(said), normalize(said)
        if plain in _SILENCE and plain != (emotion or "").casefold():
            return SILENT
        if emotion is not None:
            return Verdict("named", emotion)
        words = said.lower().strip(string.punctuation + string.whitespace).split()
        known = {name for word in words if (name := self._space.normalize(word)) is not None}
        if len(words) == 2 and len(known) == 1 and not _TURNING.intersection(words):
            return Verdict("named", known.pop())
        if len(words) == 2 and words[0] in _DEGREES:
            words = words[1:]
        if len(words) == 1 and words[0].replace("-", "").isalpha():
            return OUTSIDE
        return Fault(f"{one_line(said, _LONGEST)!r} is not one emotion")


class OfficialQuestions:
    """The method's own question and filter, to compare with published figures.

    A reply that is not exactly a label of the space, case and punctuation included, is neutral; the released
    code also takes neutral where there was no reply at all. Empty explanations are asked about like others.
    The specification does not say how the list of labels is written; here it is joined by commas.
    """

    noun = "explanations"
    done = "read"
    strict = False

    def __init__(self, space: LabelSpace) -> None:
        self._space = space

    def first(self, text: str) -> list[Message]:
        """The conversation that asks about an explanation: a single turn of the user."""
        asked = _OFFICIAL.format(labels=", ".join(self._space.names), reason=text)
        return [{"role": "user", "content": encodable(asked)}]

    def correction(self, reply: str, reason: str) -> list[Message]:
        """Never needed, because no reply is malformed."""
        raise AssertionError(f"the official question takes every reply; {reason}")

    def read(self, reply: str) -> Verdict | Fault:
        """The verdict in a reply."""
        return Verdict("named", reply) if reply in self._space.names else self.filtered

    @property
    def filtered(self) -> Verdict:
        """The verdict on whatever is not a label: neutral, if the space has it."""
        return Verdict("named", NEUTRAL) if NEUTRAL in self._space.names else OUTSIDE
