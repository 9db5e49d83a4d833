"""What runs: a file for each kind of process, and the parts that several kinds have."""
