"""The pages on which raters answer a study."""
