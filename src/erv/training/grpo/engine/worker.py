"""The process that runs vLLM, in vLLM's own environment, where erv is not installed.

Started by `erv.training.grpo.engine.client` as `python worker.py FD FOLDER`, where FD is an open socket and
FOLDER holds the files, which are removed when the connection ends: the client may have been killed. Messages
are JSON; tensors are in safetensors files. Written for vLLM 0.33, whose classes check what they are given.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator
from multiprocessing.connection import Connection
from typing import Any, Protocol

import torch
from safetensors import safe_open
from safetensors.torch import load_file

_NEVER = -100.0  # the lowest bias that vLLM takes; the probability that is left is below 1e-40


class WritesText(Protocol):
    """What `serve` needs of an engine."""

    def write(
        self,
        weights: str,
        prompts: list[torch.Tensor],
        rows: list[tuple[int, int]],
        sampling: dict[str, Any],
    ) -> tuple[list[list[int]], list[list[float]]]:
        """One completion per row.

        Args:
            weights: file of the weights to use.
            prompts: embeddings [length, hidden].
            rows: per completion, the number of its prompt and its seed.
            sampling: `temperature`, `limit` (most tokens), `ends` (ids that end a completion), `suppressed`
                (ids that are never drawn).

        Returns:
            Tokens of each row, up to and including the first end, and the log-probability that each was drawn
            with.
        """


class VllmEngine:
    """vLLM on embeddings. Between generations it sleeps: the GPU's memory belongs to the trainer."""

    def __init__(self, folder: str, dtype: str, memory: float, longest: int) -> None:
        """Starts vLLM without weights.

        Args:
            folder: configuration and tokenizer of the language model.
            dtype: "float32", "bfloat16" or "float16".
            memory: share of the GPU's memory that vLLM may use while it writes.
            longest: most tokens of prompt and completion.
        """
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # or the weights would have to be pickled
        from vllm import LLM

        self._llm = LLM(
            model=folder,
            dtype=dtype,
            load_format="dummy",
            generation_config="vllm",
            max_model_len=longest,
            gpu_memory_utilization=memory,
            enable_prompt_embeds=True,
            enable_prefix_caching=True,
            enable_sleep_mode=True,
            logprobs_mode="processed_logprobs",  # of the distribution that tokens are drawn from
        )
        self._llm.sleep(level=2)

    def write(
        self,
        weights: str,
        prompts: list[torch.Tensor],
        rows: list[tuple[int, int]],
        sampling: dict[str, Any],
    ) -> tuple[list[list[int]], list[list[float]]]:
        """See `WritesText`."""
        from vllm import SamplingParams

        self._llm.wake_up(tags=["weights"])
        self._llm.apply_model(lambda model: load_all(model, weights))
        self._llm.wake_up(tags=["kv_cache"])
        self._llm.reset_prefix_cache()
        never = dict.fromkeys(sampling["suppressed"], _NEVER)
        outputs = self._llm.generate(
            [{"prompt_embeds": prompts[prompt]} for prompt, _ in rows],
            [
                SamplingParams(
                    temperature=sampling["temperature"],
                    top_p=1.0,
                    top_k=0,
                    seed=seed,
                    max_tokens=sampling["limit"],
                    stop_token_ids=sampling["ends"],
                    logit_bias=never or None,
                    logprobs=0,  # of the sampled token only
                    detokenize=False,
                )
                for _, seed in rows
            ],
            use_tqdm=False,
        )
        self._llm.sleep(level=2)
        written = [output.outputs[0] for output in outputs]
        tokens = [list(one.token_ids) for one in written]
        log_probs = [
            [place[token].logprob for token, place in zip(ids, one.logprobs, strict=True)]
            for ids, one in zip(tokens, written, strict=True)
        ]
        return tokens, log_probs


def load_all(model: Any, path: str) -> None:
    """Loads a file of weights into a model of vLLM.

    `load_weights` returns the names of the model's own parameters that it has filled, in which several
    weights of the file may be one (`qkv_proj`, `gate_up_proj`); a tied head is no parameter of its own.

    Raises:
        RuntimeError: a parameter got no weight. It would hold what sleep or the dummy format left there.
    """
    loaded = model.load_weights(_stored(path))
    missing = [name for name, _ in model.named_parameters() if name not in (loaded or ())]
    if missing:
        raise RuntimeError(
            f"{len(missing)} parameters of {type(model).__name__} got no weights: {', '.join(missing[:3])}"
            + (", ..." if len(missing) > 3 else "")
        )


def _stored(path: str) -> Iterator[tuple[str, torch.Tensor]]:
    with safe_open(path, framework="pt") as file:
        for name in file.keys():  # noqa: SIM118 - not a mapping
            yield name, file.get_tensor(name)


def serve(connection: Connection, engine: WritesText, version: str, folder: str) -> None:
    """Answers until the other side closes the connection, then removes the folder of the files."""
    try:
        _send(connection, {"version": version})
        while True:
            _send(connection, _answer(engine, json.loads(connection.recv_bytes())))
    except (EOFError, ConnectionError):
        shutil.rmtree(folder, ignore_errors=True)


def _answer(engine: WritesText, asked: dict[str, Any]) -> dict[str, Any]:
    """What the engine has written. An exception is an answer too."""
    try:
        prompts = load_file(asked["prompts"])
        ordered = [prompts[str(number)] for number in range(len(prompts))]
        tokens, log_probs = engine.write(asked["weights"], ordered, asked["rows"], asked["sampling"])
    except Exception as error:
        return {"error": " ".join(f"{type(error).__name__}: {error}".split())[:500]}
    return {"tokens": tokens, "log_probs": log_probs}


def _send(connection: Connection, message: dict[str, Any]) -> None:
    connection.send_bytes(json.dumps(message).encode())


def main() -> None:
    """Serves vLLM on the socket whose number is the first argument."""
    connection = Connection(int(sys.argv[1]))
    options = json.loads(connection.recv_bytes())
    import vllm

    serve(connection, VllmEngine(**options), vllm.__version__, sys.argv[2])


if __name__ == "__main__":
    main()
