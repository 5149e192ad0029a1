"""The graph of `dvc.yaml`, which is its only description."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from erv.errors import ExitCode
from erv.files import parse_yaml
from erv.pipeline.lock_file import PipelineError, lock_fault

FILE = "dvc.yaml"


class TargetError(PipelineError):
    """What was asked for by name is no stage, or not the one stage that it has to be."""

    exit_code = ExitCode.USAGE


@dataclass(frozen=True)
class PipelineStage:
    """A stage of `dvc.yaml` after its matrix was expanded.

    Attributes:
        name: as DVC addresses it, such as `grpo@erv`.
        upstream: names of the stages whose outputs it reads, sorted.
        command: the command that DVC runs.
        dependencies: workspace paths of files and folders that it reads, sorted.
        outputs: workspace paths that it writes, sorted.
        parameters: the parameters, or sections of them, that it depends on, sorted.
    """

    name: str
    upstream: tuple[str, ...]
    command: str
    dependencies: tuple[str, ...]
    outputs: tuple[str, ...]
    parameters: tuple[str, ...] = ()

    @property
    def group(self) -> str:
        """The name in `dvc.yaml`: `grpo` for `grpo@erv`."""
        return self.name.partition("@")[0]


def check_definitions(workspace: str | Path = ".") -> None:
    """Makes sure that `dvc.yaml` can be read at all: what DVC does with a damaged one ranges up to a crash.

    Raises:
        PipelineError: it is missing, not YAML, or has no stages.
    """
    path = Path(workspace) / FILE
    try:
        definitions = parse_yaml(path.read_bytes())
    except FileNotFoundError:
        raise PipelineError(f"no {FILE} here; run this from the top of the repository") from None
    except (OSError, ValueError) as error:
        raise PipelineError(f"{FILE}: {error}; restore it from git") from None
    stages = definitions.get("stages") if isinstance(definitions, dict) else None
    if not isinstance(stages, dict) or not stages:
        raise PipelineError(f"{FILE}: no stages found; restore it from git")


def read_stages(workspace: str | Path = ".") -> tuple[PipelineStage, ...]:
    """The stages of the workspace's `dvc.yaml`, each after all that it depends on; ties by name.

    Raises:
        PipelineError: no DVC repository, or a `dvc.yaml` or `dvc.lock` that DVC refuses.
    """
    from dvc.config import ConfigError
    from dvc.dependency import ParamsDependency
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    root = Path(workspace).resolve()
    check_definitions(root)
    try:
        with Repo(str(root)) as repo:
            graph, named = repo.index.graph, named_stages(repo)
            found = {
                stage.name: PipelineStage(
                    name=stage.name,
                    upstream=tuple(sorted(up.name for up in graph.successors(stage) if up in named)),
                    command=str(stage.cmd),
                    dependencies=tuple(sorted({_relative(dep, root) for dep in stage.deps if dep.fs_path})),
                    outputs=tuple(sorted(_relative(out, root) for out in stage.outs)),
                    parameters=tuple(
                        sorted(
                            name
                            for dep in stage.deps
                            if isinstance(dep, ParamsDependency)
                            for name in dep.params
                        )
                    ),
                )
                for stage in named
            }
    except ConfigError as error:
        raise PipelineError(f".dvc: {_one_line(str(error))}; see `erv doctor`") from error
    except DvcException as error:
        raise PipelineError(lock_fault(root) or f"{FILE}: {_one_line(str(error))}") from error
    return tuple(_sorted(found))


def named_stages(repo: Any) -> list[Any]:
    """The stages in `dvc.yaml` of a `dvc.repo.Repo`, as DVC has them.

    To DVC a `.dvc` file is a stage, too, but one without a name: it pins data that no stage makes.
    """
    from dvc.stage import PipelineStage as Named

    return [stage for stage in repo.index.stages if isinstance(stage, Named)]


def select(stages: Sequence[PipelineStage], targets: Iterable[str] | None) -> tuple[PipelineStage, ...]:
    """The stages named by `targets` and all that they need, in the order of `stages`.

    Args:
        stages: from `read_stages`.
        targets: full names (`grpo@erv`) or groups (`grpo`); None or nothing means every stage.

    Raises:
        TargetError: a target names no stage.
    """
    by_name = {stage.name: stage for stage in stages}
    pending = list(named(stages, targets))
    needed: set[str] = set()
    while pending:
        name = pending.pop()
        if name not in needed:
            needed.add(name)
            pending.extend(by_name[name].upstream)
    return tuple(stage for stage in stages if stage.name in needed)


def named(stages: Sequence[PipelineStage], targets: Iterable[str] | None) -> frozenset[str]:
    """The names of the stages that `targets` name, without what they need.

    Args:
        stages: from `read_stages`.
        targets: full names (`grpo@erv`) or groups (`grpo`); None or nothing means every stage.

    Raises:
        TargetError: a target names no stage.
    """
    found: set[str] = set()
    for target in targets or ():
        matches = {stage.name for stage in stages if target in (stage.name, stage.group)}
        if not matches:
            names = ", ".join(stage.name for stage in stages)
            raise TargetError(f"no stage {target!r} in dvc.yaml, expected one of {names}")
        found |= matches
    return frozenset(found or (stage.name for stage in stages))


def one_stage(stages: Sequence[PipelineStage], target: str) -> PipelineStage:
    """The single stage that `target` names.

    Raises:
        TargetError: it names no stage, or several.
    """
    names = named(stages, [target])
    if len(names) > 1:
        raise TargetError(f"{target} is {len(names)} stages, expected one: {', '.join(sorted(names))}")
    return next(stage for stage in stages if stage.name in names)


def _sorted(found: dict[str, PipelineStage]) -> Iterator[PipelineStage]:
    done: set[str] = set()
    while len(done) < len(found):
        ready = sorted(n for n, s in found.items() if n not in done and done.issuperset(s.upstream))
        for name in ready:
            yield found[name]
        done.update(ready)


def _relative(item: Any, root: Path) -> str:
    path = Path(item.fs_path)
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


def _one_line(text: str) -> str:
    return " ".join(text.split())
