"""Teachers, which label the sentences that the verifier is trained on."""

from erv.distill.teachers.build import build_teacher
from erv.distill.teachers.protocol import Refusal, Teacher, TeacherError, Usage, Verdict

__all__ = ["Refusal", "Teacher", "TeacherError", "Usage", "Verdict", "build_teacher"]
