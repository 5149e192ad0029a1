"""A judge that compares explanations with the captions that people wrote about the clips.

A caption says little: what it doesn't mention may still be true. So a claim is true, false or unknown, and
only the first two are counted. Of real data sets, MAFW has captions.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from erv.chat.endpoint import ChatEndpoint
from erv.chat.protocol import Fault, Message, Refusal, corrected, json_object
from erv.grounding.claims import Case, Claim, Fact, Finding, Outcome
from erv.grounding.replies import VERDICTS, items, unquoted
from erv.sentences import encodable
from erv.settings.grounding import GroundingJudge

REPLIES = Path(".erv/grounding")

_TASK = """\
Two texts tell of the same short video of a person. The caption was written by people who watched it, and is
true. The explanation was written by a machine and may be wrong.

Find what each text says about the person's face (expression, gaze, head), voice (tone, pitch, loudness, pace)
and words (what is said). Leave out everything else, and what the person feels.

- claims: each thing that the explanation says. verdict is "true" if the caption says the same, "false" if the
  caption says otherwise, and "unknown" if the caption does not say.
- facts: each thing that the caption says. mentioned is true if the explanation says the same.
- text is copied word by word from the explanation for a claim, from the caption for a fact.
- kind is "face", "voice" or "words".
- An empty list means that a text says nothing of the kind.

Reply with one JSON object of this form and with nothing else: {form}"""
_FORM = (
    '{"claims": [{"text": "...", "kind": "...", "verdict": "..."}],'
    ' "facts": [{"text": "...", "kind": "...", "mentioned": true}]}'
)
_CORRECTION = "That reply can't be used: {reason}. Answer again, only with a JSON object of the form {form}."

Checked = tuple[tuple[Claim, ...], tuple[Fact, ...]]


class CaptionQuestions:
    """What a judge is asked about a caption and an explanation, which come as one JSON text.

    See `erv.chat.Questions`.
    """

    noun = "explanations"
    done = "checked"
    strict = True

    def first(self, text: str) -> list[Message]:
        """The conversation that asks for claims and facts."""
        both = json.loads(text)
        asked = f"Caption: {both['caption']}\n\nExplanation: {both['explanation']}"
        task = _TASK.format(form=_FORM)
        return [{"role": "system", "content": task}, {"role": "user", "content": encodable(asked)}]

    def read(self, reply: str) -> Checked | Fault:
        """Claims and facts; or why the reply is malformed."""
        content = json_object(reply)
        if isinstance(content, Fault):
            return content
        if set(content) != {"claims", "facts"}:
            return Fault("it is not a JSON object with the keys claims and facts")
        claims = items(content["claims"], "claims", "verdict")
        facts = items(content["facts"], "facts", "mentioned")
        if isinstance(claims, str):
            return Fault(claims)
        if isinstance(facts, str):
            return Fault(facts)
        return (
            tuple(Claim(text, kind, VERDICTS[verdict]) for text, kind, verdict in claims),
            tuple(Fact(text, kind, mentioned) for text, kind, mentioned in facts),
        )

    def correction(self, reply: str, reason: str) -> list[Message]:
        """The next turns of a conversation after a malformed reply."""
        return corrected(reply, _CORRECTION.format(reason=reason, form=_FORM))


class CaptionChecker:
    """Asks a chat model behind an endpoint; replies are kept by content, and the budget is that of teachers.

    Args:
        settings: of the endpoint.
        cache: folder of the stored replies.
        environ: holds the variable of the key; this process's environment if omitted.

    Raises:
        SettingsError: the variable of the key is not set, or does not hold a key.
    """

    shows = "captions"

    def __init__(
        self, settings: GroundingJudge, cache: Path = REPLIES, environ: Mapping[str, str] | None = None
    ) -> None:
        self._chat = ChatEndpoint(settings, cache, environ)

    @property
    def name(self) -> str:
        """`openai:` and the model."""
        return self._chat.name

    def check(self, cases: Sequence[Case]) -> list[Finding]:
        """One finding per case, in order; equal pairs of caption and explanation are asked once.

        A clip without a caption is `unknown` and an empty explanation `silent`: neither is asked about. A
        reply in prose is `malformed`, and so is one that quotes what neither text says; a server that doesn't
        answer in time gives `no_answer`.

        Raises:
            ChatError: the server refuses, too many cases have no answer or no usable one, or the budget is
                spent. What is checked by then is kept.
            DataError: the stored replies can't be read or written.
        """
        asked = {place: _text(case) for place, case in enumerate(cases) if case.caption and _says(case)}
        verdicts = dict(zip(asked, self._chat.ask(list(asked.values()), CaptionQuestions()), strict=True))
        return [
            self._finding(case, verdicts[place])
            if place in verdicts
            else Finding("silent" if case.caption else "unknown")
            for place, case in enumerate(cases)
        ]

    def _finding(self, case: Case, verdict: Checked | Refusal) -> Finding:
        if isinstance(verdict, Refusal):
            outcome: Outcome = "malformed" if verdict.reason == "malformed" else "no_answer"
            return Finding(outcome, detail=verdict.detail)
        claims, facts = verdict
        detail = unquoted(claims, case.explanation or "") or unquoted(facts, case.caption or "")
        if detail:
            return Finding("malformed", detail=detail)
        return Finding("checked", claims, facts)


def _text(case: Case) -> str:
    """What identifies a question: the caption and the explanation, nothing of the clip."""
    return json.dumps({"caption": case.caption, "explanation": case.explanation})


def _says(case: Case) -> bool:
    return bool((case.explanation or "").strip())
