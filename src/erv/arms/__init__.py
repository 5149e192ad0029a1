"""Policies that are evaluated but not trained here."""
