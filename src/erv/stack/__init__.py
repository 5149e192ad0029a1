"""The local stack: an S3 server (SeaweedFS), MLflow and Prefect on 127.0.0.1, for one workspace.

It is a package of `erv` rather than a script under `infra/`, because `erv stack up` must work wherever `erv`
is installed, and because doctor, tests and flows ask it for the state of the servers. All its files are under
`.erv/stack`, so each workspace can have its own stack.
"""

from erv.stack.control import ServiceStatus, clean, down, status, up

__all__ = ["ServiceStatus", "clean", "down", "status", "up"]
