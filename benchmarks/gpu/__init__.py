"""What runs on a GPU that is lent for minutes: packs of numbers, jobs, and the way home."""
