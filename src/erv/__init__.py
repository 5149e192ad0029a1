"""erv: train, judge and ship multimodal language models whose explanations agree with their answers."""

__version__ = "0.1.0"
