"""The two ways assets are partitioned: by DataDAO, and by dimension of the user state."""

import dagster as dg

DATADAO = "datadao"
datadaos = dg.DynamicPartitionsDefinition(name=DATADAO)

DIMENSIONS = ("64", "128", "256", "512", "1024", "2048", "4096")
dimensions = dg.StaticPartitionsDefinition(list(DIMENSIONS))

# The dimension whose states are served as user embeddings.
SERVED_DIMENSION = "256"
