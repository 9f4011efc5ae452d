"""The text encoder that embeds chunks, summaries and queries."""

from pathlib import Path

import dagster as dg

from user_embeddings_dagster.embedding.text_encoder import TextEncoder


class TextEncoderResource(dg.ConfigurableResource):
    """Builds text encoders. `base`: 'minilm' (carried by a package) or the folder of any HF encoder."""

    base: str = "minilm"
    max_tokens: int = 256
    tokens_per_batch: int = 1024
    threads: int = 0

    def load(self, adapter: Path | None = None) -> TextEncoder:
        """The frozen base encoder, or the item encoder when `adapter` is a trained LoRA folder."""
        return TextEncoder(self.base, adapter, self.max_tokens, self.tokens_per_batch, self.threads or None)
