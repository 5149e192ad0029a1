"""From explanations to labelled sentences."""
