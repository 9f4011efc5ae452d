"""Which decoder it is: by its content, not by where it lies."""

import hashlib
from pathlib import Path

from user_embeddings_dagster.keys import file_sha256

_READ = ("config.json", "tokenizer.json", "tokenizer_config.json")


def decoder_hash(folder: Path) -> str:
    """SHA-256 over the weights, the configuration and the tokenizer in a decoder's folder."""
    digest = hashlib.sha256()
    for path in sorted(path for path in Path(folder).iterdir() if path.suffix == ".safetensors" or path.name in _READ):
        digest.update(f"{path.name}:{file_sha256(path)}\n".encode())
    return digest.hexdigest()
