"""What each leakage asset measures: loads, attacks, and returns scores."""

from collections.abc import Mapping

import numpy as np
import polars as pl

from user_embeddings_dagster.evaluation.bootstrap import MIN_USERS
from user_embeddings_dagster.evaluation.histories import Histories, histories_of
from user_embeddings_dagster.evaluation.inputs import EvaluationInputs
from user_embeddings_dagster.evaluation.leakage.canaries import Canaries, add_exposures, exposures, prompts
from user_embeddings_dagster.evaluation.leakage.cross_user import (
    add_item_search,
    add_reidentification,
    add_user_search,
)
from user_embeddings_dagster.evaluation.leakage.inversion import (
    WordTask,
    add_retrieval,
    add_words,
    presence,
    vocabulary,
)
from user_embeddings_dagster.evaluation.leakage.membership import (
    Losses,
    add_membership,
    item_losses,
    matched_users,
    sequence_losses,
)
from user_embeddings_dagster.evaluation.measure import Encoder, SequenceModel
from user_embeddings_dagster.evaluation.ranking import sampled
from user_embeddings_dagster.evaluation.scores import ScoreSheet
from user_embeddings_dagster.mining.pairs import training_pairs, vector_frame
from user_embeddings_dagster.privacy.consent.grants import COMPARE
from user_embeddings_dagster.privacy.consent.live import consented_snapshot
from user_embeddings_dagster.storage.lake import Lake
from user_embeddings_dagster.storage.lance_tables import LanceTables, stacked

MEMBERSHIP, INVERSION = "membership_inference_scores", "embedding_inversion_scores"
CROSS_USER, EXPOSURE = "cross_user_retrieval_scores", "canary_exposure_scores"
ROWS_PER_USER = 8  # of a slice of chunks: more of the same person say little more
DECODER_TEXTS = {"train": 4_000, "valid": 1_000, "test": 2_000}
SEARCHES = 200

Models = Mapping[str, SequenceModel]


def measure_membership(lake: Lake, lance: LanceTables, seed: int, tuned_version: str, models: Models) -> pl.DataFrame:
    """Attacks on the item encoder and on each sequence encoder, over all DataDAOs and within each."""
    inputs = EvaluationInputs.of_users(lake, lance, seed)
    parts = []
    for datadao in ("all", *inputs.held_out("test")):
        snapshot = inputs.snapshot if datadao == "all" else inputs.snapshot.filter(datadao=datadao)
        sheet = ScoreSheet(inputs.scope(MEMBERSHIP, datadao))
        matched = matched_users(snapshot, seed)
        alone = matched.is_empty()
        losses = Losses.of_nobody() if alone else item_losses(_pairs(matched, snapshot, lake, lance), seed)
        add_membership(sheet, "item_encoder", _slices("item chunks", "item users", losses, sheet), tuned_version)
        histories, member = _matched_histories(inputs, snapshot, matched_users(snapshot, seed, at_least=2))
        for name, model in models.items():
            alone = histories.n_histories == 0
            losses = Losses.of_nobody() if alone else sequence_losses(histories, member, model(histories), seed)
            slices = _slices("next chunks", "sequence users", losses, sheet)
            add_membership(sheet, name, slices, model.encoder.version)
        parts.append(sheet.frame())
    return pl.concat(parts)


def _slices(rows: str, users: str, losses: Losses, sheet: ScoreSheet) -> list[tuple[str, Losses]]:
    """By user, and over all DataDAOs also by row."""
    by_user = [(users, losses.by_user())]
    everyone = sheet.scope.datadao == "all"
    return [(rows, losses.sampled(ROWS_PER_USER, sheet.scope.seed)), *by_user] if everyone else by_user


def _pairs(matched: pl.DataFrame, snapshot: pl.DataFrame, lake: Lake, lance: LanceTables) -> pl.DataFrame:
    """Chunks of the matched users with their vectors: frozen, tuned, and of the summary."""
    mine = snapshot.join(matched, on=["datadao", "user_id"])
    tuned = vector_frame(lance, "item_embeddings", mine["datadao"].unique().sort().to_list())
    pairs = training_pairs(mine.drop("member"), lake, lance).join(mine.select("chunk_id", "member"), on="chunk_id")
    return pairs.join(tuned.rename({"vector": "item_vector"}), on="chunk_id", how="left")


def _matched_histories(
    inputs: EvaluationInputs, snapshot: pl.DataFrame, matched: pl.DataFrame
) -> tuple[Histories, np.ndarray]:
    """Histories of the matched users, and which are of members [n_histories]."""
    rows = snapshot.join(matched, on=["datadao", "user_id"])
    histories = histories_of(rows, inputs.chunk_ids, inputs.vectors, inputs.contexts)
    members = rows.select("datadao", "user_id", "member").unique().sort("datadao", "user_id")
    return histories, members["member"].to_numpy()


def measure_inversion(lake: Lake, lance: LanceTables, seed: int, tuned_version: str, models: Models) -> pl.DataFrame:
    """Texts and words found again from vectors of held-out users, all DataDAOs together."""
    inputs = EvaluationInputs.of_users(lake, lance, seed)
    summaries = EvaluationInputs.load(lake, lance, "summary_embeddings", seed)
    histories = {split: inputs.histories(split) for split in DECODER_TEXTS}
    sheet = ScoreSheet(inputs.scope(INVERSION))
    test = histories["test"]
    if test.n_histories == 0:
        return inputs.omitted(INVERSION, "f1", "no held-out user has a text to read back")
    assert test.contexts is not None  # of_users reads them
    users = test.user_ids[test.history_of_row]
    of_item = {"slice_": "item vector to text", "version": tuned_version}
    add_retrieval(sheet, "item_encoder", test.vectors, test.contexts, users, **of_item)
    of_summary = {"slice_": "summary vector to text", "version": "base"}
    add_retrieval(sheet, "summary", summaries.vectors_of(test.chunk_ids), test.contexts, users, **of_summary)
    for name, model in models.items():
        answers, last = model(test), test.last_rows
        task = {"slice_": "user embedding to last text", "version": model.encoder.version}
        add_retrieval(sheet, name, answers.queries[last], answers.candidates[last], test.user_ids, **task)
    _add_decoders(sheet, lake, inputs, summaries, histories, tuned_version, models)
    return sheet.frame()


def _add_decoders(
    sheet: ScoreSheet, lake: Lake, inputs: EvaluationInputs, summaries: EvaluationInputs,
    histories: Mapping[str, Histories], tuned_version: str, models: Models,
) -> None:  # fmt: skip
    """Words of chunks from item, frozen and summary vectors; words of the last chunk from user embeddings."""
    frames = [lake.scan("masked_chunks", name).select("chunk_id", "text") for name in inputs.datadaos]
    texts = pl.concat(frames).unique("chunk_id", keep="first").collect()
    seed = sheet.scope.seed

    def texts_of(chunks: np.ndarray) -> pl.Series:
        asked = pl.DataFrame({"chunk_id": chunks}, schema={"chunk_id": pl.String})
        return asked.join(texts, on="chunk_id", how="left", maintain_order="left")["text"]

    rows = {split: sampled(np.arange(len(h.vectors)), DECODER_TEXTS[split], seed) for split, h in histories.items()}
    chosen = {split: texts_of(h.chunk_ids[rows[split]]) for split, h in histories.items()}
    words = vocabulary(chosen["train"])
    vectors: dict[str, dict[str, np.ndarray]] = {"item_encoder": {}, "untuned": {}, "summary": {}}
    for split, history in histories.items():
        assert history.contexts is not None
        vectors["item_encoder"][split] = history.vectors[rows[split]]
        vectors["untuned"][split] = history.contexts[rows[split]]
        vectors["summary"][split] = summaries.vectors_of(history.chunk_ids[rows[split]])
    test = histories["test"]
    task = WordTask(
        vectors,
        {split: presence(text, words) for split, text in chosen.items()},
        test.user_ids[test.history_of_row[rows["test"]]],
    )
    add_words(sheet, task, {"item_encoder": tuned_version, "untuned": "base", "summary": "base"}, slice_="words")
    last = {split: presence(texts_of(h.chunk_ids[h.last_rows]), words) for split, h in histories.items()}
    states = {name: {split: model.states(h) for split, h in histories.items()} for name, model in models.items()}
    versions = {name: model.encoder.version for name, model in models.items()}
    add_words(sheet, WordTask(states, last, test.user_ids), versions, slice_="words of last text")


def measure_cross_user(lake: Lake, lance: LanceTables, seed: int, tuned_version: str, models: Models) -> pl.DataFrame:
    """Searches with held-out users' vectors in everybody's, of each DataDAO; user embeddings also across them."""
    inputs = EvaluationInputs.of_users(lake, lance, seed)
    parts = []
    for datadao in inputs.held_out("test"):
        sheet = ScoreSheet(inputs.scope(CROSS_USER, datadao))
        owners = lance.read(datadao, "item_embeddings", ["id", "user_id"])
        held_out = inputs.snapshot.filter(datadao=datadao, split="test").select("chunk_id").sort("chunk_id")
        asked = held_out[sampled(np.arange(held_out.height), SEARCHES, seed)]["chunk_id"].to_list()
        queries = lance.read(datadao, "item_embeddings", ["id", "user_id", "vector"], asked)
        add_item_search(sheet, lance, datadao, owners, queries, tuned_version)
        histories = inputs.histories("test", datadao)
        for name, model in models.items():
            answers = model(histories)
            queries_of = answers.queries[histories.last_rows]
            add_user_search(sheet, name, queries_of, answers.candidates, histories, model.encoder.version)
        parts.append(sheet.frame())
    sheet = ScoreSheet(inputs.scope(CROSS_USER))
    # Linking a person's DataDAOs compares them: only of people who have consented to that.
    everyone = consented_snapshot(lake, COMPARE).sort("datadao", "user_id", "position")
    histories = histories_of(everyone, inputs.chunk_ids, inputs.vectors, inputs.contexts)
    datadaos = everyone.unique(["datadao", "user_id"], keep="first", maintain_order=True)["datadao"].to_numpy()
    for name, model in models.items():
        states = model.states(histories)
        add_reidentification(sheet, name, states, histories.user_ids, datadaos, model.encoder.version)
    scores = pl.concat([*parts, sheet.frame()])
    if scores.is_empty():
        return inputs.omitted(CROSS_USER, "foreign@10", f"no DataDAO has {MIN_USERS} held-out users to search for")
    return scores


def measure_exposure(
    inputs: EvaluationInputs, pool: pl.DataFrame, canaries: Canaries, encoder: Encoder
) -> pl.DataFrame:
    """Exposure of the canaries in an encoder that was trained with them, by how often they were inserted."""
    asked = prompts(pool, canaries)
    _, queries = encoder.encode_positions(asked)
    last = (asked["position"] == asked["position"].max()).to_numpy()
    vectors, contexts = stacked(pool["vector"]), stacked(pool["context"])
    found, n = exposures(queries[last], encoder.targets(vectors, contexts), canaries)
    sheet = ScoreSheet(inputs.scope(EXPOSURE))
    add_exposures(sheet, "sequence_encoder", found, n, canaries, encoder.version)
    return sheet.frame()
