"""Dagster assets, one file per stage: declare, read, one domain call, write, report."""
