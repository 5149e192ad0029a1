variable "name" {
  description = "Begins the names of all that is made: buckets, users, policies. Names of buckets are unique in all of Amazon. Under another name later, all of it would be made anew."
  type        = string
  validation {
    condition     = can(regex("^[a-z0-9][a-z0-9-]{1,40}[a-z0-9]$", var.name))
    error_message = "name has 3 to 42 small letters, digits and hyphens, and no hyphen at its ends, as names of buckets need it."
  }
}

variable "region" {
  description = "Where the buckets are, such as eu-central-1. Put it near the machines that train."
  type        = string
  validation {
    condition     = can(regex("^[a-z]{2,4}(-[a-z]+)+-[0-9]+$", var.region))
    error_message = "region is the name of an AWS region, such as eu-central-1."
  }
}

variable "raw_bucket" {
  description = "Another name for the bucket of raw data; null for NAME-raw."
  type        = string
  default     = null
}

variable "dvc_bucket" {
  description = "Another name for the bucket of DVC's remote and of placed stages; null for NAME-dvc."
  type        = string
  default     = null
}

variable "artifact_bucket" {
  description = "Another name for the bucket of MLflow's artifacts; null for NAME-mlflow."
  type        = string
  default     = null
}

variable "remote_days" {
  description = "Days after which what coordinators and workers left for each other goes (prefix remote/ in DVC's bucket). More than the longest stage takes."
  type        = number
  default     = 30
  validation {
    condition     = var.remote_days >= 14 && floor(var.remote_days) == var.remote_days
    error_message = "remote_days is a whole number of at least 14: an object that a running stage still needs must not go."
  }
}

variable "old_version_days" {
  description = "Days for which deleted and replaced versions stay in the buckets of DVC and MLflow, except below remote/, where it is one. In the raw bucket they stay forever: lock files name them."
  type        = number
  default     = 30
  validation {
    condition     = var.old_version_days >= 1 && floor(var.old_version_days) == var.old_version_days
    error_message = "old_version_days is a whole number of at least 1."
  }
}

variable "multipart_days" {
  description = "Days after which parts of uploads that were never finished go."
  type        = number
  default     = 7
  validation {
    condition     = var.multipart_days >= 1 && floor(var.multipart_days) == var.multipart_days
    error_message = "multipart_days is a whole number of at least 1."
  }
}

variable "kms_key_arn" {
  description = "KMS key that encrypts all buckets; null for Amazon's own keys (AES256). Its own policy must let the users use it."
  type        = string
  default     = null
  validation {
    condition     = var.kms_key_arn == null || can(regex("^arn:aws[a-z-]*:kms:", var.kms_key_arn))
    error_message = "kms_key_arn is the ARN of a KMS key (arn:aws:kms:...), or null."
  }
}

variable "make_keys" {
  description = "Whether to make access keys for the users. They are in Terraform's state then, so keep that encrypted. false: attach the policies to roles of your own."
  type        = bool
  default     = true
}

variable "destroy_data" {
  description = "Whether `terraform destroy` may delete buckets that are not empty, with all versions."
  type        = bool
  default     = false
}

variable "tags" {
  description = "More tags for all that is made."
  type        = map(string)
  default     = {}
}
