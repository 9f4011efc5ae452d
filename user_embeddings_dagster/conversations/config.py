"""How conversations are cut into chunks."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ChunkConfig:
    """Sizes are estimated tokens (UTF-8 bytes / 4), as `estimated_tokens` counts them.

    gap_minutes: silence that ends a window of a linear chat.
    tree_gap_minutes: silence of SUBJECT in one reply tree after which a new chunk starts.
    max_tokens: a window's budget. One message alone may exceed it, and so may SUBJECT's words with the
        ancestors they need: context turns are then shortened, to `min_context_tokens` each at the least.
    max_ancestors: nearest ancestors of a message that are kept, besides the root of its tree.
    max_turn_tokens: where a turn of SUBJECT is cut (a pasted file).
    min_subject_characters: UTF-8 bytes of letters and digits that SUBJECT must have written in a chunk.
    max_chunks_per_user: keep a user's most recent chunks only; None keeps all.
    min_chunks_per_user: users with fewer chunks are left out.
    max_users: keep so many users, a random sample (the smallest keyed hashes); None keeps all.
    mask_persons: also mask names of people who are not in the chat (`privacy.persons`).
    person_model: folder of a token-classification model that finds more of them (`privacy.ner`); None runs none.
    """

    gap_minutes: int = 20
    tree_gap_minutes: int = 24 * 60
    max_tokens: int = 200
    min_context_tokens: int = 16
    max_ancestors: int = 200
    max_turn_tokens: int = 2000
    min_subject_characters: int = 10
    max_chunks_per_user: int | None = None
    min_chunks_per_user: int = 1
    max_users: int | None = None
    mask_persons: bool = True
    person_model: str | None = None


def estimated_tokens(text: str) -> int:
    """About how many word-piece tokens `text` has: UTF-8 bytes / 4, rounded up."""
    return -(-len(text.encode("utf-8", "surrogatepass")) // 4)
