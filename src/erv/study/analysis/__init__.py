"""What the answers to a study say: about policies, raters, judges and the verifier."""
