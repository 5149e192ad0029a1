"""Sweeps: many trainings with other parameters, compared by what they show on validation clips.

Optuna suggests the parameters, keeps what came of them and decides which training is not worth finishing; a
trial is a run of the pipeline in a checkout of its own. Knows nothing of Prefect: `flows.sweep` starts them.
"""
