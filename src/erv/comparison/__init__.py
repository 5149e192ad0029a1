"""Two states of the pipeline side by side: versions, runs, experiments, commits, the workspace."""
