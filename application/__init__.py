"""Use cases. Sequence only: load, ask the domain, save, announce."""
