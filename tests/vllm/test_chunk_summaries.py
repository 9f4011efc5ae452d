"""The summaries of one DataDAO partition, materialised through a real vLLM as an operator would: by its command."""

import json
import os
import subprocess
import sys
import time

import dagster as dg
import pytest

from user_embeddings_dagster.samples import generate
from user_embeddings_dagster.settings import Layout
from user_embeddings_dagster.storage.lake import Lake

pytestmark = pytest.mark.vllm
DATADAO = "telegram"
TABLES = "chunk_summaries", "unsummarised_chunks"
SECONDS = 500


@pytest.fixture(scope="module")
def layout(tmp_path_factory):
    """A data root with the masked chunks of one sample DataDAO: a few for each contributor."""
    layout = Layout(tmp_path_factory.mktemp("platform"))
    patch = pytest.MonkeyPatch()
    patch.setenv("USER_EMBEDDINGS_DATA", str(layout.root))
    patch.setenv("DAGSTER_HOME", "")
    from user_embeddings_dagster.definitions import defs
    from user_embeddings_dagster.runner import open_instance, register_drops

    generate(layout.landing, seed=3, contributors=24)
    with open_instance(layout.root / "dagster_home") as instance:
        register_drops(instance, layout)
        result = defs.resolve_job_def("prepare_datadao").execute_in_process(
            instance=instance,
            partition_key=DATADAO,
            asset_selection=[
                dg.AssetKey(name) for name in ("messages", "rejected_records", "consent_ledger", "masked_chunks")
            ],
            run_config={"ops": {"masked_chunks": {"config": {"max_chunks_per_user": 3}}}},
        )
    patch.undo()
    assert result.success
    return layout


def materialise(layout, **settings):
    """The command of docs/language_models.md; returns seconds and the statistics of the commit."""
    command = [sys.executable, "-m", "dagster", "asset", "materialize", "-m", "user_embeddings_dagster.definitions"]
    command += ["--select", ",".join(TABLES), "--partition", DATADAO]
    variables = {f"USER_EMBEDDINGS_LANGUAGE_MODEL_{name.upper()}": value for name, value in settings.items()}
    environment = {
        **os.environ, **variables,
        "USER_EMBEDDINGS_DATA": str(layout.root), "DAGSTER_HOME": str(layout.root / "dagster_home"),
    }  # fmt: skip
    started = time.monotonic()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    return time.monotonic() - started, Lake(layout.root).current("chunk_summaries", DATADAO).stats


def accounted(layout, model):
    """Every chunk is summarised by `model`, or listed with its reason; returns how many are which."""
    lake = Lake(layout.root)
    chunks = lake.read("masked_chunks", DATADAO)
    summaries, rest = (lake.read(table, DATADAO) for table in TABLES)
    assert sorted([*summaries["chunk_id"], *rest["chunk_id"]]) == sorted(chunks["chunk_id"])
    assert set(summaries["summarizer"]) | set(rest["summarizer"]) == {model}
    assert not rest["reason"].is_in(["bad_request", "malformed_json", "schema_violation"]).any()
    return summaries.height, rest.height


def report(figures, path, seconds, stats, made, listed):
    share = stats["cached_prompt_tokens_this_run"] / stats["prompt_tokens_this_run"]
    figures[f"asset by {path}: chunks summarised, listed with reason"] = (made, listed)
    figures[f"asset by {path}: seconds of the whole command"] = round(seconds, 1)
    figures[f"asset by {path}: calls, prefix-cache hit share"] = stats["calls_this_run"], round(share, 3)


def test_through_a_server(layout, server, figures):
    """C22: vLLM end to end. A second run asks nothing."""
    settings = {"kind": "openai_compatible", "name": "tiny-qwen3", "base_url": server.url}
    seconds, stats = materialise(layout, **settings)
    made, listed = accounted(layout, "tiny-qwen3")
    assert made > 0 and stats["calls_this_run"] >= made + listed == stats["asked"]
    report(figures, "server", seconds, stats, made, listed)

    asked = server.counter("vllm:request_success_total")
    materialise(layout, **settings)
    assert server.counter("vllm:request_success_total") == asked


def test_through_the_batch_job(layout, tiny_qwen3, figures):
    """C22: the same by `vllm.LLM` in a Pipes job; another model re-summarises all."""
    batch = {"model": str(tiny_qwen3), "dtype": "float32", "max_model_len": 8192, "enforce_eager": True}
    seconds, stats = materialise(layout, kind="vllm_batch", name="tiny-qwen3-batch", batch=json.dumps(batch))
    made, listed = accounted(layout, "tiny-qwen3-batch")
    assert made > 0
    assert list(layout.batches.rglob("*.bin")) == []
    report(figures, "batch job", seconds, stats, made, listed)
