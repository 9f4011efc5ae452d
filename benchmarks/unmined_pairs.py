"""Pairs of the item encoder as its job reads them, of chunks for which nothing was mined."""

import numpy as np
import torch

from training.item_data import Pairs


def unmined_pairs(tokens: list[list[int]], summaries: torch.Tensor, limit: float) -> Pairs:
    """Chunks with their own summaries as positives, one limit for all, no mined negatives."""
    n = len(tokens)
    return Pairs(
        tokens=tokens,
        lengths=np.array([len(row) for row in tokens]),
        summaries=summaries,
        limit=torch.full((n,), limit),
        positive_limit=torch.full((n,), limit),
        positives=np.arange(n),
        queries=np.arange(n),
        negatives=[np.array([], dtype=np.int64)] * n,
        users=n,
    )
