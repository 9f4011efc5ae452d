"""`user-embeddings consent DATADAO`: counts by purpose, of nobody in particular."""

import argparse
import sys
from typing import Any

import polars as pl

from user_embeddings_dagster.privacy.consent.ledger import subjects_of
from user_embeddings_dagster.privacy.consent.live import LEDGER, now, states
from user_embeddings_dagster.privacy.consent.report import as_text
from user_embeddings_dagster.settings import Layout
from user_embeddings_dagster.storage.lake import Lake


def add_parser(commands: Any) -> None:
    """Add the command to a command line's."""
    consent = commands.add_parser("consent", help="how many contributors have granted each purpose, as of now")
    consent.add_argument("datadao")


def run(options: argparse.Namespace, layout: Layout) -> int:
    """Print the counts; 2 if the DataDAO has no ledger yet."""
    lake = Lake(layout.root)
    try:
        ledger, rejected = lake.read(LEDGER, options.datadao), lake.read("rejected_grants", options.datadao)
    except FileNotFoundError as error:
        print(error, file=sys.stderr)
        return 2
    bases = ledger.group_by("basis").agg(n=pl.col("user_id").n_unique()).sort("basis")
    subjects = subjects_of(lake.scan("messages", options.datadao))
    print(as_text(options.datadao, states(ledger, subjects, now()), bases, rejected))
    return 0
