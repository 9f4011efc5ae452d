"""Byte-level BPE tokenizer (Sennrich et al. 2016; Radford et al. 2019) of the base decoder."""

from typing import Any

import polars as pl

END = "<|endoftext|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['content'] }}\n{% endfor %}{% if add_generation_prompt %}{% endif %}"
)


def shared_words(chunks: pl.DataFrame, min_users: int) -> list[str]:
    """Words (with the space before them) that at least `min_users` people wrote themselves, as often as they did.

    `chunks`: user_id, own (what SUBJECT wrote). A tokenizer spells out the words that it is trained on: what fewer
    people wrote must not be readable in its file, and what others say in somebody's chunk is no second witness.
    """
    words = chunks.select("user_id", word=pl.col("own").str.extract_all(r"\s?[^\s]+")).explode("word").drop_nulls()
    shared = words.group_by("word").agg(pl.col("user_id").n_unique().alias("users"), pl.len().alias("times"))
    kept = shared.filter(pl.col("users") >= min_users).sort("word")
    return [word for word, times in kept.select("word", "times").iter_rows() for _ in range(times)]


def train_tokenizer(chunks: pl.DataFrame, vocabulary: int, min_users: int) -> Any:
    """A fast tokenizer trained on `chunks` (user_id, own); any text can be written with it, byte by byte at worst."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(shared_words(chunks, min_users), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=END, eos_token=END, pad_token=END, chat_template=CHAT_TEMPLATE
    )
