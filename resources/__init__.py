"""Small Dagster resources: where things are stored, which encoder, how jobs run."""
