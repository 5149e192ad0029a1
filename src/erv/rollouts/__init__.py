"""From the cold start to explanations that it samples."""
