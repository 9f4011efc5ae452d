"""Domain library: conversation exports to user embeddings. Only `definitions` and `cli` import Dagster."""

import os

# Arrow asks once, when it is first imported. Its own allocators take 15 MB of the peak of a build more.
os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
