"""A judge that is shown the clips: their frames and their sound.

It is asked about each sentence of an explanation by itself. A clip without sound is shown without, and the
prompt says so: silence never stands in for sound.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from erv.chat.endpoint import ChatEndpoint
from erv.chat.protocol import Fault, Message, Refusal, corrected, json_object, one_line
from erv.errors import SettingsError
from erv.grounding.captions import REPLIES
from erv.grounding.claims import Case, Claim, Finding, Outcome
from erv.grounding.replies import VERDICTS, items, unquoted
from erv.grounding.senses import IMAGES, SOUND, check_senses
from erv.grounding.shown import frame_parts, sound_parts
from erv.sentences import encodable, split_sentences
from erv.settings.grounding import GroundingJudge
from erv.shards import ShardReader

_KEPT = 8  # encoded clips in memory; the sentences of one are asked about in a row

_TASK = """\
You are shown a short video of a person: {shown}. A machine that may be wrong wrote a sentence about it.

Find what the sentence says about the person's face (expression, gaze, head), voice (tone, pitch, loudness,
pace) and words (what is said). Leave out everything else, and what the person feels. Judge only by what you
see and hear.

- claims: each thing that the sentence says. verdict is "true" if it is so in the video, "false" if it is
  otherwise, and "unknown" if that can't be told.
- text is copied word by word from the sentence.
- kind is "face", "voice" or "words".
- An empty list means that the sentence says nothing of the kind.

Reply with one JSON object of this form and with nothing else: {form}"""
_FORM = '{"claims": [{"text": "...", "kind": "...", "verdict": "..."}]}'
_CORRECTION = "That reply can't be used: {reason}. Answer again, only with a JSON object of the form {form}."


class ClipQuestions:
    """What a judge is asked about a clip and a sentence, which come as one JSON text.

    See `erv.chat.Questions`.

    Args:
        settings: of the judge.
        shards: the shards of a data set, by its name.
    """

    noun = "sentences"
    done = "checked"
    strict = True

    def __init__(self, settings: GroundingJudge, shards: Mapping[str, ShardReader]) -> None:
        self._settings, self._shards = settings, shards
        self._media = functools.lru_cache(_KEPT)(self._encoded)

    def first(self, text: str) -> list[Message]:
        """The conversation that asks for claims.

        The sentence comes last, so that a server can reuse what it made of the clip.

        Raises:
            DataError: the clip can't be read.
        """
        asked = json.loads(text)
        shown, media = self._media(asked["dataset"], asked["clip_id"])
        task = _TASK.format(shown=shown, form=_FORM)
        sentence = {"type": "text", "text": encodable(f"Sentence: {asked['sentence']}")}
        return [{"role": "system", "content": task}, {"role": "user", "content": [*media, sentence]}]

    def read(self, reply: str) -> tuple[Claim, ...] | Fault:
        """The claims; or why the reply is malformed."""
        content = json_object(reply)
        if isinstance(content, Fault):
            return content
        if set(content) != {"claims"}:
            return Fault("it is not a JSON object with the key claims")
        claims = items(content["claims"], "claims", "verdict")
        if isinstance(claims, str):
            return Fault(claims)
        return tuple(Claim(text, kind, VERDICTS[verdict]) for text, kind, verdict in claims)

    def correction(self, reply: str, reason: str) -> list[Message]:
        """The next turns of a conversation after a malformed reply."""
        return corrected(reply, _CORRECTION.format(reason=reason, form=_FORM))

    def _encoded(self, dataset: str, clip_id: str) -> tuple[str, list[dict[str, Any]]]:
        """What is shown of a clip, in words and as parts of a message."""
        clip = self._shards[dataset].get(clip_id)
        frames = frame_parts(clip, self._settings.max_frames, self._settings.max_side)
        sound = sound_parts(clip)
        pictures = (
            "1 frame of it" if len(frames) == 1 else f"{len(frames)} frames, evenly spread and in order"
        )
        heard = "and its sound" if sound else "without sound, because the video has none"
        return f"{pictures}, {heard}", [*frames, *sound]


class ClipChecker:
    """Asks a chat model behind an endpoint; replies are kept by content, and the budget is that of teachers.

    Args:
        settings: of the endpoint.
        shards: folder with the shards of each data set.
        cache: folder of the stored replies.
        environ: holds the variable of the key; this process's environment if omitted.

    Raises:
        SettingsError: the variable of the key is not set, or does not hold a key.
    """

    shows = "clips"

    def __init__(
        self,
        settings: GroundingJudge,
        shards: Path,
        cache: Path = REPLIES,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self._settings, self._folder = settings, shards
        self._chat = ChatEndpoint(settings, cache, environ)
        self._shards: dict[str, ShardReader] = {}
        self._questions = ClipQuestions(settings, self._shards)

    @property
    def name(self) -> str:
        """`openai:` and the model."""
        return self._chat.name

    def check(self, cases: Sequence[Case]) -> list[Finding]:
        """One finding per case, in order; an equal sentence about the same clip is asked about once.

        An explanation without a letter or digit is `silent` and is not asked about. One is `malformed` if a
        reply about any of its sentences is prose or quotes what the sentence doesn't say, and `no_answer` if
        the server doesn't answer in time: half an explanation is not checked. Claims about the voice and the
        words of a clip without sound are undecided, whatever the judge says.

        Raises:
            SettingsError: the clips of a data set would leave this machine and may not.
            ChatError: the server refuses or drops images or sound, too many sentences have no answer or no
                usable one, or the budget is spent. What is checked by then is kept.
            DataError: a clip, or the stored replies, can't be read or written.
        """
        said = [split_sentences(case.explanation or "", semantics="strict") for case in cases]
        asked = [
            (case, sentence) for case, sentences in zip(cases, said, strict=True) for sentence in sentences
        ]
        if not asked:
            return [Finding("silent") for _ in cases]
        self._open(sorted({case.dataset for case, _ in asked}))
        heard = any(case.clip_id not in self._shards[case.dataset].silent for case, _ in asked)
        check_senses(self._chat, self._settings, [IMAGES, SOUND] if heard else [IMAGES])
        texts = [_text(case, sentence) for case, sentence in asked]
        verdicts = iter(self._chat.ask(texts, self._questions))
        return [
            self._finding(case, [(sentence, next(verdicts)) for sentence in sentences])
            for case, sentences in zip(cases, said, strict=True)
        ]

    def _open(self, datasets: Sequence[str]) -> None:
        """Opens the shards of data sets, if their clips may be sent."""
        settings = self._settings
        for name in datasets:
            if not settings.on_this_machine and name not in settings.send_media:
                raise SettingsError(
                    f"grounding.judge: frames and sound of {name} would be sent to {settings.base_url}, which"
                    f" is not on this machine; add {name} to send_media if its licence allows that, or serve"
                    " the model here"
                )
            if name not in self._shards:
                self._shards[name] = ShardReader(self._folder / name)

    def _finding(self, case: Case, replies: Sequence[tuple[str, tuple[Claim, ...] | Refusal]]) -> Finding:
        """What is found of an explanation, from the verdicts on its sentences."""
        if not replies:
            return Finding("silent")
        found: list[Claim] = []
        for sentence, verdict in replies:
            about = f"of {one_line(sentence, 60)!r}"
            if isinstance(verdict, Refusal):
                outcome: Outcome = "malformed" if verdict.reason == "malformed" else "no_answer"
                return Finding(outcome, detail=f"{about}: {verdict.detail}")
            if detail := unquoted(verdict, sentence):
                return Finding("malformed", detail=f"{about}: {detail}")
            found += verdict
        if case.clip_id in self._shards[case.dataset].silent:
            found = [claim if claim.kind == "face" else replace(claim, true=None) for claim in found]
        return Finding("checked", tuple(found))


def _text(case: Case, sentence: str) -> str:
    """What identifies a question within a run; stored replies are found by what is sent, media included."""
    return json.dumps({"dataset": case.dataset, "clip_id": case.clip_id, "sentence": sentence})
