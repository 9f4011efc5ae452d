"""What the settings of an asset are: Dagster config whose values are refused by name if they cannot be meant."""

from typing import Any, Self

import dagster as dg
from pydantic import ModelWrapValidatorHandler, ValidationError, model_validator


class AssetConfig(dg.Config):
    """Settings of one asset. Their bounds are fields' own; Dagster's launchpad knows types and lists of words alone."""

    @model_validator(mode="wrap")
    @classmethod
    def _refuse(cls, given: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        """Raises Failure that names the settings out of bounds: they stay so however often a step is tried again."""
        try:
            return handler(given)
        except ValidationError as error:
            told = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors(include_input=False)]
        raise dg.Failure(f"{cls.__name__}: {'; '.join(told)}", allow_retries=False)
