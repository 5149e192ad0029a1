"""Studies with people: what raters are asked about, who is asked what, and what they say."""
