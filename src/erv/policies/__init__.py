"""Policies: the multimodal language models that are trained, and how to load one."""

from erv.policies.common.policy import Policy, load_policy

__all__ = ["Policy", "load_policy"]
