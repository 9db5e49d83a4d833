"""This product beside other engines, on one machine in one run."""
