"""Teachers, which label the sentences that the verifier is trained on."""

from erv.chat import ChatError, Refusal, Usage
from erv.distill.teachers.build import build_teacher
from erv.distill.teachers.protocol import Teacher, Verdict

__all__ = ["ChatError", "Refusal", "Teacher", "Usage", "Verdict", "build_teacher"]
