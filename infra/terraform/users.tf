# Who may do what. Nobody here may delete a version, change a bucket, or read another account's.
#
# person  clones: pins and uploads raw data, runs the pipeline, sends stages to workers
# worker  workers and the pods of stages: reads raw data, runs stages, writes their outputs
# mlflow  the MLflow server: its artifacts, which its clients get through it

locals {
  reads  = ["s3:GetObject", "s3:GetObjectVersion"]
  writes = ["s3:PutObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"]
  lists  = ["s3:ListBucket", "s3:ListBucketVersions", "s3:GetBucketLocation", "s3:GetBucketVersioning"]

  users = {
    # bucket -> may it write there, may it delete there. A deletion leaves a version behind.
    person = { raw = { write = true, delete = true }, dvc = { write = true, delete = true } }
    worker = { raw = { write = false, delete = false }, dvc = { write = true, delete = true } }
    mlflow = { mlflow = { write = true, delete = true } }
  }
}

data "aws_iam_policy_document" "user" {
  for_each = local.users

  statement {
    sid       = "List"
    actions   = local.lists
    resources = [for bucket in keys(each.value) : aws_s3_bucket.this[bucket].arn]
  }

  dynamic "statement" {
    for_each = each.value
    content {
      sid = "Objects${title(statement.key)}"
      actions = concat(
        local.reads,
        statement.value.write ? local.writes : [],
        statement.value.delete ? ["s3:DeleteObject"] : [],
      )
      resources = ["${aws_s3_bucket.this[statement.key].arn}/*"]
    }
  }

  dynamic "statement" {
    for_each = var.kms_key_arn == null ? [] : [var.kms_key_arn]
    content {
      sid       = "Key"
      actions   = ["kms:Decrypt", "kms:GenerateDataKey"]
      resources = [statement.value]
    }
  }
}

resource "aws_iam_policy" "this" {
  for_each    = local.users
  name        = "${var.name}-${each.key}"
  description = "What ${each.key} of ${var.name} may do in its buckets."
  policy      = data.aws_iam_policy_document.user[each.key].json
}

resource "aws_iam_user" "this" {
  for_each = var.make_keys ? local.users : {}
  name     = "${var.name}-${each.key}"
}

resource "aws_iam_user_policy_attachment" "this" {
  for_each   = aws_iam_user.this
  user       = each.value.name
  policy_arn = aws_iam_policy.this[each.key].arn
}

resource "aws_iam_access_key" "this" {
  for_each = aws_iam_user.this
  user     = each.value.name
}
