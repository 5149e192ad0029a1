"""The reward's own verifier is never a judge."""

import pytest
import torch
from safetensors.torch import save_file

from erv.errors import EvaluationError
from erv.evaluate.judges.embedding import EmbeddingJudge
from erv.evaluate.judges.independence import check_independence, tensor_digests
from erv.sentences import split_sentences
from tests.support.judging import Spoken


@pytest.fixture
def verifier(tmp_path):
    torch.manual_seed(0)
    tensors = {
        "encoder.weight": torch.randn(64, 64),
        "head.weight": torch.randn(11, 64),
        "bias": torch.ones(2048),
    }
    save_file(tensors, tmp_path / "model.safetensors")
    return tmp_path


def test_a_judge_must_not_share_a_sentence_with_the_verifier(verifier):
    judge = Spoken(texts=("The eyes are wet. She weeps!", "He laughs."))
    ours = split_sentences("The voice is loud. He shouts.")
    check_independence(judge, ours, verifier)
    with pytest.raises(
        EvaluationError, match="the judge spoken and the verifier share the sentence 'She weeps!'"
    ):
        check_independence(judge, [*ours, "SHE WEEPS  "], verifier)


def test_a_judge_must_not_share_a_weight_with_the_verifier(verifier):
    torch.manual_seed(0)
    same, other = torch.randn(64, 64), torch.randn(64, 64)
    check_independence(Spoken(weights=tensor_digests({"a": other, "b": torch.ones(2048)})), [], verifier)
    judge = Spoken(weights=tensor_digests({"under.another.name": same, "further.trained": other}))
    with pytest.raises(
        EvaluationError, match=r"the judge spoken and the verifier in .* have tensors in common"
    ):
        check_independence(judge, [], verifier)
    (verifier / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(EvaluationError, match="its weights can't be read"):
        check_independence(judge, [], verifier)
    (verifier / "model.safetensors").unlink()
    with pytest.raises(EvaluationError, match="no weights in it; run `dvc repro train_erv`"):
        check_independence(judge, [], verifier)


def test_a_verifier_that_was_trained_from_the_judges_encoder_is_found(encoder, encoder_at):
    """Also if only its head was trained: then it reads as the judge does."""
    with pytest.raises(EvaluationError, match="tensors in common, and the verifier is the reward"):
        check_independence(EmbeddingJudge(encoder), [], encoder_at)


def test_what_training_did_not_set_is_no_shared_weight():
    ignored = {"small": torch.randn(8), "ids": torch.arange(4096), "ones": torch.ones(4096)}
    assert tensor_digests(ignored) == frozenset()
    half = torch.randn(64, 64, dtype=torch.bfloat16)
    assert len(tensor_digests({"half": half, "same": half.clone()})) == 1


def test_a_copy_in_another_precision_is_the_same_weight():
    torch.manual_seed(0)
    whole = torch.randn(64, 64)
    assert tensor_digests({"a": whole}) & tensor_digests({"a": whole.to(torch.bfloat16)})
    assert tensor_digests({"a": whole}) == tensor_digests({"a": whole.double()})
    assert tensor_digests({"a": whole}) & tensor_digests({"a": whole.half()})
    assert not tensor_digests({"a": whole}) & tensor_digests({"a": whole + 1})
