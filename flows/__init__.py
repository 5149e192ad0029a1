"""Prefect flows over the stages of `dvc.yaml`."""

from erv.collector import collect_seldom

collect_seldom()  # before a flow imports Prefect
