# The three buckets: private, encrypted, over TLS only, and tidied up.

resource "aws_s3_bucket" "this" {
  for_each      = local.buckets
  bucket        = each.value
  force_destroy = var.destroy_data
}

resource "aws_s3_bucket_public_access_block" "this" {
  for_each                = aws_s3_bucket.this
  bucket                  = each.value.id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_ownership_controls" "this" {
  for_each = aws_s3_bucket.this
  bucket   = each.value.id
  rule {
    object_ownership = "BucketOwnerEnforced"
  }
}

resource "aws_s3_bucket_server_side_encryption_configuration" "this" {
  for_each = aws_s3_bucket.this
  bucket   = each.value.id
  rule {
    bucket_key_enabled = var.kms_key_arn != null
    apply_server_side_encryption_by_default {
      sse_algorithm     = var.kms_key_arn == null ? "AES256" : "aws:kms"
      kms_master_key_id = var.kms_key_arn
    }
  }
}

# The raw bucket keeps versions, because lock files name the version of each object. The others keep what was deleted
# or replaced for a while.
resource "aws_s3_bucket_versioning" "this" {
  for_each = aws_s3_bucket.this
  bucket   = each.value.id
  versioning_configuration {
    status = "Enabled"
  }
}

resource "aws_s3_bucket_lifecycle_configuration" "this" {
  for_each = aws_s3_bucket.this
  bucket   = each.value.id

  dynamic "rule" {
    for_each = { for rule in local.lifecycle[each.key] : rule.id => rule }
    content {
      id     = rule.value.id
      status = "Enabled"
      filter {
        prefix = rule.value.prefix
      }
      dynamic "abort_incomplete_multipart_upload" {
        for_each = [for days in [try(rule.value.abort_days, null)] : days if days != null]
        content {
          days_after_initiation = abort_incomplete_multipart_upload.value
        }
      }
      dynamic "noncurrent_version_expiration" {
        for_each = [for days in [try(rule.value.noncurrent_days, null)] : days if days != null]
        content {
          noncurrent_days = noncurrent_version_expiration.value
        }
      }
      dynamic "expiration" {
        for_each = [for days in [try(rule.value.days, null)] : days if days != null]
        content {
          days = expiration.value
        }
      }
      # What a deletion leaves when its last version has gone.
      dynamic "expiration" {
        for_each = try(rule.value.markers, false) ? [true] : []
        content {
          expired_object_delete_marker = expiration.value
        }
      }
    }
  }

  depends_on = [aws_s3_bucket_versioning.this]
}

resource "aws_s3_bucket_policy" "tls" {
  for_each   = aws_s3_bucket.this
  bucket     = each.value.id
  policy     = jsonencode(local.bucket_policies[each.key])
  depends_on = [aws_s3_bucket_public_access_block.this]
}
