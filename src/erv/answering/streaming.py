"""Answers clips in batches and says what it writes while it writes: tokens, sentences, the answer.

The completion of a clip is what `Predictor.predict` gives for it: both decode greedily with the same code. In
a batch of its own it is the same text, token by token. In a batch with others its prompt is padded, which
changes the rounding of sums; where two tokens are almost equally probable, the other may be chosen. The same
clips in the same batch give the same texts.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from erv.answering.clips import ClipError
from erv.answering.events import Answer, Done, Error, Event, Seconds, Sentence, Started, Token, Usage
from erv.answering.predictor import Predictor
from erv.answering.question import HALVED, LONGEST_SUBTITLE, has_other_places, is_whole
from erv.answering.reading import Growing
from erv.answering.requests import Request
from erv.answering.seeing import seen_clip
from erv.answering.showing import shown
from erv.sentences import normalize

if TYPE_CHECKING:
    from transformers import DynamicCache

    from erv.answering.agreement import Agreement
    from erv.media.decode import Decoded

logger = logging.getLogger(__name__)

FAILED = "the model failed; the log says why"
CANCELLED = "cancelled"
LONGEST_PROMPT = LONGEST_SUBTITLE


@dataclass(frozen=True)
class Ready:
    """A request whose clip was decoded.

    Attributes:
        request: as it came.
        seen: the clip.
        received: when it came, in seconds of the monotonic clock.
        decoding: how long decoding took, in seconds.
        tell: takes its events.
        cancelled: whether nobody waits for it any more.
    """

    request: Request
    seen: Decoded
    received: float
    decoding: float
    tell: Callable[[Event], None]
    cancelled: Callable[[], bool]


class Streaming:
    """Streams what a predictor says; for one thread, but for `prepare`.

    Args:
        predictor: of the bundle.
    """

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor

    def prepare(
        self,
        request: Request,
        tell: Callable[[Event], None],
        cancelled: Callable[[], bool],
        received: float,
    ) -> Ready | None:
        """Decodes the clip of a request, in a process of its own; any thread may call this.

        Args:
            request: what is asked.
            tell: takes its events.
            cancelled: whether nobody waits for it any more; then nothing is decoded.
            received: when it came, in seconds of the monotonic clock.

        Returns:
            None if it can't be answered; `tell` got the reason.
        """
        if cancelled():
            tell(Error(CANCELLED, "cancelled"))
            return None
        begun = time.monotonic()
        try:
            self._check(request)
            seen = seen_clip(self._predictor, request)
        except ClipError as error:
            tell(Error(str(error), "clip"))
            return None
        return Ready(request, seen, received, time.monotonic() - begun, tell, cancelled)

    def answer(self, batch: Sequence[Ready]) -> None:
        """Answers requests together; each is told its own events, of which the last is `done` or `error`.

        What fails with others is asked again alone, so that one request costs no other, unless something of
        the batch was given out already.
        """
        asked: list[tuple[Ready, str | None]] = []
        for item in batch:
            if item.cancelled():
                item.tell(Error(CANCELLED, "cancelled"))
                continue
            try:
                question = self._question(item.request)
                seen = shown(item.seen, self._predictor.rule.sample_rate) if item.request.show else None
            except ClipError as error:
                item.tell(Error(str(error), "clip"))
                continue
            except Exception:  # whatever it is costs the others nothing
                logger.exception("a request could not be asked")
                item.tell(Error(FAILED, "failed"))
                continue
            item.tell(Started())
            if seen is not None:
                item.tell(seen)
            asked.append((item, question))
        if asked:
            self._run(asked)

    def _run(self, asked: Sequence[tuple[Ready, str | None]]) -> None:
        rows = _Rows(self._predictor, asked, self._words)
        try:
            rows.generate()
        except Exception:  # a fault of the model or the machine; whoever asks next may fare better
            logger.exception("the model failed")
            if len(asked) == 1 or rows.spoke:
                for item in rows.unanswered():
                    item.tell(Error(FAILED, "failed"))
                return
            for one in asked:
                self._run([one])

    def _check(self, request: Request) -> None:
        """Refuses what can be told without the policy; raises ClipError."""
        wanted, most = request.max_new_tokens, self._predictor.max_new_tokens
        if wanted is not None and not 1 <= wanted <= most:
            raise ClipError(
                f"max_new_tokens is {wanted}, expected 1 to {most}, with which this version was evaluated"
            )
        prompt = request.prompt
        if prompt is not None and (not prompt.strip() or len(prompt) > LONGEST_PROMPT):
            raise ClipError(f"the prompt is empty, or longer than {LONGEST_PROMPT} characters")
        if prompt is not None and request.subtitle is not None:
            raise ClipError(
                "the subtitle has no place in a prompt of your own; say it in the prompt, or leave one of the"
                " two out"
            )
        for name in ("clip", "dataset", "subtitle", "prompt"):
            text = getattr(request, name)
            if text is not None and not is_whole(text):
                raise ClipError(f"the {name} has {HALVED}")
        self._check_dataset(request.dataset)

    def _check_dataset(self, dataset: str | None) -> None:
        """Refuses one without a label space here; a table may have others, whose answers are read by all."""
        tested = self._predictor.datasets
        if dataset is None or dataset in tested:
            return
        if not tested:
            raise ClipError("this version does not say which data sets it was tested with; leave dataset out")
        raise ClipError(
            f"this version was tested with {', '.join(tested)}, not with {dataset[:50]!r}; name one of those"
            " as dataset, or leave it out"
        )

    def _question(self, request: Request) -> str | None:
        """What the policy is asked, None for what it is asked about every clip; raises ClipError."""
        if request.prompt is None:
            question = self._predictor.question_about(request.row)
            if isinstance(question, ClipError):
                raise question
            return question
        if has_other_places(self._predictor.policy, request.prompt):
            raise ClipError("the prompt has a placeholder for frames or sound, such as <video>; take it out")
        return request.prompt

    def _words(self, dataset: str | None, answer: str) -> dict[str, tuple[str, ...]]:
        """The emotions among which an answer is, each with the words for it."""
        from erv.answering.spelled import space_of, spellings

        return spellings(space_of(answer, self._predictor.spaces_for(dataset)), answer)


class _Rows:
    """The rows of one batch while they are generated."""

    def __init__(
        self,
        predictor: Predictor,
        asked: Sequence[tuple[Ready, str | None]],
        words: Callable[[str | None, str], Mapping[str, Sequence[str]]],
    ) -> None:
        self._predictor, self._words = predictor, words
        self._batch = batch = [item for item, _ in asked]
        self._questions = [question for _, question in asked]
        self._prompts: list[list[int]] = []
        self._limits = [item.request.max_new_tokens or predictor.max_new_tokens for item in batch]
        self._growing = [Growing() for _ in batch]
        self._sentences: list[list[Sentence]] = [[] for _ in batch]
        self._first: list[float | None] = [None] * len(batch)
        self._open = set(range(len(batch)))
        self._begun = time.monotonic()
        self.spoke = False

    def unanswered(self) -> list[Ready]:
        """The requests that got neither `done` nor `error`."""
        return [self._batch[row] for row in sorted(self._open)]

    def generate(self) -> None:
        """Runs the batch to its end."""
        from transformers import DynamicCache, StoppingCriteriaList

        from erv.answering.watching import Watcher
        from erv.policies.common.generate import encode, generate
        from erv.shards import hears

        policy = self._predictor.policy
        clips = [self._predictor.clip(str(number), item.seen) for number, item in enumerate(self._batch)]
        self._prompts = [
            policy.processor.prompt_ids(question, audio=hears(clip))
            for question, clip in zip(self._questions, clips, strict=True)
        ]
        tokenizer = policy.processor.tokenizer
        self._watcher = Watcher(self._limits, tokenizer.eos_token_id, self._is_cancelled, self._on_tokens)
        self._cache: DynamicCache = DynamicCache(config=policy.model.config)
        generate(
            policy,
            encode(policy, clips),
            self._prompts,
            policy.processor.question_inputs(),
            max_new_tokens=max(self._limits),
            further={
                "streamer": self._watcher,
                "stopping_criteria": StoppingCriteriaList([self._watcher]),
                "past_key_values": self._cache,
            },
        )

    def _is_cancelled(self, row: int) -> bool:
        return self._batch[row].cancelled()

    def _on_tokens(self, found: Sequence[tuple[int, str | None]]) -> None:
        from erv.policies.common.generate import text_of

        fresh: list[tuple[int, str]] = []
        for row, ended in found:
            if ended == "cancelled":
                self._last(row, Error(CANCELLED, "cancelled"))
                continue
            growing = self._growing[row]
            whole = text_of(self._predictor.policy, self._watcher.tokens[row])
            text = growing.more(whole, ended=ended is not None)
            if text:
                self.spoke = True
                if self._first[row] is None:
                    self._first[row] = time.monotonic()
                self._batch[row].tell(Token(text))
                fresh += [(row, said) for said in growing.sentences(ended=ended is not None)]
            elif ended is not None:
                fresh += [(row, said) for said in growing.sentences(ended=True)]
        self._score(fresh)
        for row, ended in found:
            if ended in ("stop", "length"):
                self._finish(row, ended)

    def _score(self, fresh: Sequence[tuple[int, str]]) -> None:
        """Lets the verifier read the sentences that ended with this step, of all rows together."""
        if not fresh:
            return
        from erv.answering.verdicts import verdicts

        read = verdicts(self._predictor.verifier, [text for _, text in fresh])
        for (row, text), (scores, labels) in zip(fresh, read, strict=True):
            said = Sentence(len(self._sentences[row]), text, scores, labels)
            self._sentences[row].append(said)
            self._batch[row].tell(said)

    def _finish(self, row: int, ended: Any) -> None:
        from erv.answering.scores import Written, answer_scores
        from erv.policies.common.generate import text_of
        from erv.prompts import parse_completion

        item, predictor, tokens = self._batch[row], self._predictor, self._watcher.tokens[row]
        completion = text_of(predictor.policy, tokens)
        parsed = parse_completion(completion)
        dataset = item.request.dataset
        scores: Mapping[str, float] = {}
        if parsed.answer:
            width = max(map(len, self._prompts))
            written = Written(self._cache, row, self._prompts[row], width, tokens)
            scores = answer_scores(predictor.policy, written, partial(self._words, dataset))
        item.tell(Answer(parsed.answer, scores))
        read = predictor.read(completion, parsed.answer, dataset)
        now = time.monotonic()
        first = self._first[row]
        self._last(
            row,
            Done(
                answer=parsed.answer,
                explanation=parsed.explanation,
                completion=completion,
                agreement=read.share,
                sentences=_judged(self._sentences[row], read),
                ended=ended,
                usage=Usage(len(self._prompts[row]), len(tokens)),
                seconds=Seconds(
                    round(item.decoding, 3),
                    None if first is None else round(first - item.received, 3),
                    round(now - item.received, 3),
                ),
                tokens_per_second=round(len(tokens) / max(now - self._begun, 1e-9), 2),
            ),
        )

    def _last(self, row: int, event: Event) -> None:
        self._open.discard(row)
        self._batch[row].tell(event)


def _judged(said: Sequence[Sentence], read: Agreement) -> tuple[Sentence, ...]:
    """The sentences as they were said, with what the reading of the whole explanation says of each."""
    agrees = {normalize(one.text): one.agrees for one in read.sentences}
    return tuple(
        Sentence(one.index, one.text, one.scores, one.labels, agrees.get(normalize(one.text))) for one in said
    )
