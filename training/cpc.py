"""Contrastive Predictive Coding: the InfoNCE loss of a context against the next chunk and negatives.

    L_t = -log  exp(sim(c_t, z_{t+1}) / τ) / (exp(sim(c_t, z_{t+1}) / τ) + Σ_{j=1}^{K-1} exp(sim(c_t, z_j⁻) / τ))

    c_t      context after the chunks 1 … t, projected into the item space
    z_{t+1}  the positive: the user's next chunk
    z_j⁻     K - 1 negatives: other chunks
    sim      cosine
    τ > 0    temperature

van den Oord, Li, Vinyals, "Representation Learning with Contrastive Predictive Coding", arXiv:1807.03748,
eq. 4. A model that knows nothing has L = ln K.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

SAME_USER = ("none", "future", "all")


@dataclass(frozen=True)
class Keys:
    """Chunks that a batch is scored against, one per row; integer codes [K], times in seconds [K] int64."""

    histories: torch.Tensor
    people: torch.Tensor
    windows: torch.Tensor
    positions: torch.Tensor
    times: torch.Tensor
    datadaos: torch.Tensor

    def take(self, rows: torch.Tensor) -> "Keys":
        """The keys of some rows."""
        return Keys(
            self.histories[rows],
            self.people[rows],
            self.windows[rows],
            self.positions[rows],
            self.times[rows],
            self.datadaos[rows],
        )


def cpc_losses(
    queries: torch.Tensor,
    keys: torch.Tensor,
    positives: torch.Tensor,
    negatives: torch.Tensor,
    temperature: float,
) -> torch.Tensor:
    """L_t of each query [Q] (float32), by the formula above.

    queries [Q, D] are the projected contexts c_t, keys [K, D] the chunks z; `positives` [Q] is the row of
    z_{t+1} in `keys`; `negatives` [Q, K] bool says which keys are the z_j⁻ of each query (the positive may
    be either).
    """
    if temperature <= 0:
        raise ValueError(f"the temperature must be positive, not {temperature}")
    similarity = F.normalize(queries, dim=-1) @ F.normalize(keys, dim=-1).T / temperature
    candidates = negatives.scatter(1, positives[:, None], True)
    similarity = similarity.masked_fill(~candidates, float("-inf"))
    return F.cross_entropy(similarity.float(), positives, reduction="none")


def generalised(losses: torch.Tensor, q: float) -> torch.Tensor:
    """(1 - p^q) / q of losses L = -log p; q = 0 is L itself, q = 1 is 1 - p.

    InfoNCE spends its gradient on positives that rank far behind, which no model can lift to the top of a full
    ranking; q moves it to those near the top, where the reciprocal rank is decided. (Zhang and Sabuncu 2018,
    "Generalized Cross Entropy Loss", arXiv:1805.07836, eq. 6.)
    """
    if not 0 <= q <= 1:
        raise ValueError(f"q must be between 0 and 1, not {q}")
    return losses if q == 0 else -torch.expm1(-q * losses) / q


def negatives_of(
    positives: torch.Tensor, keys: Keys, same_user: str = "future", across_datadaos: bool = False
) -> torch.Tensor:
    """Which keys are negatives of the queries whose positives are rows `positives` [Q] of `keys`: [Q, K].

    Never negatives: the positive; chunks cut from the positive's window (the same conversation, seen by
    another SUBJECT: a false negative). Chunks of the same person (in any DataDAO) at other times: "none" of
    them, those of the same history after the positive ("future"), or "all". Chunks of other DataDAOs only with
    `across_datadaos`: they are easily told by their platform alone, and learning to do so costs a small DataDAO's
    ranking of its own chunks.
    """
    if same_user not in SAME_USER:
        raise ValueError(f"same_user must be one of {SAME_USER}, not {same_user!r}")
    allowed = keys.windows[None, :] != keys.windows[positives][:, None]
    if not across_datadaos:
        allowed &= keys.datadaos[None, :] == keys.datadaos[positives][:, None]
    own = keys.people[None, :] == keys.people[positives][:, None]
    if same_user == "none":
        allowed &= ~own
    elif same_user == "future":
        later = keys.positions[None, :] > keys.positions[positives][:, None]
        same_history = keys.histories[None, :] == keys.histories[positives][:, None]
        allowed &= ~own | (same_history & later)
    return allowed.scatter(1, positives[:, None], False)


def time_matched(positives: torch.Tensor, keys: Keys, within_seconds: float) -> torch.Tensor:
    """Which keys lie at most `within_seconds` before or after the positive of each query: bool [Q, K].

    Negatives of the same time share the topic of the day, so that only the person tells them apart.
    """
    return (keys.times[None, :] - keys.times[positives][:, None]).abs() <= within_seconds


def cpc_objective(
    queries: torch.Tensor,
    keys: torch.Tensor,
    positives: torch.Tensor,
    negatives: torch.Tensor,
    matched: torch.Tensor,
    temperature: float,
    matched_share: float,
    truncation: float = 0.0,
) -> torch.Tensor:
    """Mean loss: (1 - share) · L over all negatives + share · L over the time-matched ones alone.

    A query without a time-matched negative takes no part in the second mean. With a `truncation` q above 0, each L
    becomes `generalised` (L, q).
    """
    loss = generalised(cpc_losses(queries, keys, positives, negatives, temperature), truncation).mean()
    close = negatives & matched
    has_close = close.any(dim=1)
    if matched_share == 0 or not bool(has_close.any()):
        return loss
    near = cpc_losses(queries[has_close], keys, positives[has_close], close[has_close], temperature)
    return (1 - matched_share) * loss + matched_share * generalised(near, truncation).mean()
