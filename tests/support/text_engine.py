"""An engine process that runs transformers' own text class, to test all of `engine` but vLLM itself.

Started like `erv.training.grpo.engine.worker`, by the tests' interpreter.
"""

import json
import sys
from multiprocessing.connection import Connection
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from erv.training.grpo.engine.worker import serve


class TextEngine:
    def __init__(
        self, folder: str, dtype: str, temper: float = 1.0, memory: float = 0.0, longest: int = 0
    ) -> None:
        """`temper` divides the logits once more, so that the engine is another model than the policy."""
        config = AutoConfig.from_pretrained(folder)
        assert config.architectures == ["Qwen2ForCausalLM"]
        AutoTokenizer.from_pretrained(folder)
        self.model = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype)).eval()
        self.temper = temper

    @torch.no_grad()
    def write(
        self, weights: str, prompts: list[torch.Tensor], rows: list[Any], sampling: dict[str, Any]
    ) -> tuple[list[list[int]], list[list[float]]]:
        given = load_file(weights)
        assert set(given) == {name for name, _ in self.model.named_parameters()}
        self.model.load_state_dict(given, strict=False)
        tokens, log_probs = [], []
        for prompt, seed in rows:
            drawn, scores = self.row(prompts[prompt], seed, sampling)
            tokens.append(drawn)
            log_probs.append(scores)
        return tokens, log_probs

    def row(self, prompt: torch.Tensor, seed: int, sampling: dict[str, Any]) -> tuple[list[int], list[float]]:
        generator = torch.Generator().manual_seed(seed)
        output = self.model(inputs_embeds=prompt[None], use_cache=True)
        drawn: list[int] = []
        scores: list[float] = []
        while True:
            logits = output.logits[0, -1].float()
            logits[sampling["suppressed"]] = -torch.inf
            if sampling["temperature"] == 0:
                each = logits.log_softmax(-1)
                token = int(each.argmax())
            else:
                each = (logits / sampling["temperature"] / self.temper).log_softmax(-1)
                token = int(torch.multinomial(each.exp(), 1, generator=generator))
            drawn.append(token)
            scores.append(float(each[token]))
            if token in sampling["ends"] or len(drawn) == sampling["limit"]:
                return drawn, scores
            output = self.model(
                input_ids=torch.tensor([[token]]), past_key_values=output.past_key_values, use_cache=True
            )


def main() -> None:
    connection = Connection(int(sys.argv[1]))
    options = json.loads(connection.recv_bytes())
    torch.set_num_threads(1)
    serve(connection, TextEngine(**options), "of transformers", sys.argv[2])


if __name__ == "__main__":
    main()
