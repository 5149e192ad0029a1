"""Asks chat models about many texts, behind an endpoint or from a folder; teachers and judges do."""

from erv.chat.protocol import Asked, ChatError, Fault, Message, Questions, Refusal, Usage, one_line

__all__ = ["Asked", "ChatError", "Fault", "Message", "Questions", "Refusal", "Usage", "one_line"]
