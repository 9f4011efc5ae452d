"""User-level differential privacy of a training: what is added to a sum of gradients, and what that is worth.

    g = Σ over sampled users of clip(∇ loss of the user, C) + σ · C · N(0, I)

A user is sampled in each step with probability q, independently of all others (Poisson sampling), and one user is one
example, however many DataDAOs and chunks. Adding or removing a user then changes the sum by at most C, so that each
step is a subsampled Gaussian mechanism (Abadi et al. 2016, "Deep Learning with Differential Privacy",
arXiv:1607.00133; users as examples: McMahan et al. 2018, arXiv:1710.06963). That holds only where no user's gradient
depends on another user: not with negatives from the batch.

Opacus does the accounting; it is asked for only when there is noise to account for.
"""

import hashlib
import os
import struct
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20

BATCH, OWN, PUBLIC = "batch", "own", "public"
NO_PRIVACY = "no DP"
KEY_FILE = "dp.key"
COINS, NOISE = 0, 1  # what a stream of randomness is for


@dataclass(frozen=True)
class PrivacySettings:
    """Configuration of private training; every field may stand in config.json.

    `dp_noise` σ (0: no differential privacy), `dp_clip` C, `dp_delta` δ, `dp_sampling_rate` q. `negatives`: the batch's
    chunks ("batch"), the user's own alone ("own"), or these and chunks of the `public_datadaos` ("public"). Without
    "batch", the users of `public_datadaos` are not protected: negatives, item space, tuning and early stopping are
    theirs, and nobody else's. `dp_secret` False draws noise and samples from `seed`: reproducible, and no protection
    against whoever knows the seed.
    """

    dp_noise: float = 0.0
    dp_clip: float = 1.0
    dp_delta: float = 1e-5
    dp_sampling_rate: float = 0.05
    dp_secret: bool = True
    negatives: str = BATCH
    public_datadaos: tuple[str, ...] = ()

    @classmethod
    def of(cls, config: dict[str, Any]) -> "PrivacySettings":
        """From config.json. Raises ValueError, naming the setting, where a guarantee would be false."""
        names = {field.name for field in fields(cls)}
        # A misspelt setting must not train without privacy.
        if unknown := sorted(key for key in config if key.startswith("dp_") and key not in names):
            raise ValueError(f"config.json: {unknown} are no settings of private training")
        given = {name: value for name, value in config.items() if name in names}
        settings = cls(**{**given, "public_datadaos": tuple(sorted(given.get("public_datadaos") or ()))})
        settings._refuse_wrong_values()
        settings._refuse_coupled(config.get("same_user_negatives", "future"))
        return settings

    def _refuse_wrong_values(self) -> None:
        if not (0 <= self.dp_noise < np.inf and 0 < self.dp_clip < np.inf):
            raise ValueError("config.json: dp_noise ≥ 0 and dp_clip > 0, both finite, are needed")
        if not (0 < self.dp_delta < 1 and 0 < self.dp_sampling_rate <= 1):
            raise ValueError("config.json: 0 < dp_delta < 1 and 0 < dp_sampling_rate ≤ 1 are needed")
        if self.negatives not in (BATCH, OWN, PUBLIC):
            raise ValueError(f"config.json: negatives must be one of {(BATCH, OWN, PUBLIC)}, not {self.negatives!r}")

    def _refuse_coupled(self, same_user: str) -> None:
        if self.negatives == BATCH:
            if self.dp_noise:
                raise ValueError(
                    f"config.json: dp_noise {self.dp_noise} with negatives {BATCH!r}: a user's loss would depend on "
                    f"the batch's other users, so that clipping would bound nobody's influence and ε would be false; "
                    f"set negatives to {OWN!r} or {PUBLIC!r}"
                )
            if self.public_datadaos:
                raise ValueError(f"config.json: public_datadaos have no use with negatives {BATCH!r}")
        elif not self.public_datadaos:
            raise ValueError(
                f"config.json: negatives {self.negatives!r} without public_datadaos: whitening, axes, prior, decay and "
                f"early stopping would be fitted on the users who are to be protected"
            )
        elif self.negatives == OWN and same_user == "none":
            raise ValueError(f"config.json: negatives {OWN!r} with same_user_negatives 'none' leave no negative")

    @property
    def per_user(self) -> bool:
        """Whether each user is trained on alone."""
        return self.negatives != BATCH

    def accounting(self, steps: int) -> dict[str, Any]:
        """Metadata of a training that may take `steps` steps.

        The ε of all steps, though early stopping may end before: when to stop was decided by looking at the weights.
        """
        if self.dp_noise == 0:
            return {"privacy": NO_PRIVACY}
        epsilon = self.epsilons(steps)[-1] if steps else 0.0
        drawn = "secret" if self.dp_secret else "from the seed: no protection against whoever knows it"
        return {
            "privacy": f"per user ({epsilon:.3g}, {self.dp_delta:g})-DP given the item vectors; noise {drawn}",
            "dp_epsilon": epsilon,
            "dp_epsilon_prv": tight_epsilon(self.dp_noise, self.dp_sampling_rate, steps, self.dp_delta),
            "dp_delta": self.dp_delta,
            "dp_noise": self.dp_noise,
            "dp_clip": self.dp_clip,
            "dp_sampling_rate": self.dp_sampling_rate,
            "dp_steps": steps,
            "dp_negatives": self.negatives,
            "dp_public_datadaos": ", ".join(self.public_datadaos),
        }

    def epsilons(self, steps: int) -> list[float]:
        """ε after each of `steps` steps, by Rényi differential privacy (what opacus' RDPAccountant says)."""
        from opacus.accountants import RDPAccountant
        from opacus.accountants.analysis import rdp

        orders = RDPAccountant.DEFAULT_ALPHAS
        once = rdp.compute_rdp(
            q=self.dp_sampling_rate, noise_multiplier=self.dp_noise, steps=1, orders=orders
        )  # adds up over steps
        return [
            float(rdp.get_privacy_spent(orders=orders, rdp=step * once, delta=self.dp_delta)[0])
            for step in range(1, steps + 1)
        ]


def tight_epsilon(noise: float, rate: float, steps: int, delta: float) -> float:
    """ε by privacy loss random variables (Gopi, Lee and Wutschitz 2021, arXiv:2106.02848): tighter, to within 0.01."""
    from opacus.accountants import PRVAccountant

    accountant = PRVAccountant()
    accountant.history = [(noise, rate, steps)]
    return float(accountant.get_epsilon(delta)) if steps else 0.0


class Randomness:
    """Samples and noise of any step, from a key and the step alone: ChaCha20's stream (RFC 8439) as uniform numbers.

    Torch's and NumPy's generators would do for statistics, but who sees enough of their output can predict the rest.
    """

    def __init__(self, key: bytes) -> None:
        self._algorithm_key = key

    @classmethod
    def from_seed(cls, seed: int) -> "Randomness":
        """Reproducible, and known to whoever knows the seed."""
        return cls(hashlib.sha256(f"differential privacy {seed}".encode()).digest())

    @classmethod
    def secret(cls, folder: Path) -> "Randomness":
        """From the operating system's entropy; the key lies in `folder` until the folder goes, so that a training that
        was killed adds the same noise again instead of showing two noises of one sum."""
        path = folder / KEY_FILE
        if not path.exists():
            temporary = path.with_suffix(f".{os.getpid()}")
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            try:
                os.write(descriptor, os.urandom(32))
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            temporary.replace(path)
        return cls(path.read_bytes())

    def sampled(self, step: int, users: int, rate: float) -> np.ndarray:
        """Which of `users` take part in a step: bool [users], each by a coin of its own."""
        return self._uniform(step, COINS, users) < rate

    def normal(self, step: int, n: int) -> torch.Tensor:
        """n standard normal numbers, float64 (Box and Muller 1958; |x| < 8.6, as 53 bits allow)."""
        uniform = self._uniform(step, NOISE, 2 * ((n + 1) // 2)).reshape(2, -1)
        radius, angle = np.sqrt(-2 * np.log1p(-uniform[0])), 2 * np.pi * uniform[1]
        return torch.from_numpy(np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:n])

    def _uniform(self, step: int, purpose: int, n: int) -> np.ndarray:
        nonce = struct.pack("<QII", 0, step, purpose)  # the counter, then what no two streams share
        stream = Cipher(ChaCha20(self._algorithm_key, nonce), mode=None).encryptor().update(bytes(8 * n))
        return (np.frombuffer(stream, dtype="<u8") >> 11) * 2.0**-53


def clipped(gradient: torch.Tensor, clip: float) -> torch.Tensor:
    """A gradient [P] at length `clip` at most, in float64; one that is not finite counts as zero, or it would reach
    everything whatever the clip."""
    gradient = gradient.double()
    norm = float(gradient.norm())
    if not np.isfinite(norm):
        return torch.zeros_like(gradient)
    return gradient * (clip / max(norm, clip))
