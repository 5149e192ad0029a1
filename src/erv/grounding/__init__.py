"""Which claims of an explanation are true of its clip, and which of the clip's cues it mentions."""
