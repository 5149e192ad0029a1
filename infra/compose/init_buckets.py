"""Creates the buckets of the stack: the one-shot service `buckets` of compose.yaml.

Command: `python init_buckets.py` with the `ERV_*` variables of `.env.example` in the environment. Running it
again changes nothing. The raw bucket keeps versions, because lock files name the version of each object.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping


def main(environment: Mapping[str, str] = os.environ) -> None:
    """Creates the missing buckets and prints the state of each.

    Raises:
        KeyError: a variable is not set.
        botocore.exceptions.ClientError: the server refuses the keys, or the bucket belongs to someone else.
    """
    import boto3
    from botocore.config import Config

    client = boto3.client(
        "s3",
        endpoint_url=environment["ERV_S3_ENDPOINT"],
        aws_access_key_id=environment["ERV_S3_ACCESS_KEY"],
        aws_secret_access_key=environment["ERV_S3_SECRET_KEY"],
        region_name=environment["ERV_S3_REGION"],
        config=Config(s3={"addressing_style": "path"}, retries={"max_attempts": 8, "mode": "standard"}),
    )
    existing = {bucket["Name"] for bucket in client.list_buckets()["Buckets"]}
    for variable in ("ERV_RAW_BUCKET", "ERV_DVC_BUCKET", "ERV_ARTIFACT_BUCKET"):
        name = environment[variable]
        if name not in existing:
            client.create_bucket(Bucket=name)
        sys.stdout.write(f"bucket {name}: {'exists' if name in existing else 'created'}\n")
    client.put_bucket_versioning(
        Bucket=environment["ERV_RAW_BUCKET"], VersioningConfiguration={"Status": "Enabled"}
    )


if __name__ == "__main__":
    main()
