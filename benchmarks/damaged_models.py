"""Damaged and hostile model folders against the loaders: every one must be refused, none may run anything.

    python -m benchmarks.damaged_models [--flips 700] [--cuts 300]

Bits are flipped and ends cut off in every file of an item encoder's adapter, a sequence encoder, a base encoder, a
training checkpoint, and the notes beside a version (whom it is trained on, on which vectors). A refusal is
CorruptArtifact that names the file (of the weights and the manifest: the folder). Pickles that would touch a canary
file lie under the names that loaders know, in the place of the weights and beside them, also in folders with a
manifest made after. Control: safetensors and torch.load take nearly
every flipped file, and torch.load without its guard does run the pickle.
"""

import argparse
import contextlib
import json
import os
import pickle
import random
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from user_embeddings_dagster.storage.manifest import MANIFEST, CorruptArtifact, finalise
from user_embeddings_dagster.storage.models import Models

PICKLES = ("pytorch_model.bin", "adapter_model.bin", "model.pt", "weights.ckpt", "state.pkl", "modeling_evil.py")


@dataclass(frozen=True)
class Artifact:
    """A folder, its loader, and the files of it that the loader answers for."""

    name: str
    folder: Path
    load: Callable[[], object]
    weights: str
    files: tuple[Path, ...]


def artifacts(root: Path) -> list[Artifact]:
    """One of each, small and whole."""
    base, adapter = encoders(root)
    return [base, adapter, _sequence_encoder(root), _checkpoint(root), _notes(root)]


def _artifact(name: str, folder: Path, load: Callable[[], object], weights: str) -> Artifact:
    load()  # whole, it loads
    return Artifact(name, folder, load, weights, tuple(sorted(path for path in folder.rglob("*") if path.is_file())))


def encoders(root: Path) -> tuple[Artifact, Artifact]:
    """A random two-layer BERT as base encoder, and LoRA adapters trained on it."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    from training import lora
    from user_embeddings_dagster.embedding import base_model
    from user_embeddings_dagster.embedding.text_encoder import ENCODER, TextEncoder

    base, adapter = root / "base", root / "adapter"
    adapter.mkdir()
    words = {name: i for i, name in enumerate(["[PAD]", "[UNK]", *(f"w{i}" for i in range(40))])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(base)
    config = BertConfig(
        vocab_size=len(words), max_position_embeddings=32,
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16,
    )  # fmt: skip
    BertModel(config, False).save_pretrained(base)
    finalise(base)
    lora.save(lora.attach(base_model.load_model(base), 2, 4, ["query"], None), adapter, str(base))
    (adapter / ENCODER).write_text(json.dumps({"base_hash": base_model.folder_hash(base)}))
    finalise(adapter)

    def encode(with_adapter: Path | None) -> object:
        return TextEncoder(str(base), with_adapter, max_tokens=8, threads=1, precision="float32").encode(["w1 w2"])

    return (
        _artifact("base encoder", base, lambda: encode(None), "model.safetensors"),
        _artifact("adapter", adapter, lambda: encode(adapter), "adapter_model.safetensors"),
    )


def _sequence_encoder(root: Path) -> Artifact:
    import numpy as np
    import torch

    from training.sequence_features import ItemSpace
    from training.sequence_inference import SequenceEncoder
    from training.sequence_model import SequenceModel, SequenceSettings
    from training.sequence_training import save_encoder

    folder = root / "sequence"
    folder.mkdir()
    torch.manual_seed(0)
    settings = SequenceSettings(dimension=8, seed=0, width=16)
    zeros, axes = np.zeros(4, dtype=np.float32), np.eye(4, dtype=np.float32)  # no memory may be shared: safetensors
    space = ItemSpace.of_items(zeros, axes, zeros.copy(), decay=0.5, mean_weight=0.5)
    save_encoder(folder, SequenceModel(settings, 4, 4), settings, space, {})
    finalise(folder)
    return _artifact("sequence encoder", folder, lambda: SequenceEncoder.load(folder), "model.safetensors")


def _checkpoint(root: Path) -> Artifact:
    import torch

    from training import checkpoint

    model = torch.nn.Linear(6, 4)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 6)).sum().backward()
    optimizer.step()
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    folder = checkpoint.Checkpoints(root / "checkpoints").save(7, state)
    return _artifact("training checkpoint", folder, lambda: checkpoint.read(folder), "tensors.safetensors")


def _notes(root: Path) -> Artifact:
    """What lies beside a version and changes after it is made."""
    folder = Models(root / "models").folder("encoder", "one")
    folder.root.mkdir(parents=True)
    folder.note_basis("a" * 32)
    folder.note_contributors(["b" * 32, "c" * 32])
    folder.taint(["b" * 32])
    return _artifact("notes of a version", folder.root, lambda: (folder.basis, folder.contributors, folder.tainted), "")


@dataclass
class Count:
    """How many hostile folders were refused; what became of the others."""

    tried: int = 0
    refused: int = 0
    wrong: list[str] = field(default_factory=list)

    def attempt(self, artifact: Artifact, damage: str, named: Path) -> None:
        """Load; count a refusal that names the damaged file or, if the file is the manifest's, its folder."""
        self.tried += 1
        try:
            artifact.load()
        except CorruptArtifact as error:
            self.refused += str(named) in str(error)
            if str(named) not in str(error):
                self.wrong.append(f"{artifact.name}: {damage}: refused without its name: {error}")
        except Exception as error:  # noqa: BLE001 - whatever a loader raises instead is the finding
            self.wrong.append(f"{artifact.name}: {damage}: {type(error).__name__}")
        else:
            self.wrong.append(f"{artifact.name}: {damage}: loaded")


def damage(artifact: Artifact, flips: int, cuts: int, generator: random.Random) -> tuple[Count, int, int]:
    """Flip one bit, or cut off an end, of one file, over and over.

    Also the control: how many of the flipped weights safetensors alone loads, of how many.
    """
    from safetensors.torch import load

    count, silent, flipped = Count(), 0, 0
    for number in range(flips + cuts):
        path = artifact.files[number % len(artifact.files)]
        good = path.read_bytes()
        if number < flips:
            bit = generator.randrange(len(good) * 8)
            bad = bytearray(good)
            bad[bit // 8] ^= 1 << bit % 8
        else:
            bad = good[: generator.randrange(len(good))]
        path.write_bytes(bad)
        named = artifact.folder if path.name in (MANIFEST, artifact.weights) else path
        count.attempt(artifact, f"{'flip' if number < flips else 'cut'} in {path.name}", named)
        if path.name == artifact.weights and number < flips:
            flipped += 1
            try:
                load(bytes(bad))
                silent += 1
            except Exception:  # noqa: BLE001, S110 - a damaged header: safetensors notices
                pass
        path.write_bytes(good)
    artifact.load()
    return count, silent, flipped


class Canary:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch '{self.path}'",)


def hostile(artifact: Artifact, canary: Path) -> Count:
    """Pickles and code in the folder: as the weights and beside them, unlisted and listed in its manifest."""
    count, evil = Count(), pickle.dumps(Canary(canary))
    listing = artifact.folder / MANIFEST
    if not listing.exists():
        return count
    sealed, weights = listing.read_bytes(), (artifact.folder / artifact.weights).read_bytes()
    for name in (*PICKLES, artifact.weights):
        path = artifact.folder / name
        for listed in (False, True):
            path.write_bytes(evil)
            if listed:
                finalise(artifact.folder)
            count.attempt(artifact, f"pickle as {name}, {'listed' if listed else 'not listed'}", artifact.folder)
            path.unlink()
            (artifact.folder / artifact.weights).write_bytes(weights)
            listing.write_bytes(sealed)
    artifact.load()
    return count


def remote_code(base: Artifact, canary: Path) -> Count:
    """A base encoder whose config.json asks for its own code, in a folder with a manifest that lists it."""
    count, config = Count(), base.folder / "config.json"
    good, sealed = config.read_bytes(), (base.folder / MANIFEST).read_bytes()
    for target in ("AutoModel", "AutoConfig", "AutoTokenizer"):
        source = base.folder / "modeling_evil.py"
        source.write_text(f"import os; os.system(\"touch '{canary}'\")")
        config.write_text(json.dumps(json.loads(good) | {"auto_map": {target: "modeling_evil.Evil"}}))
        finalise(base.folder)
        count.attempt(base, f"auto_map of {target}", base.folder)
        source.unlink()
        config.write_bytes(good)
        (base.folder / MANIFEST).write_bytes(sealed)
    return count


def control_runs_the_pickle(folder: Path) -> bool:
    """Whether the canary works: torch.load without weights_only must set it off."""
    import torch

    canary = folder / "control"
    (folder / "evil.pt").write_bytes(pickle.dumps(Canary(canary)))
    with contextlib.suppress(Exception):
        torch.load(folder / "evil.pt", weights_only=False)
    return canary.exists()


def main() -> int:
    """Run the experiment; returns 1 if anything was loaded or run, or if a control saw nothing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flips", type=int, default=700, help="over the artifacts")
    parser.add_argument("--cuts", type=int, default=300)
    options = parser.parse_args()
    generator, failed = random.Random(0), False
    with tempfile.TemporaryDirectory(prefix="damaged-") as folder:
        canary = Path(folder, "canary")
        found = artifacts(Path(folder))
        total, loaded, of = Count(), 0, 0
        for artifact in found:
            count, silent, flipped = damage(
                artifact, options.flips // len(found), options.cuts // len(found), generator
            )
            loaded, of = loaded + silent, of + flipped
            total = show(f"{artifact.name}: bit flips and cuts", count, total)
        pickles = Count()
        for artifact in found:
            pickles = show(f"{artifact.name}: pickles and code", hostile(artifact, canary), pickles)
        pickles = show("base encoder: remote code", remote_code(found[0], canary), pickles)
        ran = control_runs_the_pickle(Path(folder))
        print(
            f"damaged: {total.refused} of {total.tried} refused; hostile: {pickles.refused} of {pickles.tried} refused"
        )
        print(f"canary set off by a loader: {canary.exists()}; by torch.load without its guard (control): {ran}")
        print(f"control: safetensors alone loads {loaded} of {of} flipped weights")
        failed = canary.exists() or not ran or loaded < of / 2
        failed |= total.refused < total.tried or pickles.refused < pickles.tried
    return 1 if failed else 0


def show(title: str, count: Count, total: Count) -> Count:
    """Print one line, and each folder that was not refused; the sum so far."""
    print(f"{title}: {count.refused} of {count.tried} refused", flush=True)
    for line in count.wrong[:10]:
        print(f"    {line}")
    return Count(total.tried + count.tried, total.refused + count.refused)


if __name__ == "__main__":
    sys.exit(main())
