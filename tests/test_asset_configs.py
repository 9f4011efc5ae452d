"""Settings with which nothing can end, or which mean nothing, are refused by name, and not tried again (C68)."""

import typing
from typing import Any

import dagster as dg
import pytest

from assets.config import AssetConfig
from assets.hard_negatives import HardNegativesConfig
from assets.policies import RETRY
from user_embeddings_dagster.definitions import defs


def configs() -> dict[str, type[dg.Config]]:
    """The config of every asset that takes one, by the name of its step."""
    found = {}
    for asset in defs.assets or []:
        if isinstance(asset, dg.AssetsDefinition) and asset.is_executable:
            function = typing.cast(Any, asset.node_def).compute_fn.decorated_fn
            if config := typing.get_type_hints(function).get("config"):
                found[asset.op.name] = config
    return found


CONFIGS = configs()
NUMBERS = [
    (step, name)
    for step, config in CONFIGS.items()
    for name, field in config.model_fields.items()
    if {int, float} & ({*typing.get_args(field.annotation)} or {field.annotation})
]

WORDS = [
    (step, name)
    for step, config in CONFIGS.items()
    for name, field in config.model_fields.items()
    if field.annotation is str or typing.get_origin(field.annotation) is typing.Literal
]


def refused(step: str, settings: dict[str, object]) -> str:
    with pytest.raises(dg.Failure) as caught:
        CONFIGS[step](**settings)
    assert not caught.value.allow_retries
    return str(caught.value.description)


def test_every_config_refuses_at_once():
    assert len(CONFIGS) > 20 and all(issubclass(config, AssetConfig) for config in CONFIGS.values())


@pytest.mark.parametrize(("step", "name"), NUMBERS)
def test_no_number_may_be_negative(step, name):
    assert f"{CONFIGS[step].__name__}: {name}: Input should be greater than" in refused(step, {name: -1})


@pytest.mark.parametrize(
    ("step", "settings"),
    [
        ("item_encoder", {"steps": 0}),
        ("item_encoder", {"batch_size": 1}),
        ("item_encoder", {"temperature": 0.0}),
        ("sequence_encoder", {"window": 0}),
        ("sequence_encoder", {"truncation": 1.5}),
        ("sequence_encoder", {"dp_sampling_rate": 2.0}),
        ("base_decoder", {"batch_size": 0}),
        ("supervised_decoder", {"recall_share": 1.1}),
        ("personalised_decoder", {"samples": 1}),
        ("chunk_summaries", {"max_failed_share": 1.1}),
        ("koais", {"max_failed_share": 1.1}),
        ("hard_negatives", {"margin": 0.0}),
        ("relabelled_pairs", {"candidates": 1}),
        ("relabelled_pairs", {"negative_rank": 21}),
        ("relabelled_pairs", {"candidates": 19}),
        ("masked_chunks", {"max_users": 0}),
        ("negative_ablation_scores", {"seeds": 0}),
        ("masked_chunks", {"max_tokens": float("nan")}),
        ("data_funnel", {"embedding": float("nan")}),
    ],
)
def test_what_cannot_be_meant_is_named(step, settings):
    assert next(iter(settings)) in refused(step, settings)


@pytest.mark.parametrize(("step", "name"), WORDS)
def test_a_word_is_one_of_those_that_the_launchpad_offers(step, name):
    assert f"{CONFIGS[step].__name__}: {name}: Input should be" in refused(step, {name: "another"})
    wrong = {"ops": {step: {"config": {name: "another"}}}}
    with pytest.raises(dg.DagsterInvalidConfigError, match=name):
        dg.validate_run_config(defs.resolve_implicit_global_asset_job_def(), wrong)


def test_a_run_with_such_a_setting_fails_at_its_first_attempt():
    @dg.asset(retry_policy=RETRY)
    def counted(config: HardNegativesConfig) -> None:
        """One row per nothing."""

    run_config = {"ops": {"counted": {"config": {"negatives_per_chunk": 0}}}}
    result = dg.materialize([counted], run_config=run_config, raise_on_error=False)
    assert not [event for event in result.all_events if event.event_type == dg.DagsterEventType.STEP_UP_FOR_RETRY]
    (failed,) = result.get_step_failure_events()
    assert "negatives_per_chunk: Input should be" in failed.step_failure_data.error.message
