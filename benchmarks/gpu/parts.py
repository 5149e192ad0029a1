"""The parts of the GPU proof: what each shows, what it needs, and how long it may take. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

LIMIT = 600  # seconds of a part at most
MINUTES = 25  # of all parts


@dataclass(frozen=True)
class Part:
    """A part of the proof; it runs in a process of its own.

    Attributes:
        name: as `--only` takes it and `gpu_proof.json` keeps it.
        code: module below `benchmarks.gpu` and function, `module:function`; it takes a `Context`.
        shows: what it shows, for people.
        size: size of `benchmarks.grpo_sizes` that it runs at on a GPU.
        on_cpu: whether it says something without a GPU.
        packages: distributions that it needs besides those of all parts.
        optional: whether the proof is whole without it, since these packages are extras.
        gigabytes: memory of the GPU that it needs, in 10^9 bytes.
        disk: free space below TMPDIR that it needs, in 10^9 bytes.
        seconds: its limit.
    """

    name: str
    code: str
    shows: str
    size: str = "0.5b"
    on_cpu: bool = True
    packages: tuple[str, ...] = ()
    optional: bool = False
    gigabytes: float = 16.0
    disk: float = 8.0
    seconds: int = 300


# In the order of what a short machine's time is best spent on.
PARTS = (
    Part("vectors", "vectors:vectors", "the parity vectors of the released network", gigabytes=2),
    Part("precision", "precision:precision", "float32, bfloat16 and float16 against float32 on the CPU"),
    Part("grpo", "steps:grpo", "steps of grpo, all weights", gigabytes=48),
    Part("sft", "steps:sft", "steps of sft, all weights", gigabytes=48),
    Part("decode", "decoding:decode", "growing cache, static cache, CUDA graph"),
    Part("released", "released:released", "a step of grpo against the released trainer's way", gigabytes=64),
    Part("grpo-7b", "steps:grpo", "steps of grpo, adapters", "7b", gigabytes=100, seconds=LIMIT),
    Part("sft-7b", "steps:sft", "steps of sft, adapters", "7b", gigabytes=100, seconds=LIMIT),
    Part("resume", "resume:resume", "grpo killed with -9 and resumed, against an uninterrupted run", disk=40),
    Part("ddp", "launched:ddp", "accelerate: ddp, one process, against none", gigabytes=48, disk=40),
    Part("fsdp", "launched:fsdp", "accelerate: fsdp, one process", on_cpu=False, gigabytes=48, disk=40),
    Part("zero2", "launched:zero2", "accelerate: zero2, one process", on_cpu=False,
         packages=("deepspeed",), optional=True, gigabytes=48, disk=40),
    Part("zero3", "launched:zero3", "accelerate: zero3, one process", on_cpu=False,
         packages=("deepspeed",), optional=True, gigabytes=48, disk=40),
    Part("qlora", "launched:qlora", "grpo with the base in four bits (QLoRA)", on_cpu=False,
         packages=("bitsandbytes",), optional=True, disk=40),
    Part("base", "ways:base", "a frozen base cast in every call, and held in half precision"),
    Part("towers", "ways:towers", "the towers in float32 and under autocast"),
    Part("checkpointing", "ways:checkpointing", "checkpointed blocks, prompt per completion and shared"),
    Part("vllm", "decoding:vllm", "growing cache against vLLM", on_cpu=False, optional=True, gigabytes=48),
    Part("largest", "largest:largest", "the largest batch of grpo, all weights", on_cpu=False, gigabytes=48),
    Part("largest-7b", "largest:largest", "the largest batch of grpo, adapters", "7b", on_cpu=False,
         gigabytes=100, seconds=LIMIT),
)  # fmt: skip
BY_NAME = {part.name: part for part in PARTS}
# What the code of all parts imports; what these need themselves is found in their metadata.
PACKAGES = ("torch", "transformers", "accelerate", "peft", "trl", "datasets", "numpy", "pydantic", "pyyaml",
            "pyarrow", "safetensors", "jinja2", "scipy", "psutil", "filelock")  # fmt: skip


def chosen(only: list[str] | None, device: str, size: str | None) -> list[Part]:
    """The parts to run.

    Args:
        only: names; None means all.
        device: `cuda` or `cpu`: of all, a CPU runs only those that say something there.
        size: one size for all of them; parts of a larger model than 0.5b are then left out of "all".
    """
    if only:
        return [BY_NAME[name] for name in only]
    return [
        part
        for part in PARTS
        if (device == "cuda" or part.on_cpu) and (part.size == "0.5b" or (size is None and device == "cuda"))
    ]
