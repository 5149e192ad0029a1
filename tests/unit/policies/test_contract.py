"""Both families of policies against the one contract."""

import pytest
import torch

from erv.policies import Policy
from erv.prompts import format_completion
from erv.sample.tiny_policy import build_tiny_policy
from tests.support.policy_contract import PolicyContract
from tests.support.sizes import SMALLEST
from tests.support.tiny_qwen_omni import tiny_qwen_omni

TEXTS = [format_completion("The voice is loud. She seems angry.", "anger")] * 3


class TestHumanOmni(PolicyContract):
    @pytest.fixture(scope="class")
    @classmethod
    def policy(cls):
        torch.set_num_threads(1)
        return Policy(*build_tiny_policy(TEXTS, seed=1, sizes=SMALLEST))


class TestQwenOmni(PolicyContract):
    @pytest.fixture(scope="class")
    @classmethod
    def policy(cls):
        torch.set_num_threads(1)
        return tiny_qwen_omni(TEXTS, seed=1)
