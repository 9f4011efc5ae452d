"""Settings of the runs that a command starts: which dimensions, and what `--config` says, checked before anything runs.

Dagster is imported where it is needed, as by the other modules of commands.
"""

import argparse
import json
from pathlib import Path
from typing import Any

DIMENSIONS = ("64", "256", "1024")
# What two processors without a GPU can embed in under an hour: per DataDAO a random sample of the users with
# some history, and the latest part of it. The item encoder trains longer than in the demo.
REAL = {
    "masked_chunks": {"max_users": 400, "max_chunks_per_user": 25, "min_chunks_per_user": 5},
    "item_encoder": {"steps": 40, "validations": 4},
}


def dimension(text: str) -> str:
    """A partition of sequence_encoder. Raises ArgumentTypeError for another."""
    from assets.partitions import DIMENSIONS as KNOWN

    if text not in KNOWN:
        raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(KNOWN)}")
    return text


def of_file(path: str) -> dict[str, dict[str, object]]:
    """Settings by asset. Raises ArgumentTypeError unless they are objects, under names of assets and partitions that
    they hold for, that their configs take: a run would tell of it only after exports were linked, or never."""
    import dagster as dg

    from user_embeddings_dagster.definitions import defs

    try:
        config = json.loads(Path(path).read_text())
    except (OSError, ValueError) as error:
        raise argparse.ArgumentTypeError(f"{path}: {error}") from None
    graph = defs.resolve_asset_graph()
    assets = {key.to_user_string() for key in graph.get_all_asset_keys()}
    if not isinstance(config, dict) or not all(isinstance(settings, dict) for settings in config.values()):
        raise argparse.ArgumentTypeError(f"{path}: settings must be an object of objects")
    if unknown := sorted(name for name in config if name.partition(":")[0] not in assets):
        raise argparse.ArgumentTypeError(f"{path}: no assets: {unknown}")
    everything = defs.resolve_implicit_global_asset_job_def()
    steps: dict[str, Any] = {node.name: node for node in everything.all_node_defs}
    for name, settings in config.items():
        asset, colon, partition = name.partition(":")
        if asset not in steps:
            raise argparse.ArgumentTypeError(f"{path}: {name}: no step of its own makes it, so it takes no settings")
        if colon and not _may_be_partition(graph.get(dg.AssetKey(asset)).partitions_def, partition):
            raise argparse.ArgumentTypeError(f"{path}: {name}: {asset} has no such partition")
        try:
            dg.validate_run_config(everything, {"ops": {asset: {"config": settings}}})  # names and types alone
            if steps[asset].compute_fn.has_config_arg():  # a step without settings takes {}
                steps[asset].compute_fn.get_config_arg().annotation(**settings)
        except dg.DagsterInvalidConfigError as error:
            told = error.errors[0].message.partition("\n")[0]  # a stack trace may follow
            raise argparse.ArgumentTypeError(f"{path}: {name}: {told}") from None
        except dg.Failure as error:
            raise argparse.ArgumentTypeError(f"{path}: {name}: {error.description}") from None
    return config


def _may_be_partition(partitions: object, key: str) -> bool:
    """Whether an asset has, or may come to have, a partition of this key: DataDAOs are registered as they come."""
    import dagster as dg

    from user_embeddings_dagster.exports.landing import SLUG

    if isinstance(partitions, dg.StaticPartitionsDefinition):
        return partitions.has_partition_key(key)
    return partitions is not None and SLUG.fullmatch(key) is not None
