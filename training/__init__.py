"""Torch jobs. Each runs from a shell with the same result as under Dagster Pipes."""
