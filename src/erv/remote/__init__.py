"""A stage that runs on another machine, with nothing but S3 and git between the two.

The coordinator sends what the stage needs: its commit, parameters and `dvc.lock`; the worker sends back the
entry of `dvc.lock`. Both meet at a board in the bucket of DVC's remote. Knows nothing of Prefect.
"""
