"""What steps do to the outside world, one file per effect."""
