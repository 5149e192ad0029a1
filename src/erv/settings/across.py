"""Checks across sections of `params.yaml`; each yields its faults as sentences that name the parameters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from erv.settings.register import EVERY, MAJORITY

if TYPE_CHECKING:
    from erv.settings.settings import Settings

EMBEDS = ("humanomni",)  # families that vLLM can continue from embeddings
COLD_START = "sft"  # the policy that no variant trains
TRAINED = "models/policy/"  # where the policies of a run are


def faults(settings: Settings) -> list[str]:
    """Everything that does not fit together."""
    checks = (
        _datasets,
        _roles,
        _unexplained,
        _shown,
        _arms,
        _gates,
        _controls,
        _rollouts,
        _shares,
        _passes,
        _saved,
        _means,
        _adapters,
        _engine,
        _study,
    )
    return [fault for check in checks for fault in check(settings)]


def written_by_vllm(settings: Settings) -> tuple[str, ...]:
    """The trained variants whose completions come from vLLM; `rft` always writes with transformers."""
    if settings.grpo.generation != "vllm":
        return ()
    known = settings.variants
    return tuple(name for name in settings.compare.train if name in known and known[name].method == "grpo")


def _twice(name: str, what: str, values: Sequence[str]) -> Iterator[str]:
    if len(set(values)) != len(values):
        yield f"{name} names {what} twice: {', '.join(values)}"


def _datasets(settings: Settings) -> Iterator[str]:
    """Each data set has a reader and a source."""
    yield from _twice("datasets", "one", settings.datasets)
    for name in settings.datasets:
        if name not in settings.ingest.readers:
            yield f"datasets names {name!r}, which has no entry under ingest.readers"
        if name not in settings.sources.model_dump():
            yield f"datasets names {name!r}, which has no entry under sources"


def _roles(settings: Settings) -> Iterator[str]:
    """Every data set with a role is one of `datasets`."""
    roles = settings.roles
    if "overall" in settings.datasets:
        yield "datasets names 'overall', which stands for all data sets together; choose another name"
    for role, names in (("cold_start", (roles.cold_start,)), ("train", roles.train), ("test", roles.test)):
        yield from _twice(f"roles.{role}", "a data set", names)
        for name in names:
            if name not in settings.datasets:
                yield f"roles.{role} names {name!r}, expected one of datasets: {', '.join(settings.datasets)}"


def explained(settings: Settings) -> bool:
    """Whether the cold start's data set comes with explanations to learn from."""
    reader = settings.ingest.readers.get(settings.roles.cold_start)
    return reader is None or reader.reader == "reasoning"  # one without a reader is a fault of its own


def _unexplained(settings: Settings) -> Iterator[str]:
    """What is learned from explanations needs a data set that has some."""
    if explained(settings):
        return
    name = settings.roles.cold_start
    if settings.sft.max_steps != 0:
        yield (
            f"roles.cold_start is {name!r}, which has no explanations for sft to learn from; name a reasoning"
            " set, or set sft.max_steps: 0 and put a policy that explains already under policy/ of the source"
            " base"
        )


def _shown(settings: Settings) -> Iterator[str]:
    """The report shows clips of data sets that exist; a name misspelt would show none, without a word."""
    known = settings.ingest.readers
    licensed = sorted({"mafw", "mafw_compound", "dfew"} & set(settings.report.show_media))
    if settings.ingest.expect == "full" and licensed:
        yield (
            f"report.show_media names {', '.join(licensed)}, whose clips the report may not pass on, and"
            " ingest.expect: full says that they are the real ones; set report.show_media: []"
        )
    for name in settings.report.show_media:
        if name not in known:
            yield f"report.show_media names {name!r}, expected some of ingest.readers: {', '.join(known)}"


def _arms(settings: Settings) -> Iterator[str]:
    """Every trained policy is a variant, and every evaluated policy is trained."""
    train, policies = settings.compare.train, settings.compare.policies
    if COLD_START in settings.variants:
        yield f"variants has an entry {COLD_START}, the name of the cold start; choose another name"
    yield from _twice("compare.train", "a variant", train)
    for name in train:
        if name not in settings.variants:
            yield f"compare.train names {name!r}, expected some of {', '.join(sorted(settings.variants))}"
    trained = [COLD_START, *train]
    known = [*trained, *(arm.name for arm in settings.arms)]
    for name in policies:
        if name not in known:
            yield f"compare.policies names {name!r}, expected some of {', '.join(known)}"
    yield from _twice("compare.policies", "one", policies)
    pairs = Counter(f"{later}-{earlier}" for i, later in enumerate(policies) for earlier in policies[:i])
    for pair in (pair for pair, count in pairs.items() if count > 1 and len(set(policies)) == len(policies)):
        yield f"compare.policies: two pairs would be called {pair!r} in the report; rename a policy"
    yield from _twice("arms", "one", [arm.name for arm in settings.arms])
    for arm in settings.arms:
        if arm.name == COLD_START or arm.name in settings.variants:
            yield f"arms has an entry {arm.name}, the name of a policy that is trained; choose another name"
        folder = arm.folder.removeprefix("./")
        if folder.startswith(TRAINED) and folder.removeprefix(TRAINED).strip("/") not in trained:
            yield (
                f"arms.{arm.name}.folder is {arm.folder!r}, which this run doesn't train, expected"
                f" {TRAINED}NAME with one of {', '.join(trained)}, or a folder elsewhere"
            )


def _gates(settings: Settings) -> Iterator[str]:
    """The registered policy, and those it is compared with, are evaluated."""
    known = settings.compare.policies
    wanted = {"register.policy": settings.register_.policy}
    for gate in settings.register_.gates:
        if gate.against not in (None, "champion"):
            wanted[f"register.gates[{gate.metric}].against"] = str(gate.against)
    judges = [judge.name for judge in settings.evaluate.judges]
    for gate in settings.register_.gates:
        if gate.judge not in (None, EVERY, MAJORITY, *judges):
            yield (
                f"register.gates[{gate.metric}].judge is {gate.judge!r}, expected {EVERY}, {MAJORITY} or one"
                f" of evaluate.judges: {', '.join(judges)}"
            )
    untrained = {arm.name for arm in settings.arms}
    if settings.register_.policy in untrained:
        yield (
            f"register.policy is {settings.register_.policy!r}, an arm that is only evaluated; register a"
            " policy that is trained"
        )
    for key, name in wanted.items():
        if name not in known:
            yield f"{key} is {name!r}, expected one of {', '.join(sorted(set(known)))}"


def _controls(settings: Settings) -> Iterator[str]:
    """Only a policy that is evaluated can be compared with itself."""
    for name in settings.controls.policies:
        if name not in settings.compare.policies:
            yield (
                f"controls.policies names {name!r}, expected some of {', '.join(settings.compare.policies)}"
                " (compare.policies)"
            )
    yield from _twice("controls.policies", "one", settings.controls.policies)
    yield from _twice("controls.kinds", "one", settings.controls.kinds)


def _rollouts(settings: Settings) -> Iterator[str]:
    """Only the cold start is there before the verifier, and a teacher has to read what it says."""
    for name in settings.rollouts.policies:
        if name != COLD_START:
            yield (
                f"rollouts.policies names {name!r}, expected {COLD_START} or nothing, because the verifier is"
                " trained before the variants"
            )
    kinds = {teacher.kind for teacher in settings.distill.teachers}
    if settings.rollouts.policies and "reference" in kinds:
        yield (
            "rollouts.policies needs teachers that read, openai or local; reference labels only the sentences"
            " of the corpus"
        )


def _shares(settings: Settings) -> Iterator[str]:
    if settings.distill.validation_share + settings.distill.test_share >= 0.8:
        yield "distill.validation_share + distill.test_share leave under 20% to train on"


def _passes(settings: Settings) -> Iterator[str]:
    """A step divides evenly among processes, and the share of each among passes."""
    machine, grpo, sft = settings.machine, settings.grpo, settings.sft
    completions = grpo.prompts_per_step * grpo.num_generations
    for what, rows, parameter, per_pass in (
        (
            "grpo.prompts_per_step x grpo.num_generations",
            completions,
            "machine.grpo.rows_per_pass",
            machine.grpo.rows_per_pass,
        ),
        ("sft.batch_size", sft.batch_size, "machine.sft.rows_per_pass", machine.sft.rows_per_pass),
    ):
        own = rows // machine.processes
        if rows % machine.processes:
            yield f"machine.processes ({machine.processes}) must divide {what}, {rows}"
        elif per_pass is not None and own % per_pass:
            share = "" if machine.processes == 1 else "the share of a process of "
            yield f"{parameter} ({per_pass}) must divide {share}{what}, {own}"


def _saved(settings: Settings) -> Iterator[str]:
    """TRL keeps a generation's completions only in memory: a checkpoint between its updates loses them."""
    saved, updates = settings.machine.grpo.save_steps, settings.grpo.num_iterations
    if saved % updates:
        yield (
            f"machine.grpo.save_steps ({saved}) must be a multiple of grpo.num_iterations ({updates}): a"
            " checkpoint can't fall between updates on the same completions"
        )


def _means(settings: Settings) -> Iterator[str]:
    """No pass of a step averages over itself alone: the update would be another one."""
    passes = settings.machine.grpo.rows_per_pass
    if settings.grpo.loss_type == "bnpo" and passes is not None:
        yield (
            f"machine.grpo.rows_per_pass is {passes} and grpo.loss_type bnpo, which averages over the tokens"
            " of one pass, so the result would depend on it; use rows_per_pass: null or loss_type: dapo"
        )


def _adapters(settings: Settings) -> Iterator[str]:
    accelerate = settings.machine.accelerate
    for stage, lora in (("sft", settings.sft.lora), ("grpo", settings.grpo.lora)):
        if lora.enabled and accelerate not in (None, "ddp"):
            yield (
                f"{stage}.lora.enabled is true and machine.accelerate {accelerate}: adapters can't be merged"
                " into sharded weights; set machine.accelerate: ddp, or"
                f" {stage}.lora.enabled: false"
            )


def _engine(settings: Settings) -> Iterator[str]:
    """VLLM writes for one process, and for policies whose language model it can continue."""
    if not written_by_vllm(settings):
        return
    machine, family = settings.machine, settings.policy.family
    back = "or grpo.generation: transformers"
    if family not in EMBEDS:
        yield (
            f"grpo.generation is vllm and policy.family {family}, which vLLM can't continue from prompts"
            f" given as embeddings; set policy.family: {', '.join(EMBEDS)}, {back}"
        )
    if machine.accelerate is not None:
        yield (
            f"grpo.generation is vllm and machine.accelerate {machine.accelerate}: vLLM writes for one"
            f" process; set machine.accelerate: null, {back}"
        )
    if settings.grpo.lora.quantize != "none":
        yield (
            f"grpo.generation is vllm and grpo.lora.quantize {settings.grpo.lora.quantize}: adapters can't be"
            f" merged into rounded weights; set quantize: none, {back}"
        )
    if machine.grpo.static_decode:
        yield (
            "grpo.generation is vllm and machine.grpo.static_decode true, which belongs to transformers; set"
            f" static_decode: false, {back}"
        )
    if settings.runtime.device == "cpu":
        yield f"grpo.generation is vllm, which needs a GPU, and runtime.device cpu; set device: cuda, {back}"


def _study(settings: Settings) -> Iterator[str]:
    """People are asked about policies that are evaluated."""
    for name in settings.study.policies:
        if name not in settings.compare.policies:
            known = ", ".join(settings.compare.policies)
            yield f"study.policies names {name!r}, expected some of compare.policies: {known}"
