"""A linear map from items to what a text's likelihood asks of the stream: where the supervised stage starts.

To first order, adding rms(h)·d to the decoder's stream adds ⟨d, s⟩ to a text's mean log-likelihood, s [D] its mean
slope (training.option_texts). With the item vectors x [d] of texts and their slopes s, each less the mean of its task,

    d(x) = x · W,   W = c · (⟨x xᵀ⟩ + λ I)⁻¹ ⟨x sᵀ⟩ (⟨s sᵀ⟩ + ε I)⁻¹

Fisher's discriminant (Hastie et al. 2009, section 4.3), regularised on both sides: slopes vary most along the commonest
words, and a contrast of few tasks, learned step by step, spends itself on them. It is read with a user's state in the
place of the item: a state is what the next item is expected to be, in the same space. Learned from items, what a vector
says in words is free of the error of that prediction. c is by how much the stream changes.
"""

import torch

RIDGE = 3.0
"""λ, in mean variances of an item's axes."""
SHRINKAGE = 0.3
"""ε, in mean variances of a slope's axes."""
SIZES = (0.01, 0.04, 0.16)
"""c that are tried: root mean square of what is added for an item, relative to the stream's."""


def discriminant(items: torch.Tensor, slopes: torch.Tensor) -> torch.Tensor:
    """W [d, D] for c = 1, from items [n, k, d] and slopes [n, k, D] of the k texts of n tasks."""
    x, s = ((part - part.mean(1, keepdim=True)).flatten(0, 1).double() for part in (items, slopes))
    weights = _inverse(x, RIDGE) @ (x.T @ s / len(x)) @ _inverse(s, SHRINKAGE)
    return (weights / (x @ weights).square().mean().sqrt().clamp(min=1e-12)).float()


def _inverse(x: torch.Tensor, share: float) -> torch.Tensor:
    """Inverse of the covariance of x [n, d] about 0, and `share` of its mean variance on the diagonal."""
    covariance = x.T @ x / len(x)
    variance = covariance.diagonal().mean().clamp(min=1e-12)
    return torch.linalg.inv(covariance + share * variance * torch.eye(len(covariance), dtype=x.dtype, device=x.device))
