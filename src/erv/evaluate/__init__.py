"""A policy on held-out clips: judged and measured."""
