"""Translation for callers: HTTP, command line and the one place that wires the parts."""
