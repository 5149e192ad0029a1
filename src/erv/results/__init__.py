"""The figures of all results that ran, each beside its setting."""
