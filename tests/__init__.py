"""Tests. Each one owns its database; none waits for a clock."""
