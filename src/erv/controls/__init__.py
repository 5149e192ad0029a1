"""What a policy answers when a part of its clips is taken away or exchanged."""
