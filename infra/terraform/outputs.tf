output "settings" {
  description = "The variables of clones, workers and servers that are no secret. Without ERV_S3_ENDPOINT, erv asks Amazon's own S3."
  value = {
    ERV_S3_REGION       = var.region
    ERV_RAW_BUCKET      = aws_s3_bucket.this["raw"].id
    ERV_DVC_BUCKET      = aws_s3_bucket.this["dvc"].id
    ERV_ARTIFACT_BUCKET = aws_s3_bucket.this["mlflow"].id
  }
}

output "keys" {
  description = "By user (person, worker, mlflow): ERV_S3_ACCESS_KEY and ERV_S3_SECRET_KEY. Print them with `terraform output -json keys`."
  sensitive   = true
  value = {
    for name, key in aws_iam_access_key.this : name => {
      ERV_S3_ACCESS_KEY = key.id
      ERV_S3_SECRET_KEY = key.secret
    }
  }
}

output "policies" {
  description = "By user: the ARN of its policy, to attach to a role of your own; with a role, erv needs ERV_S3_AMBIENT=1 in place of keys."
  value       = { for name, policy in aws_iam_policy.this : name => policy.arn }
}
