# What is decided here, as plain values: names, rules and policies. buckets.tf and users.tf make them.

locals {
  # Parts of Amazon that know nothing of each other, and how the names of their regions begin.
  partitions = {
    "cn-"      = "aws-cn"
    "us-gov-"  = "aws-us-gov"
    "us-iso-"  = "aws-iso"
    "us-isob-" = "aws-iso-b"
    "eu-isoe-" = "aws-iso-e"
    "us-isof-" = "aws-iso-f"
    "eusc-"    = "aws-eusc"
  }
  partition = concat([for start, name in local.partitions : name if startswith(var.region, start)], ["aws"])[0]

  buckets = {
    raw    = coalesce(var.raw_bucket, "${var.name}-raw")
    dvc    = coalesce(var.dvc_bucket, "${var.name}-dvc")
    mlflow = coalesce(var.artifact_bucket, "${var.name}-mlflow")
  }
  arns = { for key, bucket in local.buckets : key => "arn:${local.partition}:s3:::${bucket}" }

  # Rules of the buckets. In the raw bucket all versions stay, because lock files name them.
  unfinished = { id = "unfinished-uploads", prefix = "", abort_days = var.multipart_days }
  old        = { id = "old-versions", prefix = "", noncurrent_days = var.old_version_days, markers = true }
  lifecycle = {
    raw = [local.unfinished]
    dvc = [
      local.unfinished,
      local.old,
      # What placed stages left for each other: docs/machines.md. They replace a pulse every few seconds, and checkpoints,
      # which would all stay as old versions; of two rules, the shorter one counts.
      { id = "placed-stages", prefix = "remote/", days = var.remote_days, noncurrent_days = 1 },
    ]
    mlflow = [local.unfinished, local.old]
  }

  # Who may do what. Nobody here may delete a version or change a bucket. A deletion leaves a version behind.
  #
  # person  clones: pins and uploads raw data, runs the pipeline, sends stages to workers, takes turns at the registry
  # worker  workers and the pods of stages: reads raw data, runs stages, writes their outputs
  # mlflow  the MLflow server: its artifacts, which its clients get through it
  reads   = ["s3:GetObject", "s3:GetObjectVersion"]
  changes = concat(local.reads, ["s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"])
  lists   = ["s3:ListBucket", "s3:ListBucketVersions", "s3:GetBucketLocation", "s3:GetBucketVersioning"]
  users = {
    person = {
      lists   = ["raw", "dvc", "mlflow"]
      reads   = ["${local.arns.mlflow}/*"]
      changes = ["${local.arns.raw}/*", "${local.arns.dvc}/*", "${local.arns.mlflow}/.leases/*"]
    }
    worker = {
      lists   = ["raw", "dvc", "mlflow"] # `erv connect` looks for all three
      reads   = ["${local.arns.raw}/*"]
      changes = ["${local.arns.dvc}/*"]
    }
    mlflow = {
      lists   = ["mlflow"]
      reads   = []
      changes = ["${local.arns.mlflow}/*"]
    }
  }
  policies = {
    for name, user in local.users : name => {
      Version = "2012-10-17"
      Statement = concat(
        [
          { Sid = "Lists", Effect = "Allow", Action = local.lists, Resource = [for key in user.lists : local.arns[key]] },
          { Sid = "Changes", Effect = "Allow", Action = local.changes, Resource = user.changes },
        ],
        length(user.reads) == 0 ? [] : [
          { Sid = "Reads", Effect = "Allow", Action = local.reads, Resource = user.reads },
        ],
        var.kms_key_arn == null ? [] : [
          { Sid = "Key", Effect = "Allow", Action = ["kms:Decrypt", "kms:GenerateDataKey"], Resource = [var.kms_key_arn] },
        ],
      )
    }
  }

  # Of each bucket: nothing unencrypted on the way.
  bucket_policies = {
    for key, arn in local.arns : key => {
      Version = "2012-10-17"
      Statement = [{
        Sid       = "OnlyOverTls"
        Effect    = "Deny"
        Principal = "*"
        Action    = "s3:*"
        Resource  = [arn, "${arn}/*"]
        Condition = { Bool = { "aws:SecureTransport" = "false" } }
      }]
    }
  }
}
