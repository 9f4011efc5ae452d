"""The domain library: conversation exports to user embeddings, free of Dagster (except `definitions` and `cli`)."""
