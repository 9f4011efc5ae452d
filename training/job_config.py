"""What the configurations of jobs have in common: a dataclass made from config.json."""

from dataclasses import fields, is_dataclass
from typing import Any, Self

RUNTIME = frozenset(
    {"threads", "device", "checkpoint_seconds", "decoder", "sequence_encoder", "personalised", "supervised"}
)
"""Keys of config.json that are no hyperparameters: how a job runs, and the folders that it reads."""


class JobConfig:
    """Base of a job's configuration, which is a dataclass."""

    @classmethod
    def of(cls, values: dict[str, Any]) -> Self:
        """From config.json. Raises ValueError on an unknown key, or without a seed."""
        assert is_dataclass(cls)
        known = {field.name for field in fields(cls)}
        if unknown := sorted(values.keys() - known - RUNTIME):
            raise ValueError(f"config.json: unknown settings {unknown}")
        if "seed" in known and "seed" not in values:
            raise ValueError("config.json: no seed")
        return cls(**{name: value for name, value in values.items() if name in known})
