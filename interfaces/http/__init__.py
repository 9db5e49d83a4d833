"""The REST interface: routes with their request bodies beside them, problems and headers."""
