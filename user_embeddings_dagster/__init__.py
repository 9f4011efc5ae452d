"""Domain library: conversation exports to user embeddings. Only `definitions` and `cli` import Dagster."""

import os

# Arrow asks once, when it is first imported. Its own allocators take 15 MB of the peak of a build more.
os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")

# Polars' allocator asks once too, and keeps what it has freed for good; this way it gives it back.
os.environ.setdefault("_RJEM_MALLOC_CONF", "narenas:1,dirty_decay_ms:100,muzzy_decay_ms:0")
