"""The two ways assets are partitioned: by DataDAO, and by dimension of the user state."""

import warnings

import dagster as dg

# Checks have the partitions of their asset. Without, automation sees only the latest execution of a check: the next
# DataDAO that passes would let a failed one through, and two at once would hold back each other. Dagster calls
# this a preview at every start.
warnings.filterwarnings(
    "ignore", message="Specifying a partitions_def on an AssetCheckSpec", category=dg.PreviewWarning
)

DATADAO = "datadao"
datadaos = dg.DynamicPartitionsDefinition(name=DATADAO)

DIMENSIONS = ("64", "128", "256", "512", "1024", "2048", "4096")
dimensions = dg.StaticPartitionsDefinition(list(DIMENSIONS))

# The dimension whose states are served as user embeddings: the smallest with room for what predicts the next chunk (768
# axes: item vectors and contexts) and for most of what tells people apart (2 + 384).
SERVED_DIMENSION = "1024"
