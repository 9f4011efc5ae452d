"""The whole lineage on small sample exports: C67, C70, and that a second run does nothing."""

import re
import unicodedata
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from benchmarks.small_settings import PERSONALISED
from user_embeddings_dagster.privacy.names import is_ambiguous
from user_embeddings_dagster.runner import open_instance, run_lineage
from user_embeddings_dagster.samples import generate
from user_embeddings_dagster.settings import Layout
from user_embeddings_dagster.storage.inventory import Stored, inventory
from user_embeddings_dagster.storage.lake import Lake
from user_embeddings_dagster.storage.score_table import ScoreTable

DATADAOS = {"chatgpt", "pushshift", "reddit", "telegram"}
# Those whose exports tell names, and how many of them at least are in the messages (ChatGPT's tell none).
NAMED = {"pushshift": 1, "reddit": 1, "telegram": 10}
FAST = {
    "masked_chunks": {"max_chunks_per_user": 6},
    "masked_chunks:pushshift": {"max_chunks_per_user": 5},
    "item_encoder": {"steps": 4, "batch_size": 16},
    "sequence_encoder": {"steps": 10},
    **PERSONALISED,
}


@pytest.fixture(scope="module")
def platform(tmp_path_factory) -> tuple[Layout, list, dict[str, Stored], list, dict[str, Stored]]:
    """One data root after two runs: its layout, and the runs and inventory of each."""
    layout = Layout(tmp_path_factory.mktemp("platform"))
    patch = pytest.MonkeyPatch()
    patch.setenv("USER_EMBEDDINGS_DATA", str(layout.root))
    patch.setenv("DAGSTER_HOME", "")
    layout.key.parent.mkdir(parents=True)
    layout.key.write_text(bytes(range(32)).hex())  # the same splits in every run: of some, nobody has a choice to learn
    generate(layout.landing, seed=3, contributors=24)
    with open_instance(layout.root / "dagster_home") as instance:
        first = run_lineage(instance, layout, ["1024"], FAST, print)
        after_first = inventory(layout)
        trained_at = {path: path.stat().st_mtime_ns for path in layout.models.rglob("*.safetensors")}
        second = run_lineage(instance, layout, ["1024"], FAST, print)
        measured_again = [asset for asset in scored(layout) if not told(instance, asset, "reused")]
    patch.undo()
    untouched = {path: path.stat().st_mtime_ns for path in layout.models.rglob("*.safetensors")} == trained_at
    assert untouched, "the second run trained again"
    assert not measured_again
    return layout, first, after_first, second, inventory(layout)


def scored(layout: Layout) -> list[str]:
    return ScoreTable(layout.scores).read()["asset"].unique().to_list()


def told(instance: dg.DagsterInstance, asset: str, entry: str) -> object:
    """What the latest materialisation of an asset says under an entry of its metadata."""
    event = instance.get_latest_materialization_event(dg.AssetKey(asset))
    assert event and event.asset_materialization
    return event.asset_materialization.metadata[entry].value


def test_every_run_succeeds(platform):
    _, first, _, second, _ = platform
    assert [run for run in first + second if not run.success] == []


def test_settings_of_an_asset_may_differ_by_partition(platform):
    lake = Lake(platform[0].root)
    most = {d: lake.read("masked_chunks", d)["user_id"].value_counts()["count"].max() for d in DATADAOS}
    assert most == dict.fromkeys(DATADAOS, 6) | {"pushshift": 5}


def test_every_stage_of_every_datadao_has_rows(platform):
    """C70."""
    _, _, stored, _, _ = platform
    for datadao in DATADAOS:
        for table in ("lake/messages", "lake/masked_chunks", "lake/chunk_summaries"):
            assert stored[f"{table}/{datadao}"].rows > 0, (table, datadao)
        for table in ("chunk_embeddings", "summary_embeddings", "item_embeddings", "user_embeddings"):
            assert stored[f"lance/{datadao}/{table}"].rows > 0, (table, datadao)


def test_a_second_run_changes_nothing(platform):
    """C67: the same input gives the same hashes: no new row."""
    _, _, after_first, _, after_second = platform
    assert after_second == after_first


def test_every_score_says_what_it_is(platform):
    """Law 6: seed, split hash, candidate set, n."""
    layout = platform[0]
    scores = ScoreTable(layout.scores).read()
    assert set(scores["asset"]) == {
        "cross_user_retrieval_scores",
        "datadao_comparison",
        "efficiency_scores",
        "embedding_inversion_scores",
        "item_encoder_scores",
        "judge_agreement_scores",
        "masking_scores",
        "membership_inference_scores",
        "personalization_scores",
        "reasoning_bias_scores",
        "sequence_encoder_scores",
        "sparse_user_scores",
        "user_matching_scores",
        "user_probe_scores",
    }
    assert (scores["split_hash"].str.len_chars() == 32).all()
    assert (scores["candidate_set"].str.len_chars() > 0).all()


@pytest.mark.parametrize("datadao", sorted(NAMED))
def test_no_name_of_a_participant_is_in_any_chunk(platform, datadao):
    """C9, on the sample exports: no name of anybody in the thread and no word of a display name, however typed.

    Names of one or two letters and of words of grammar alone are left where nobody is addressed. That the same search
    finds names in the messages of these threads shows that it can find.
    """
    lake = Lake(platform[0].root)
    names = by_thread(lake.read("participants", datadao))
    chunks, messages = lake.read("masked_chunks", datadao), lake.read("messages", datadao)
    assert chunks["thread_id"].is_in(list(names)).all()
    texts = chunks["text"].str.replace_all(r"(?m)^(?:SUBJECT|ASSISTANT|<P\d+>): |<[A-Z][A-Z0-9_]*>", "\n")
    assert found(names, chunks["thread_id"], texts) == set()
    told = found(names, messages["thread_id"], messages["text"])
    assert len({name for thread, name in told if thread in set(chunks["thread_id"])}) >= NAMED[datadao], told


def test_platforms_without_names_are_known(platform):
    lake = Lake(platform[0].root)
    assert {d for d in DATADAOS if lake.read("participants", d).height} == set(NAMED)


def test_the_search_for_names_finds_them_however_typed():
    names = {"t": {plain(name) for name in ("Niamh O'Brien", "Łukasz", "Søren", "Anne-Marie", "zoe_b")}}
    texts = ["ask NIAMH O’BRIEN", "thanks lukasz", "soren, Zoë_B", "(anne‑marie)", "annemarie zoe_bx"]
    assert [{name for _, name in found(names, pl.Series(["t"]), pl.Series([text]))} for text in texts] == [
        {"niamh o'brien"}, {"lukasz"}, {"soren", "zoe_b"}, {"anne-marie"}, set(),
    ]  # fmt: skip


def by_thread(participants: pl.DataFrame) -> dict[str, set[str]]:
    """What must not stand in a thread: all names of its people, wherever they bear them, and words of display names."""
    names = participants.select("author_id", "name", "name_kind").unique()
    words = names.filter(name_kind="display_name").with_columns(pl.col("name").str.split(" ")).explode("name")
    borne = pl.concat([names, words]).filter(~pl.col("name").map_elements(is_ambiguous, pl.Boolean))
    joined = participants.select("thread_id", "author_id").unique().join(borne, on="author_id")
    return {str(thread): set(map(plain, frame["name"])) for (thread,), frame in joined.group_by("thread_id")}


def plain(text: str) -> str:
    """Any case, without diacritics, one apostrophe and one dash."""
    text = "".join(c for c in unicodedata.normalize("NFKD", text.casefold()) if not unicodedata.combining(c))
    return text.translate(str.maketrans("łøđıʼ’‘`′‐‑–—−", "lodi" + 5 * "'" + 5 * "-"))


def found(names: dict[str, set[str]], threads: pl.Series, texts: pl.Series) -> set[tuple[str, str]]:
    """(thread, name) of every name that stands in a text of its thread between other characters than letters."""
    return {
        (thread, name)
        for thread, text in zip(threads, map(plain, texts), strict=True)
        for name in names.get(thread, ())
        if name in text and re.search(rf"(?<![^\W_]){re.escape(name)}(?![^\W_])", text)
    }


def test_materialising_one_datadao_leaves_the_others_untouched(platform):
    """C67."""
    layout, before = platform[0], platform[4]
    patch = pytest.MonkeyPatch()
    patch.setenv("USER_EMBEDDINGS_DATA", str(layout.root))
    extra = layout.landing / "chatgpt" / "broken.json"
    extra.write_text('[{"title": "cut off", "mapping": {')
    from user_embeddings_dagster.definitions import defs

    with open_instance(layout.root / "dagster_home") as instance:
        job = defs.resolve_job_def("prepare_datadao")
        config = {"ops": {"masked_chunks": {"config": FAST["masked_chunks"]}}}
        result = job.execute_in_process(run_config=config, instance=instance, partition_key="chatgpt")
    patch.undo()
    extra.with_name("broken.json.sealed").unlink()  # it was sealed once it had been read
    assert result.success
    after = inventory(layout)
    changed = {name for name in before | after if before.get(name) != after.get(name)}
    assert changed and all("/chatgpt" in name for name in changed)
    assert after["lake/rejected_records/chatgpt"].rows == before["lake/rejected_records/chatgpt"].rows + 1
    assert after["lance/chatgpt/chunk_embeddings"] == before["lance/chatgpt/chunk_embeddings"]


def test_check_evaluations_are_recorded(platform):
    """C72: checks of the last run are in the instance, as the UI shows them."""
    with dg.DagsterInstance.from_config(str(Path(platform[0].root) / "dagster_home")) as instance:
        key = dg.AssetCheckKey(dg.AssetKey("masked_chunks"), "exactly_one_subject")
        records = instance.event_log_storage.get_asset_check_execution_history(key, limit=1)
    assert records and records[0].status.value == "SUCCEEDED"
