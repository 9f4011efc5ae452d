"""Domain library: conversation exports to user embeddings. Only `definitions` and `cli` import Dagster."""
