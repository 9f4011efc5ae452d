"""What stands for a text while messages are merged: texts are long, and every decision is made on narrow columns."""

import polars as pl

NEAR_MIN_CHARACTERS = 20  # of normalised text: shorter ones ("thanks a lot") are said again in good faith
FINGERPRINTS = pl.Schema({"n_bytes": pl.Int64(), "text_hash": pl.UInt64(), "near_hash": pl.UInt64()})


def fingerprints(staged: pl.DataFrame) -> pl.DataFrame:
    """The frame with the columns of FINGERPRINTS for its `text`: bytes of UTF-8, 64 bits that stand for the text, and
    64 bits for its letters and digits alone (without case and what is between words); null where those are few.

    Hashes are equal within one version of Polars, and so are compared within one build alone.
    """
    text = pl.col("text")
    longer = pl.when(text.str.len_chars() >= NEAR_MIN_CHARACTERS).then(text)
    plain = longer.str.to_lowercase().str.replace_all(r"[^\p{L}\p{M}\p{N}]+", " ").str.strip_chars(" ")
    return staged.with_columns(
        n_bytes=text.str.len_bytes().cast(pl.Int64), text_hash=text.hash(), near_hash=plain
    ).with_columns(
        near_hash=pl.when(pl.col("near_hash").str.len_chars() >= NEAR_MIN_CHARACTERS).then(pl.col("near_hash").hash())
    )
