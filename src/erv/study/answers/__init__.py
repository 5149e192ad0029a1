"""What raters say: the database that keeps it, invitations, and the table for a study's figures."""
