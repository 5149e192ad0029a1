# Works with Terraform from 1.9 and OpenTofu from 1.9. `terraform init` writes .terraform.lock.hcl: commit it in your copy.
terraform {
  required_version = ">= 1.9"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.60, < 7.0"
    }
  }
}

provider "aws" {
  region = var.region
  default_tags { tags = merge({ project = var.name }, var.tags) }
}
