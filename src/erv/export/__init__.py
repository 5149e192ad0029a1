"""A published version as a folder for others, and a folder of others as a version."""
