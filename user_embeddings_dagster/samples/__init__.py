"""Sample exports: invented DataDAOs in the platforms' true export formats, the same bytes for the same seed."""

from user_embeddings_dagster.samples.generator import SampleManifest, generate

__all__ = ["SampleManifest", "generate"]
