"""The two fruit chunks: two people ask for the same favour in two threads, beside chunks of the sample exports."""

import dataclasses
import random
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

import user_embeddings_dagster.samples as samples
from training import item_data
from training.item_encoder import Config, ItemTraining
from user_embeddings_dagster.embedding.text_encoder import TextEncoder
from user_embeddings_dagster.keys import content_id
from user_embeddings_dagster.mining.hard_negatives import mine
from user_embeddings_dagster.mining.pairs import with_negatives
from user_embeddings_dagster.mining.rankers import FrozenRanker
from user_embeddings_dagster.mining.relabelling import relabel

FRUIT = [
    "<P1>: I'm going to the store.\n<P2>: Cool, can I come with you?\nSUBJECT: Can you buy me some fruits?",
    "<P1>: I'm going out for a walk.\nSUBJECT: If you pass by the store, can you buy me some fruits?",
]
FAVOUR = [
    "SUBJECT asks somebody who is going to the store for a favour, to buy fruits.",
    "SUBJECT is asking for a favour, to buy fruits, to someone who is passing by the store.",
]
MARGIN, OTHERS = 0.95, 46


def sentences() -> list[str]:
    """Lines of the sample exports' topics, the markup and the alternatives taken away."""
    folder = Path(samples.__file__).parent / "content" / "topics"
    lines = [line for path in sorted(folder.glob("*.txt")) for line in path.read_text().splitlines()]
    plain = [line[2:].replace("{", "").replace("}", "").split("|")[0] for line in lines if len(line) > 40]
    return [line for line in plain if "<" not in line]


@pytest.fixture(scope="module")
def pairs() -> pl.DataFrame:
    """Training pairs of the fruit chunks and of others, whose summary is SUBJECT's sentence, base vectors on both."""
    rng = random.Random(3)
    others = rng.sample(sentences(), 2 * OTHERS)
    texts = FRUIT + [f"<P1>: {a}\nSUBJECT: {b}" for a, b in zip(others[::2], others[1::2], strict=True)]
    summaries = FAVOUR + [f"SUBJECT says: {line}" for line in others[1::2]]
    encoder = TextEncoder(threads=1, precision="float32")
    return pl.DataFrame(
        {
            "chunk_id": [content_id(text) for text in texts],
            "datadao": "dao",
            "user_id": [f"u{i}" for i in range(len(texts))],
            "window_id": [f"w{i}" for i in range(len(texts))],
            "split": "train",
            "text": texts,
            "chunk_vector": pl.Series(encoder.encode(texts)).cast(pl.List(pl.Float32)),
            "summary_vector": pl.Series(encoder.encode(summaries)).cast(pl.List(pl.Float32)),
        }
    )


def places(data: item_data.Pairs) -> tuple[int, int]:
    """Rows of the two fruit chunks, whose tokens end alike."""
    ending = [row for row, tokens in enumerate(data.tokens) if tokens[-4:] == FRUIT_END]
    first, second = ending
    return first, second


FRUIT_END: list[int] = []


def prepared(pairs: pl.DataFrame, folder: Path, margin: float) -> tuple[ItemTraining, item_data.Pairs, set]:
    mined = mine(pairs, k=8, margin=margin).negatives
    path = folder / f"pairs{margin}.parquet"
    with_negatives(pairs, mined).write_parquet(path)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    training = ItemTraining(Config(seed=0, top_layers=2, steps=10, batch_size=24, negatives=2), "cpu")
    FRUIT_END[:] = training.tokenizer(FRUIT[0])["input_ids"][-4:]
    data = item_data.load(path, training.tokenizer, 256, margin)["train"]
    return training, data, set(mined.select("chunk_id", "negative_chunk_id").rows())


def competed(data: item_data.Pairs, config: Config, every: bool = False) -> int:
    """In how many steps one fruit chunk's summary competes as the other's negative, in batch or mined.

    `every`: each step holds all summaries, for relabelled chunks are nobody's target by chance.
    """
    a, b = places(data)
    found = 0
    for step in range(config.steps):
        rows = data.queries[item_data.batch_rows(len(data.queries), config.batch_size, config.seed, step)]
        over = item_data.candidates(data, rows, config.negatives, config.seed, step)
        if every:
            rows = data.queries
            over = item_data.all_candidates(data, rows)
        for own, other in ((a, b), (b, a)):
            column = (over.vectors == data.summaries[other]).all(1)
            for query in np.flatnonzero(rows == own):
                column[over.positives[query]] = False
                found += int(over.allowed[query][column].sum())
    return found


def test_fruit_chunks_are_no_negatives_and_end_close(pairs: pl.DataFrame, tmp_path: Path) -> None:
    """C30: never mined nor competing in a batch; after training closer than 95% of the pairs of chunks.

    The broken twin has no threshold (margin 1.0 of a positive that counts as certain): there they do compete.
    """
    training, data, mined = prepared(pairs, tmp_path, MARGIN)
    fruit = [content_id(text) for text in FRUIT]
    assert not {(fruit[0], fruit[1]), (fruit[1], fruit[0])} & mined
    assert mined  # others have hard negatives
    assert competed(data, training.config) == 0
    for step in range(1, training.config.steps + 1):
        training.step(data, step)
    with torch.no_grad():
        vectors = torch.cat([training.encode(data, np.arange(i, i + 8)) for i in range(0, len(data), 8)]).numpy()
    similarity = vectors @ vectors.T
    a, b = places(data)
    others = similarity[np.triu_indices(len(data), 1)]
    assert similarity[a, b] > np.quantile(others, 0.95)

    none = torch.ones_like(data.limit)
    twin = item_data.Pairs(**{**vars(data), "limit": none, "positive_limit": none})
    assert competed(twin, training.config) > 0


def test_relabelled_fruit_chunks_are_no_negatives(pairs: pl.DataFrame, tmp_path: Path) -> None:
    """C30: relabelling may make them each other's positive, never each other's negative, ranked or in a batch.

    Also where one's positive is a summary unlike both. The broken twin looks at the positive alone.
    """
    fruit = [content_id(text) for text in FRUIT]
    said = pl.col("text").str.split("SUBJECT: ").list.last()
    texts = pairs.select(
        "chunk_id", "user_id", speakers=pl.concat_list(pl.lit("SUBJECT")), turns=pl.concat_list(said), summary=said
    )
    result = relabel(pairs, texts, FrozenRanker(), candidates=20)
    chosen = {row["chunk_id"]: row for row in result.pairs.iter_rows(named=True)}
    for own, other in (fruit, reversed(fruit)):
        assert own not in chosen or chosen[own]["negative_chunk_id"] != other
        assert own not in chosen or chosen[own]["positive_chunk_id"] in fruit
    assert result.stats["kept"] > OTHERS / 2
    elsewhere = result.pairs["negative_chunk_id"][0]
    moved = pl.DataFrame(
        [{"chunk_id": f, "positive_chunk_id": elsewhere, "negative_chunk_id": elsewhere} for f in fruit]
    )
    others = result.pairs.filter(~pl.col("chunk_id").is_in(fruit)).select(moved.columns)
    mined = mine(pairs, k=8, margin=MARGIN).negatives
    path = tmp_path / "relabelled.parquet"
    with_negatives(pairs, mined, pl.concat([others, moved])).write_parquet(path)
    training, _, _ = prepared(pairs, tmp_path, MARGIN)
    data = item_data.load(path, training.tokenizer, 256, MARGIN)["train"]
    data = dataclasses.replace(data, positive_limit=torch.full_like(data.limit, 0.9))  # of a positive that fits well
    a, b = places(data)
    assert data.positives[a] == data.positives[b] != a
    assert competed(data, training.config, every=True) == 0
    twin = dataclasses.replace(data, limit=torch.ones_like(data.limit))
    assert competed(twin, training.config, every=True) > 0
