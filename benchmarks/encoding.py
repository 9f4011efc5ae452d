"""Encoding texts: TextEncoder against `SentenceTransformer.encode` with its defaults, one thread each, in one run.

The same texts of mixed length, in alternating rounds; the best round of each side counts. Shown: texts per second,
ratios by CPU and by wall, the lowest cosine of a text's two vectors.

    python benchmarks/encoding.py [--texts 256] [--rounds 3]
"""

import argparse
import os
import sys
from collections.abc import Callable
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np

from benchmarks.texts import best, pairs, timed
from user_embeddings_dagster.embedding import base_model
from user_embeddings_dagster.embedding.text_encoder import TextEncoder

BAR, FIDELITY = 1.6, 0.9999


def main() -> int:
    """Print the table; 1 if the default encoder misses a bar."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--texts", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    from sentence_transformers import SentenceTransformer  # pyright: ignore[reportMissingImports]
    from torch import set_num_threads

    set_num_threads(1)
    texts, _ = pairs(arguments.texts)
    reference = SentenceTransformer(str(base_model.model_folder("minilm")), device="cpu")
    sides: dict[str, Callable[[list[str]], Any]] = {"SentenceTransformer.encode": reference.encode}
    native = base_model.native_bfloat16()
    for precision in ("float32", "auto"):
        name = f"TextEncoder {precision}" + (" = bfloat16" if native else " = float32") * (precision == "auto")
        sides[name] = TextEncoder(threads=1, precision=precision).encode
    lengths = [len(row) for row in base_model.tokenize(reference.tokenizer, texts, 256)]
    print(f"{len(texts)} texts, {min(lengths)} to {max(lengths)} tokens, mean {np.mean(lengths):.0f}; one thread")
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    vectors = {}
    for encode in sides.values():
        encode(texts[:16])
    for _ in range(arguments.rounds):
        for name, encode in sides.items():
            cpu, wall, vectors[name] = timed(lambda encode=encode: encode(texts))
            seconds[name].append((cpu, wall))
    (first, *_), (base_cpu, base_wall) = sides, best(seconds["SentenceTransformer.encode"])
    for name in sides:
        cpu, wall = best(seconds[name])
        cosine = float((vectors[name] * vectors[first]).sum(1).min())
        print(
            f"{name:32} {len(texts) / cpu:6.1f} texts/s of CPU  ratio {base_cpu / cpu:.2f} by CPU, "
            f"{base_wall / wall:.2f} by wall  lowest cosine {cosine:.6f}"
        )
    passed = base_cpu / cpu >= BAR and cosine >= FIDELITY
    print(f"the default: {'passes' if passed else 'MISSES'} {BAR} times at cosine {FIDELITY}")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
