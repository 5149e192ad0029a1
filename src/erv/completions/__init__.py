"""What policies say about held-out clips, in pieces that survive a kill, from features that they share."""
