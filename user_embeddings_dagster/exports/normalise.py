"""Native messages to hashed ones: ids by HMAC-SHA-256, bots by name, participants by thread.

The set work of hashing runs in DuckDB (RFC 2104: H(K ⊕ opad ‖ H(K ⊕ ipad ‖ message))), equal to `keys.keyed_id`.
"""

import duckdb
import polars as pl

from user_embeddings_dagster.keys import user_id
from user_embeddings_dagster.schema import MESSAGES, PARTICIPANTS

_BLOCK = 64  # bytes of a SHA-256 block
# What is written to the staging area: MESSAGES, without the verdict `is_subject`, with what it depends on.
STAGED = pl.Schema(
    {name: dtype for name, dtype in MESSAGES.schema.items() if name != "is_subject"}
    | {"is_owner": pl.Boolean(), "is_public": pl.Boolean(), "numbering": pl.String()}
)
BOT_NAMES = (
    "automoderator", "autotldr", "imguralbumbot", "remindmebot", "sneakpeekbot", "tweetposter", "video_link_bot",
    "wikitextbot", "totesmessenger", "gifvbot", "haikubot", "commonmisspellingbot", "ubottu", "ubotu", "ubot3",
    "chanserv", "nickserv", "github", "groupanonymousbot", "rose", "combot",
)  # fmt: skip
# FooBot, foo_bot, foo-bot2, but not Talbot or robot.
BOT_SUFFIX = r"(?:[a-z0-9]Bot|[_-](?i:bot)[_-]?\d*)$"


def _length_prefixed(text: str) -> bytes:
    raw = text.encode("utf-8")
    return len(raw).to_bytes(4, "big") + raw


class Normaliser:
    """Hashes the batches of one DataDAO.

    `links` maps an account (casefolded) to its contributor. Holds one DuckDB connection; close it.
    """

    def __init__(self, datadao: str, key: bytes, links: dict[str, str], threads: int) -> None:
        self._datadao, self._key, self._links = datadao, key, links
        padded = key.ljust(_BLOCK, b"\0")
        self._inner = bytes(byte ^ 0x36 for byte in padded)
        self._outer = bytes(byte ^ 0x5C for byte in padded)
        self._duckdb = duckdb.connect(config={"threads": threads, "autoinstall_known_extensions": False})

    def close(self) -> None:
        """Free the connection."""
        self._duckdb.close()

    def author(self, platform: str, account: str) -> str:
        """user_id of an account; accounts differ in more than case."""
        return user_id(self._key, platform, account.casefold(), self._links)

    def messages(self, native: pl.DataFrame, platform: str) -> pl.DataFrame:
        """The rows of STAGED for rows of NATIVE_MESSAGES, in the same order.

        A numbering becomes the id that a thread of its name has.
        """
        hashed = self._hashed(
            native.with_columns(scope=pl.coalesce("numbering", "native_thread")), platform,
            message_id=("message", "scope", "native_id"),
            parent_id=("message", "scope", "native_parent"),
            thread_id=("thread", "native_thread"),
            numbering=("thread", "numbering"),
        )  # fmt: skip
        name = pl.coalesce("author_name", "native_author")
        bot = name.str.to_lowercase().is_in(BOT_NAMES) | name.str.contains(BOT_SUFFIX)
        return native.drop("numbering").hstack(hashed).select(
            *(
                column
                for column in STAGED
                if column not in ("datadao", "platform", "author_id", "role")
            ),
            datadao=pl.lit(self._datadao),
            platform=pl.lit(platform),
            author_id=self._authors(native, platform),
            role=pl.when((pl.col("role") == "user") & bot & ~pl.col("is_owner"))
            .then(pl.lit("bot"))
            .otherwise("role"),
        ).select(STAGED.names())  # fmt: skip

    def participants(self, names: pl.DataFrame, platform: str) -> pl.DataFrame:
        """The distinct rows of PARTICIPANTS for rows of `reader.NAMES_SCHEMA`."""
        names = names.unique(maintain_order=True).filter(pl.col("name").str.strip_chars() != "")
        threads = self._hashed(names, platform, thread_id=("thread", "native_thread"))
        return names.hstack(threads).select(
            datadao=pl.lit(self._datadao),
            thread_id="thread_id",
            author_id=self._authors(names, platform),
            name="name",
            name_kind="name_kind",
        ).select(PARTICIPANTS.schema.names())  # fmt: skip

    def _authors(self, frame: pl.DataFrame, platform: str) -> pl.Series:
        accounts = frame["native_author"].unique().drop_nulls()
        folded = pl.DataFrame({"account": [account.casefold() for account in accounts]}, {"account": pl.String})
        hashed = self._hashed(folded, platform, id=("account", "account"))["id"]
        ids = [
            self.author(platform, account) if account in self._links else unlinked
            for account, unlinked in zip(folded["account"], hashed, strict=True)
        ]
        return frame["native_author"].replace_strict(
            accounts, pl.Series(ids, dtype=pl.String), default=None, return_dtype=pl.String
        )

    def _hashed(self, frame: pl.DataFrame, platform: str, **ids: tuple[str, ...]) -> pl.DataFrame:
        """One id column per keyword: HMAC of (kind, platform, the named columns), null if one of them is."""
        parameters: dict[str, object] = {"outer": self._outer}
        columns = []
        for name, (kind, *parts) in ids.items():
            parameters[name] = self._inner + _length_prefixed(kind) + _length_prefixed(platform)
            message = " || ".join(
                [f"${name}::BLOB", *(f"unhex(printf('%08x', strlen({p}))) || encode({p})" for p in parts)]
            )
            columns.append(f"left(sha256($outer::BLOB || unhex(sha256({message}))), 32) AS {name}")
        self._duckdb.register("frame", frame.select({p for _, *parts in ids.values() for p in parts}).to_arrow())
        query = f"SELECT {', '.join(columns)} FROM frame"
        try:
            return pl.DataFrame(self._duckdb.sql(query, params=parameters).to_arrow_table())
        finally:
            self._duckdb.unregister("frame")
