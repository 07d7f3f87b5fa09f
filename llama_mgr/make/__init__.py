"""The Python environment in which a build's converter runs."""
