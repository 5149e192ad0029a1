"""From labelled sentences to a verifier."""
