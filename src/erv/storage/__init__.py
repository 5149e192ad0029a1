"""The object store: S3 through boto3."""
