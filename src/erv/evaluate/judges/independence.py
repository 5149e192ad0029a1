"""What is optimised must not also evaluate: a judge shares neither text nor weights with the verifier."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from erv.errors import EvaluationError
from erv.evaluate.judges.protocol import Judge
from erv.sentences import normalize, split_sentences

if TYPE_CHECKING:
    from torch import Tensor

# Smaller tensors (scales, biases) may be equal by chance or by convention.
_SMALLEST = 1024


def check_independence(judge: Judge, verifier_sentences: Iterable[str], verifier: Path) -> None:
    """Refuses a judge that is the verifier, or was given what the verifier learned from.

    Args:
        judge: the judge.
        verifier_sentences: on which the verifier was trained or measured.
        verifier: its folder.

    Raises:
        EvaluationError: they share a sentence, ignoring case, punctuation and white space; or a tensor, also
            if only one part of the verifier was trained further.
    """
    sentences = {normalize(sentence) for sentence in verifier_sentences}
    for text in judge.texts:
        for sentence in split_sentences(text, semantics="strict"):
            if normalize(sentence) in sentences:
                raise EvaluationError(
                    f"the judge {judge.name} and the verifier share the sentence {sentence!r}; give the judge"
                    " texts of its own, or it measures what was optimised"
                )
    shared = judge.weights & folder_digests(verifier) if judge.weights else frozenset()
    if shared:
        raise EvaluationError(
            f"the judge {judge.name} and the verifier in {verifier} have tensors in common, and the verifier"
            " is the reward; take another model for the judge (evaluate.judges in params.yaml)"
        )


def tensor_digests(tensors: Mapping[str, Tensor]) -> frozenset[str]:
    """SHA-256 of the values of each tensor that training gave its values, whatever its name and precision.

    A tensor has two, one for its values rounded to bfloat16 and one for those rounded to float16 before that;
    most often both are equal. Left out: small tensors, whole numbers, and tensors whose elements are all
    equal.
    """
    import torch

    digests = set()
    for tensor in tensors.values():
        if tensor.numel() < _SMALLEST or not tensor.is_floating_point():
            continue
        # A cast copy has the same values once both are as coarse as bfloat16. A copy in float16 is rounded
        # twice then, so that way has a digest too.
        for passing in (tensor.dtype, torch.float16):
            values = tensor.detach().cpu().to(passing).to(torch.bfloat16).flatten()
            if not bool((values == values[0]).all()):
                digests.add(hashlib.sha256(values.view(torch.uint8).numpy().tobytes()).hexdigest())
    return frozenset(digests)


def folder_digests(folder: Path) -> frozenset[str]:
    """`tensor_digests` of all safetensors in a folder.

    Raises:
        EvaluationError: there are none, or one can't be read.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise EvaluationError(f"{folder}: no weights in it; run `dvc repro train_erv` first")
    try:
        return frozenset().union(*(tensor_digests(load_file(path)) for path in files))
    except (OSError, SafetensorError) as error:
        raise EvaluationError(
            f"{folder}: its weights can't be read ({error}); run `dvc repro train_erv` again"
        ) from None
