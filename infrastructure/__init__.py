"""Effects. One file per table family, per effect, per dialect."""
