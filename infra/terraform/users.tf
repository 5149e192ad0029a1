# The users of policies.tf, their keys and their policies.

resource "aws_iam_policy" "this" {
  for_each    = local.users
  name        = "${var.name}-${each.key}"
  description = "What ${each.key} of ${var.name} may do in its buckets."
  policy      = jsonencode(local.policies[each.key])
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
