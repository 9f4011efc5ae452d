"""InfoNCE over in-batch and mined candidates (van den Oord et al. 2018, arXiv:1807.03748, eq. 4)."""

import torch
from torch.nn.functional import cross_entropy


def info_nce(
    queries: torch.Tensor,
    candidates: torch.Tensor,
    positives: torch.Tensor,
    allowed: torch.Tensor,
    temperature: float,
) -> torch.Tensor:
    """Loss of each query [n]: minus the log-probability of its positive among its allowed candidates.

    `queries` [n, d] and `candidates` [m, d] are unit vectors, `positives` [n] the row of each query's
    positive, `allowed` [n, m] bool the candidates that compete for it (the positive must be). With K
    allowed candidates that are all equally similar it is ln K. Raises ValueError if a positive is not
    allowed.
    """
    if not allowed.gather(1, positives.unsqueeze(1)).all():
        raise ValueError("a query's positive is masked out of its candidates")
    logits = queries @ candidates.T / temperature
    return cross_entropy(logits.masked_fill(~allowed, -torch.inf), positives, reduction="none")
