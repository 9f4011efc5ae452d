"""Summaries by the batch job, from the asset through Pipes to the job and back; `vllm` is a package that echoes."""

import json

import dagster as dg
from granting import grant
from sample_chunks import chunks_about_pears

from assets.chunk_summaries import chunk_summaries
from assets.partitions import datadaos
from resources.language_model import LanguageModelResource
from resources.store import Store
from resources.training_jobs import TrainingJobs
from user_embeddings_dagster.schema import MASKED_CHUNKS

ECHO = """
import json, types

SamplingParams = types.SimpleNamespace

class LLM:
    def __init__(self, **options):
        self.waiting = 0

    def enqueue_chat(self, conversations, sampling, use_tqdm, chat_template_kwargs):
        self.waiting += 1

    def wait_for_completion(self, use_tqdm):
        output = types.SimpleNamespace(text='{"summary": "SUBJECT likes pears."}', finish_reason="stop", token_ids=[1])
        reply = types.SimpleNamespace(outputs=[output], prompt_token_ids=[1, 2], num_cached_tokens=1)
        replies, self.waiting = [reply] * self.waiting, 0
        return replies
"""


def test_summaries_of_a_partition_by_the_batch_job_under_pipes(tmp_path, monkeypatch):
    """C22: `kind="vllm_batch"` from the asset through Pipes to the job and back; nothing stays in the batch folder."""
    package = tmp_path / "packages" / "vllm"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(ECHO)
    (package / "exceptions.py").write_text("class VLLMClientError(Exception): pass\n")
    (package / "sampling_params.py").write_text("from types import SimpleNamespace as StructuredOutputsParams\n")
    monkeypatch.setenv("PYTHONPATH", str(package.parent))
    monkeypatch.syspath_prepend(package.parent)
    store = Store(data=str(tmp_path / "data"))
    store.lake.commit(MASKED_CHUNKS, chunks_about_pears(12), "sample")
    grant(store.lake, "sample", chunks_about_pears(12)["user_id"])
    model = LanguageModelResource(kind="vllm_batch", name="tiny", batch=json.dumps({"model": "tiny@" + 40 * "0"}))
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions(datadaos.name, ["sample"])
        resources = {"store": store, "language_model": model, "training_jobs": TrainingJobs()}
        result = dg.materialize([chunk_summaries], partition_key="sample", resources=resources, instance=instance)
    assert [event.asset_key.to_user_string() for event in result.get_asset_materialization_events()] == [
        "chunk_summaries", "unsummarised_chunks",
    ]  # fmt: skip
    rows = store.lake.read("chunk_summaries", "sample")
    assert rows.height == 12 and set(rows["summarizer"]) == {"tiny"}
    assert [path for path in store.layout.batches.rglob("*") if path.is_file()] == []
