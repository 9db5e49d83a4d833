"""The real engine on simulated ports, one thread and virtual time: the same seed, the same log."""
