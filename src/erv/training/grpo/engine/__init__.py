"""Completions from vLLM: `grpo.generation: vllm`. It has not run on a GPU yet.

vLLM serves the language model alone, in a process and an environment of its own. It gets prompts as
embeddings, in which the clips are already tokens. One reason per file:

- `prompts`: what the prompts are as embeddings.
- `text_model`: the language model's folder and weights, adapters merged.
- `start`: whether it can run here, and with which options.
- `client`: starts the process and talks to it.
- `worker`: that process, the only file that imports vLLM.
- `agreement`: how far the engine's log-probabilities are from the policy's.
- `lacks`: what this machine lacks to do it.

TRL multiplies the loss by the ratio of the two probabilities of a token, truncated at
`grpo.generation_ratio_cap` (its mode `token_truncate`).
"""
