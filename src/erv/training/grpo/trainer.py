"""GRPO for policies that see and hear, as a subclass of TRL's trainer.

TRL's `GRPOTrainer` (1.16) supports only images. `OmniGRPOTrainer` overrides the following methods and copies
none:

- `_generate_and_score_completions` encodes the distinct clips of a batch once, without gradient, into a side
  table, and adds `clip_index` (row -> clip) to the batch that TRL carries along. TRL indexes every tensor of
  a batch by row, so the features themselves can't be part of the batch.
- `_tokenize_prompts` adds the features to the fields that TRL passes to `generate()`. For a policy that
  answers without thinking it also adds the given beginning of the completion to each prompt.
- `_generate_single_turn` and `_get_per_token_logps_and_entropies` run the prompt once per clip instead of
  once per completion, and no padding (`erv.training.grpo.decode` and `erv.training.grpo.scoring`).
  `share_prompts=False` runs it once per completion, and tests compare the two.
- `_calculate_rewards` keeps the completions that the rewards see. Together with what they earned, they become
  the `Generation` that is passed to the watcher. With credit by sentence it also keeps what the rewards say
  of sentences, and `_generate_and_score_completions` turns TRL's advantages [B] into advantages [B, T], which
  TRL's loss takes as they are (`erv.training.grpo.credit`).
- `_compute_loss` passes `clip_index` to scoring, and stops if the loss is not finite.
  With an `engine`, TRL multiplies the loss by the ratio of the policy's probabilities to the engine's.
- `_save_checkpoint` writes the completion record.

There is no telemetry and no model card. The objective is TRL's; `erv.training.grpo.grpo` sets it to the
paper's. With several processes each has its own rows, clips and side table, and TRL gathers rewards and
metrics.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate.utils import gather_object
from transformers import PreTrainedModel
from trl import GRPOTrainer
from trl.models import unwrap_model_for_generation

from erv.checkpoints import PREFIX, keep_newest, mark_complete
from erv.policies.common.policy import beginning_ids, token_positions
from erv.prompts import completion_text
from erv.training.common.adapters import is_sharded
from erv.training.common.recomputing import is_recomputing
from erv.training.grpo.collapse import Diverged
from erv.training.grpo.credit import Verdicts, by_token, divisors, shares, stretches, token_spans
from erv.training.grpo.decode import write_completions, write_plainly
from erv.training.grpo.engine.agreement import agreement
from erv.training.grpo.engine.client import EngineClient, Sampling
from erv.training.grpo.engine.prompts import check_embeds, embedded_prompts
from erv.training.grpo.engine.text_model import text_weights
from erv.training.grpo.generation import COLUMNS, Generation, Stretch
from erv.training.grpo.grouped_attention import use_grouped_attention
from erv.training.grpo.kept import Kept, load_kept, save_kept
from erv.training.grpo.sampling import (
    GenerationSeeds,
    NotFiniteError,
    Sampler,
    completion_seeds,
    uniform_numbers,
)
from erv.training.grpo.scoring import score_packed, score_plain
from erv.training.grpo.shared_prompts import SharedPrompt, distinct_rows
from erv.training.grpo.static_decode import write_with_static_cache
from erv.training.grpo.token_scores import TokenScores, add_token_scores

Tensors = dict[str, torch.Tensor]
_ANSWERED_AT_ONCE = 32  # held-out clips


class GenerationWatcher(Kept, Protocol):
    """Sees everything that is generated; see `erv.training.grpo.watch`."""

    def on_generation(self, generation: Generation) -> None:
        """Takes the completions of a step from all processes; called in every process."""

    def last_good(self) -> int | None:
        """The step whose checkpoint must not be deleted; None if any may be."""


def _after(beginning: str, completion: Any) -> Any:
    """A completion as TRL hands it to rewards, after its given beginning."""
    text = f"{beginning}{completion_text(completion)}"
    return text if isinstance(completion, str) else [{**completion[0], "content": text}]


class OmniGRPOTrainer(GRPOTrainer):
    """`trl.GRPOTrainer` for rows `{"prompt": messages, "clip": key, ...}` and a policy that takes features.

    The model follows the contract of `erv.policies`: its inner model (`base_model`) takes `clip_index` and
    clip features, returns `last_hidden_state`, and fills a key-value cache.
    """

    def __init__(
        self,
        *args: Any,
        clip_features: Callable[[Sequence[str]], Tensors],
        question: Tensors | None = None,
        share_prompts: bool = True,
        static_decode: bool = False,
        credit_sentences: bool = False,
        begins: str = "",
        greedy_rollout: bool = False,
        engine: EngineClient | None = None,
        keep_checkpoints: int = 2,
        watcher: GenerationWatcher | None = None,
        kept: Sequence[Kept] = (),
        **kwargs: Any,
    ) -> None:
        """Takes the arguments of `trl.GRPOTrainer`, and more.

        Args:
            *args: as in TRL.
            clip_features: maps clip keys to features stacked by clip, see
                `erv.training.common.clip_features`.
            question: further inputs of the inner model that are the same for every clip.
            share_prompts: whether to run each prompt once for all its completions. Always off with gradient
                checkpointing of sharded weights, where it is not tested.
            static_decode: whether to generate with a cache of fixed size, on a GPU as a CUDA graph
                (`erv.training.grpo.static_decode`). For weights that aren't sharded, and shared prompts.
            credit_sentences: whether the tokens of a sentence get an advantage of their own from rewards that
                judge sentences; `reward_funcs` must then be `CheckedReward`s that keep credits.
            begins: what every completion begins with: given to the policy, and shown to the rewards.
            greedy_rollout: whether the first completion of each group in training takes the most probable
                tokens, as an evaluation does. Not with an engine.
            engine: writes the completions in place of the policy. For one process, weights that aren't
                sharded and a policy that `check_embeds` accepts.
            keep_checkpoints: how many complete checkpoints to keep.
            watcher: receives every generation of training. With a watcher, `reward_funcs` must be
                `CheckedReward`s.
            kept: state to save in checkpoints besides the watcher's, so that a resumed run continues exactly
                like the interrupted one.
            **kwargs: as in TRL.
        """
        self._clip_features = clip_features
        self._question = question or {}
        self._table: dict[
            str, Tensors
        ] = {}  # per mode: an evaluation must not take the table of buffered rows
        self._clip_index: torch.Tensor | None = None
        self._keep_checkpoints = keep_checkpoints
        self._watcher = watcher
        self._kept = [*([] if watcher is None else [watcher]), *kept]
        self._completions: list[str] = []  # the completions that were scored last
        self._credit_sentences, self._begins = credit_sentences, begins
        self._greedy_rollout = greedy_rollout
        self._verdicts: Verdicts | None = None  # on their sentences
        self._greedy = False  # whether all rows take the most probable tokens
        super().__init__(*args, **kwargs)
        self._seeds = GenerationSeeds(self.args.seed, self.accelerator.process_index)
        models = [model for model in (self.model, self.ref_model) if model is not None]
        self.share_prompts = (
            share_prompts
            and not (is_recomputing(self.args) and is_sharded(self))
            and all(use_grouped_attention(self._inner(model)) for model in models)
        )
        self.static_decode = static_decode
        self._engine = engine
        if engine is not None:
            check_embeds(self._policy(self.model))
            # From here on TRL asks only whether to correct for the log-probabilities that
            # `_generate_single_turn` returns; its own vLLM would have been started above.
            self.use_vllm = True
        for model in models:
            add_token_scores(self._policy(model), self.temperature)
        self._question = {name: value.to(self.accelerator.device) for name, value in self._question.items()}

    # --- the side table ---

    @property
    def _mode(self) -> str:
        return "train" if self.model.training else "eval"

    @contextmanager
    def _rows_of_clips(self, clip_index: torch.Tensor) -> Iterator[None]:
        """Inside the block, the rows being generated or scored belong to these clips of the side table."""
        self._clip_index = clip_index
        try:
            yield
        finally:
            self._clip_index = None

    def _features_of(self, clip_index: torch.Tensor) -> Tensors:
        """Model inputs for rows of clips: features of the distinct clips, and `clip_index` into them."""
        clips, index = torch.unique(clip_index, return_inverse=True)
        table = self._table[self._mode]
        features = {name: value[clips] for name, value in table.items()}
        return features | self._question | {"clip_index": index}

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        self.check_weights(self.state.global_step + 1)  # before sampling from them fails with a cryptic error
        self._seeds.begin(self.state.global_step, training=self._mode == "train")
        keys = [row["clip"] for row in inputs]
        place = {key: position for position, key in enumerate(dict.fromkeys(keys))}
        device = self.accelerator.device
        with torch.no_grad():
            features = self._clip_features(list(place))
        self._table[self._mode] = {name: value.to(device) for name, value in features.items()}
        clip_index = torch.tensor([place[key] for key in keys], device=device)
        with self._rows_of_clips(clip_index):
            try:
                output: dict[str, Any] = super()._generate_and_score_completions(inputs)
            except RuntimeError as error:
                # Finite weights whose logits are not; the text is that of `torch.multinomial`.
                if isinstance(error, NotFiniteError) or "probability tensor" in str(error):
                    raise self._diverged("the policy's output") from error
                raise
        if self._engine is not None:
            self._report_agreement(output)
        credits: list[list[Stretch]] = []
        plain = output["advantages"].tolist()
        if self._verdicts is not None:
            output["advantages"], credits = self._credited(output)
        if self._watcher is not None and self._mode == "train":
            own = self._own_generation(inputs, output, plain, credits)
            self._watcher.on_generation(Generation.join(gather_object([own])))
        output["clip_index"] = clip_index
        return output

    def _report_agreement(self, output: dict[str, Any]) -> None:
        found = agreement(
            output["old_per_token_logps"],
            output["sampling_per_token_logps"],
            output["completion_mask"],
            self.vllm_importance_sampling_clip_max,
        )
        for name, value in found.items():
            self._metrics[self._mode][name].append(value)

    def _calculate_rewards(
        self, inputs: list[dict[str, Any]], prompts: Any, completions: list[Any], completion_ids_list: Any
    ) -> torch.Tensor:
        if self._begins:
            completions = [_after(self._begins, completion) for completion in completions]
        self._completions = [completion_text(completion) for completion in completions]
        rewards: torch.Tensor = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        if self._credit_sentences:
            self._verdicts = self._read_sentences(completion_ids_list, rewards)
        return rewards

    # --- credit by sentence ---

    def _read_sentences(self, ids: list[list[int]], rewards: torch.Tensor) -> Verdicts:
        """What the rewards said of the sentences of this process's completions.

        Args:
            ids: tokens of its B completions.
            rewards: of all processes, [N, rewards]; NaN where a completion can't be scored.
        """
        weights = self.reward_weights.tolist()
        judged = [
            (weight, reward.credits)
            for weight, reward in zip(weights, self.reward_funcs, strict=True)
            if reward.credits is not None
        ]
        given = len(self._begins)
        spans = [
            [(given + start, given + end) for start, end in token_spans(self._tokenizer, row, text[given:])]
            for row, text in zip(ids, self._completions, strict=True)
        ]
        moved = [
            shares(own, [(weight, credits[row]) for weight, credits in judged])
            for row, own in enumerate(spans)
        ]
        totals = (rewards * self.reward_weights.to(rewards.device)).nansum(dim=1)
        totals[rewards.isnan().all(dim=1)] = torch.nan
        within = torch.stack([value.square().mean() for value in moved]).to(rewards.device)
        return Verdicts(spans, moved, totals, self.accelerator.gather(within))

    def _credited(self, output: dict[str, Any]) -> tuple[torch.Tensor, list[list[Stretch]]]:
        """Advantages [B, T] of the tokens, and where they differ within a completion."""
        assert self._verdicts is not None
        verdicts, plain = self._verdicts, output["advantages"]
        generations = self.num_generations if self._mode == "train" else self.num_generations_eval
        divided, divides = divisors(verdicts.totals, verdicts.within, self.scale_rewards, generations)
        first = self.accelerator.process_index * len(plain)
        own = slice(first, first + len(plain))
        moved = torch.zeros_like(output["completion_mask"], dtype=plain.dtype)
        for row, value in enumerate(verdicts.moved):
            moved[row, : len(value)] = value.to(moved)
        advantages = by_token(plain, moved, divided[own], divides[own])
        found = [
            stretches(spans, value.tolist(), row[: len(value)])
            for spans, value, row in zip(verdicts.spans, verdicts.moved, advantages.tolist(), strict=True)
        ]
        self._verdicts = None
        return advantages, found

    def _own_generation(
        self,
        inputs: list[dict[str, Any]],
        output: dict[str, Any],
        advantages: list[float],
        credits: list[list[Stretch]],
    ) -> Generation:
        """What this process has sampled, with its rewards, TRL's advantages and the credit of sentences."""
        return Generation(
            step=self.state.global_step + 1,
            group=self.num_generations,
            completions=self._completions,
            rewards={reward.__name__: reward.values for reward in self.reward_funcs},
            weights=dict(zip(self.reward_func_names, self.reward_weights.tolist(), strict=True)),
            advantages=advantages,
            columns={name: [row[name] for row in inputs] for name in COLUMNS if name in inputs[0]},
            prompt_tokens=int(output["prompt_mask"].sum()),
            completion_tokens=int(output["completion_mask"].sum()),
            credits=credits,
        )

    def _tokenize_prompts(self, prompts: list[Any]) -> tuple[list[list[int]], Any, dict[str, Any]]:
        # The prompts of a batch are mostly the same text: tokenize each distinct one once.
        texts = [json.dumps(prompt, sort_keys=True) for prompt in prompts]
        place = {text: position for position, text in enumerate(dict.fromkeys(texts))}
        distinct = [prompts[texts.index(text)] for text in place]
        prompt_ids, images, fields = super()._tokenize_prompts(distinct)
        if self._begins:
            given = beginning_ids(self._tokenizer, self._begins)
            prompt_ids = [[*ids, *given] for ids in prompt_ids]
        rows = [place[text] for text in texts]
        fields = {name: [values[row] for row in rows] for name, values in fields.items()}
        assert self._clip_index is not None
        fields |= self._features_of(self._clip_index)
        return [prompt_ids[row] for row in rows], images, fields

    # --- one prompt for all its completions ---

    def _prompt_of(
        self, model: Any, prompt_ids: torch.Tensor, prompt_mask: torch.Tensor, clip_index: torch.Tensor
    ) -> SharedPrompt:
        """Prompts of rows, padded on the left, once per distinct prompt and clip."""
        first, group_of_row = distinct_rows(torch.cat([prompt_ids, clip_index.unsqueeze(1)], dim=1))
        ids, mask = prompt_ids[first], prompt_mask[first]
        inputs = {
            "input_ids": ids,
            "attention_mask": mask,
            "position_ids": self._positions(model, ids, mask),
            **self._features_of(clip_index[first]),
        }
        return SharedPrompt(inputs, group_of_row)

    def _policy(self, model: Any) -> Any:
        """The model below wrappers and adapters."""
        model = self.accelerator.unwrap_model(model)
        return model if isinstance(model, PreTrainedModel) else model.get_base_model()

    def _inner(self, model: Any) -> Any:
        """The model below wrappers, adapters and language head."""
        return self._policy(model).base_model

    def _positions(self, model: Any, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Position of each token in its row, along the last axis, as the policy counts them."""
        return token_positions(self._policy(model), ids, mask)

    def _generate_single_turn(
        self,
        prompt_ids: list[list[int]],
        images: Any,
        multimodal_fields: dict[str, Any],
        num_generations: int,
        has_tool_images: bool = False,
    ) -> tuple[list[list[int]], list[list[float]] | None]:
        assert self._clip_index is not None
        device = self.accelerator.device
        length = max(len(ids) for ids in prompt_ids)
        pad_id = self._tokenizer.pad_token_id
        ids = torch.tensor([[pad_id] * (length - len(row)) + row for row in prompt_ids], device=device)
        mask = torch.tensor([[0] * (length - len(row)) + [1] * len(row) for row in prompt_ids], device=device)
        with (
            unwrap_model_for_generation(
                self.model_wrapped,
                self.accelerator,
                gather_deepspeed3_params=self.args.ds3_gather_for_generation,
                generation_kwargs=self.generation_kwargs,
            ) as model,
            torch.no_grad(),
            self._dist.summon_full_params(self.model_wrapped, recurse=False),
            self.accelerator.autocast(),
        ):
            if self._engine is not None and not self._greedy:  # it only draws
                return self._write_by_engine(self._prompt_of(model, ids, mask, self._clip_index))
            sampler = self._sampler(len(ids), device)
            if not self.share_prompts:
                plain = {"input_ids": ids, "attention_mask": mask, **self._features_of(self._clip_index)}
                written = write_plainly(model, plain, sampler, self.generation_config)
                return [self._until_end(row) for row in written], None
            prompt = self._prompt_of(model, ids, mask, self._clip_index)
            if self.static_decode:
                written = write_with_static_cache(
                    model,
                    self._policy(model),
                    prompt,
                    sampler,
                    ends=self.eos_token_ids,
                    limit=self.max_completion_length,
                )
                return written, None
            completions = write_completions(
                model,
                self._inner(model),
                prompt,
                sampler,
                ends=self.eos_token_ids,
                limit=self.max_completion_length,
                everyone=self._all_done if is_sharded(self) else bool,
            )
        return completions, None

    def _write_by_engine(self, prompt: SharedPrompt) -> tuple[list[list[int]], list[list[float]]]:
        """Tokens and log-probabilities of each row; weights are handed over if a step has changed them."""
        assert self._engine is not None
        policy = self._policy(self.model)
        groups = prompt.group_of_row.tolist()
        amp = {"bf16": torch.bfloat16, "fp16": torch.float16}
        dtype = amp.get(self.accelerator.mixed_precision, torch.float32)
        torch.cuda.empty_cache()  # what this process has freed is what vLLM wakes up in
        seeds = self._seeds.of(self.state.global_step, training=self._mode == "train")
        written = self._engine.write(
            lambda: text_weights(policy, dtype),
            self.state.global_step,
            [row.to(dtype) for row in embedded_prompts(policy.base_model, prompt)],
            list(zip(groups, completion_seeds(seeds, len(groups)), strict=True)),
            Sampling(
                temperature=self.temperature,
                limit=self.max_completion_length,
                ends=tuple(self.eos_token_ids),
                suppressed=tuple(self.generation_config.suppress_tokens or ()),
            ),
        )
        return written.tokens, written.log_probs

    def _until_end(self, completion: list[int]) -> list[int]:
        """A completion up to and including the first end token."""
        ends = [completion.index(token) for token in set(self.eos_token_ids) if token in completion]
        return completion[: min(ends) + 1] if ends else completion

    def _sampler(self, rows: int, device: torch.device) -> Sampler:
        """Draws the tokens of this step's rows in this process; see `erv.training.grpo.sampling`."""
        seeds = self._seeds.of(self.state.global_step, training=self._mode == "train")
        numbers = uniform_numbers(seeds, rows, self.max_completion_length).to(device)
        suppressed = self.generation_config.suppress_tokens or ()
        greedy = None
        if self._greedy:
            greedy = torch.ones(rows, dtype=torch.bool, device=device)
        elif self._greedy_rollout and self._mode == "train":
            # Groups are consecutive over all processes, and may begin in the one before.
            first = self.accelerator.process_index * rows
            greedy = torch.arange(first, first + rows, device=device) % self.num_generations == 0
        return Sampler(numbers, self.temperature, suppressed, greedy)

    def _all_done(self, done: bool) -> bool:
        """Whether this and all other processes are done with a generation."""
        return all(gather_object([done]))

    def _get_per_token_logps_and_entropies(
        self,
        model: Any,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        compute_entropy: bool = False,
        compute_aux_loss: bool = False,
        **images: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        """Log-probabilities (and entropies) of the last `logits_to_keep` tokens of each row.

        Args:
            model: the policy or the reference.
            input_ids: prompt and completion, long [B, P + C].
            attention_mask: [B, P + C].
            logits_to_keep: C.
            batch_size: rows per forward pass; all rows if None.
            compute_entropy: whether to return entropies too.
            compute_aux_loss: for mixtures of experts, which are not supported.
            **images: TRL's own image arguments, all empty here.

        Returns:
            Log-probabilities [B, C], entropies [B, C] or `None`, and `None`.
        """
        assert self._clip_index is not None
        log_probs, entropies = [], []
        for rows in torch.arange(input_ids.size(0), device=input_ids.device).split(
            batch_size or input_ids.size(0)
        ):
            with self.accelerator.autocast():
                outputs = self._score(
                    model, input_ids[rows], attention_mask[rows], logits_to_keep, self._clip_index[rows]
                )
            log_probs.append(outputs.log_probs)
            if compute_entropy:
                assert outputs.entropy is not None
                entropies.append(outputs.entropy)
        return torch.cat(log_probs), torch.cat(entropies) if compute_entropy else None, None

    def _score(
        self, model: Any, ids: torch.Tensor, mask: torch.Tensor, keep: int, clip_index: torch.Tensor
    ) -> TokenScores:
        positions = self._positions(model, ids, mask)
        rows = (ids, mask, positions, keep, clip_index, self._features_of)
        return (
            score_packed(model, self._inner(model), *rows)
            if self.share_prompts
            else score_plain(model, *rows)
        )

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        with self._rows_of_clips(inputs["clip_index"]):
            loss: torch.Tensor = super()._compute_loss(model, inputs)
        self._check_finite("the loss", [loss])
        return loss

    def check_weights(self, step: int) -> None:
        """Raises `Diverged`, naming this step, if a trained weight is not finite."""
        trained = (value for value in self.model.parameters() if value.requires_grad)
        self._check_finite("a weight", trained, step)

    def _check_finite(self, name: str, values: Iterable[torch.Tensor], step: int | None = None) -> None:
        if not all(bool(torch.isfinite(value).all()) for value in values):
            raise self._diverged(name, step)

    def _diverged(self, name: str, step: int | None = None) -> Diverged:
        return Diverged(
            f"grpo step {step or self.state.global_step + 1}: {name} is not finite; "
            "lower grpo.learning_rate or check the rewards"
        )

    # --- held-out clips ---

    @torch.no_grad()
    def greedy_answers(self, rows: Sequence[dict[str, Any]]) -> list[str]:
        """What the policy answers to rows with the most probable tokens; training notices nothing of it.

        With several processes each calls this with the same rows.

        Args:
            rows: `{"prompt": messages, "clip": key, ...}`.

        Returns:
            Whole completions, with the given beginning if there is one.
        """
        training, before = self.model.training, self._table.pop("eval", None)
        self.model.eval()
        self._greedy = True
        answers: list[str] = []
        try:
            for start in range(0, len(rows), _ANSWERED_AT_ONCE):
                batch = rows[start : start + _ANSWERED_AT_ONCE]
                keys = [row["clip"] for row in batch]
                place = {key: position for position, key in enumerate(dict.fromkeys(keys))}
                device = self.accelerator.device
                features = self._clip_features(list(place))
                self._table["eval"] = {name: value.to(device) for name, value in features.items()}
                with self._rows_of_clips(torch.tensor([place[key] for key in keys], device=device)):
                    ids, images, fields = self._tokenize_prompts([row["prompt"] for row in batch])
                    written, _ = self._generate_single_turn(ids, images, fields, 1)
                texts = self._tokenizer.batch_decode(written, skip_special_tokens=True)
                answers += [f"{self._begins}{text}" for text in texts]
        finally:
            self._greedy = False
            self.model.train(training)
            self._table.pop("eval", None)
            if before is not None:
                self._table["eval"] = before
        return answers

    # --- checkpoints, and what we leave out ---

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        self.check_weights(self.state.global_step)  # nothing must resume from broken weights
        super()._save_checkpoint(model, trial)
        folder = Path(self.args.output_dir)
        checkpoint = folder / f"{PREFIX}{self.state.global_step}"
        save_kept(self._kept, checkpoint, self.accelerator.process_index)
        self.accelerator.wait_for_everyone()  # the record covers what all processes have written
        if self.accelerator.is_main_process:
            mark_complete(checkpoint)
            good = None if self._watcher is None else self._watcher.last_good()
            keep_newest(folder, self._keep_checkpoints, last_good=good)
        self.accelerator.wait_for_everyone()

    def load_kept(self, checkpoint: Path) -> None:
        """Restores the watcher and `kept` from a checkpoint; `train` resumes everything else."""
        load_kept(self._kept, checkpoint, self.accelerator.process_index)

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Writes nothing: the card belongs to the registered bundle."""

    def _send_telemetry(self) -> None:
        """Sends nothing."""
