"""What all families of policies share."""
