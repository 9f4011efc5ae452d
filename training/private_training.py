"""Training of the sequence encoder by user: each user's loss alone, clipped, summed, noised (see
`differential_privacy`).

The protected users are those with chunks outside the public DataDAOs. Everything else that a training looks at is the
public users': item space, prior, decay and mean weight, early stopping, and the negatives besides a user's own chunks.
"""

from typing import Any

import numpy as np
import torch

from training.cpc import cpc_objective, negatives_of, time_matched
from training.differential_privacy import Randomness, clipped
from training.sequence_batches import assemble, segments
from training.sequence_training import DAY, Trainer

EARLY = 1  # the step after which the public loss is shown first, for there is no other loss to show


class PrivateTrainer(Trainer):
    """The loop with gradients by user. Nothing of a protected user leaves it but by the noised sums."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        self.size = sum(p.numel() for p in self.parameters)
        self.randomness = (
            Randomness.secret(self.job.work) if self.privacy.dp_secret else Randomness.from_seed(self.settings.seed)
        )
        self.users = self._pieces_by_user()
        public = self.splits.public_chunks
        self.public = torch.from_numpy(public).to(self.corpora["train"].items.device)
        self.pool = np.flatnonzero(public)
        noisy = self.privacy.dp_noise > 0
        self.epsilons = self.privacy.epsilons(self.settings.steps) if noisy else []

    def _pieces_by_user(self) -> list[np.ndarray]:
        """Pieces (begin, length) [S, 2] of each protected user, in all of the user's DataDAOs."""
        histories, states = self.splits.train, self.corpora["train"].states
        pieces = segments(states, self.settings.max_length)
        owner = np.searchsorted(states.begins, pieces[:, 0], side="right") - 1
        protected = ~self.splits.public_histories[owner]
        names = histories.user_ids[owner]
        return [pieces[protected & (names == name)] for name in np.unique(names[protected])]

    def _step(self, step: int) -> dict[str, float]:
        total = self.private_sum(step)
        for group in self.optimizer.param_groups:
            group["lr"] = self._learning_rate(step)
        # Adam does not care for the scale: no number of users is needed for a mean.
        self._set_gradient(total / self.privacy.dp_clip)
        self.optimizer.step()
        return {"epsilon": self.epsilons[step]} if self.epsilons else {}

    def private_sum(self, step: int) -> torch.Tensor:
        """Clipped gradients of the step's sample of users and their noise [P], float64; of nobody: the noise alone."""
        privacy = self.privacy
        sampled = self.randomness.sampled(step, len(self.users), privacy.dp_sampling_rate)
        negatives = self._public_negatives(step)
        total = torch.zeros(self.size, dtype=torch.float64)
        for user in np.flatnonzero(sampled):
            total += clipped(self.user_gradient(self.users[user], negatives), privacy.dp_clip)
        if privacy.dp_noise:
            total += privacy.dp_noise * privacy.dp_clip * self.randomness.normal(step, self.size)
        return total

    def _public_negatives(self, step: int) -> np.ndarray:
        """Public chunks that every user of a step is scored against: rows of the corpus, the same for all."""
        if self.privacy.negatives == "own":
            return self.pool[:0]
        count = min(self.settings.extra_keys, len(self.pool))
        return np.random.default_rng([self.settings.seed, step, 1]).choice(self.pool, count, replace=False)

    def user_gradient(self, pieces: np.ndarray, negatives: np.ndarray) -> torch.Tensor:
        """∇ of one user's mean loss [P]: a function of the user's chunks, the public ones and the weights alone."""
        settings, corpus = self.settings, self.corpora["train"]
        self.model.eval()  # without dropout, whose masks one stream would deal out to all users in turn
        batch = assemble(corpus, pieces, 0, None)
        rows = torch.cat([batch.key_rows, torch.from_numpy(negatives).to(batch.key_rows.device)])
        keys = corpus.keys.take(rows)
        allowed = negatives_of(batch.positives, keys, settings.same_user_negatives, across_datadaos=True)
        if not settings.negatives_across_datadaos:
            same = keys.datadaos[None, :] == keys.datadaos[batch.positives][:, None]
            allowed &= same | self.public[rows][None, :]
        loss = cpc_objective(
            self._queries(batch), corpus.items[rows], batch.positives, allowed,
            time_matched(batch.positives, keys, settings.matched_days * DAY),
            settings.temperature, settings.matched_share, settings.truncation,
        )  # fmt: skip
        gradients = torch.autograd.grad(loss, self.parameters, allow_unused=True, materialize_grads=True)
        return torch.cat([gradient.flatten() for gradient in gradients]).cpu()

    def _set_gradient(self, gradient: torch.Tensor) -> None:
        parts = gradient.split([p.numel() for p in self.parameters])
        for parameter, part in zip(self.parameters, parts, strict=True):
            parameter.grad = part.view_as(parameter).to(parameter)

    def _evaluates(self, step: int) -> bool:
        return step == EARLY or super()._evaluates(step)

    def _metadata(self, steps: int) -> dict[str, Any]:
        metadata = super()._metadata(steps)
        if self.privacy.dp_noise:  # how many they are is theirs too
            del metadata["train_users"], metadata["train_chunks"]
        return metadata | {"public_users": int(self.splits.public_histories.sum()), "public_chunks": len(self.pool)}
