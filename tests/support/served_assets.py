"""Assets as the code location serves them: errors contained, exclusive of each other."""

import dagster as dg

from user_embeddings_dagster.definitions import defs


def served(name: str) -> dg.AssetsDefinition:
    """The definition whose step is called `name`."""
    return next(
        asset for asset in defs.assets or [] if isinstance(asset, dg.AssetsDefinition) and asset.op.name == name
    )
