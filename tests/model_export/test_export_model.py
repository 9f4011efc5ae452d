"""C48: the exported folders load alone, and say what the platform's own loaders say."""

import re
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from exported_root import DIMENSION, MAX_TOKENS, Root, make_root, snapshot

from training.personalised_inference import TrainedLLM
from training.sequence_inference import SequenceEncoder
from user_embeddings_dagster.embedding.text_encoder import TextEncoder
from user_embeddings_dagster.evaluation.splits import split_hash
from user_embeddings_dagster.model_export.export import export_models

# Runs a model card's own script where nothing but torch and transformers may be imported, and keeps what it made.
ALONE = """
import sys, types
FORBIDDEN = {"dagster", "polars", "lancedb", "user_embeddings_dagster", "training", "assets", "resources"}
class Forbid:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in FORBIDDEN:
            raise ImportError(f"{name} is not there")
sys.meta_path.insert(0, Forbid())
try:
    import polars
    raise SystemExit("the hook forbids nothing")
except ImportError:
    pass
import numpy as np, torch
torch.set_num_threads(1)
for script, names in (("encoder", ["items", "states"]), ("llm", ["users", "logits"])):
    made = {"__name__": "script"}
    exec(open(f"{script}.py").read(), made)
    np.savez(f"{script}.npz", **{name: np.asarray(made[name]) for name in names})
loaded = sorted({name.partition(".")[0] for name in sys.modules} & (FORBIDDEN | {"peft"}))
assert not loaded, loaded
"""
TEXTS = ["<P1>: which stove?\nSUBJECT: the gas one, always", "SUBJECT: I walked there"]
ENDED = [1_700_000_000, 1_700_090_000]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Root:
    return make_root(tmp_path_factory.mktemp("root"))


@pytest.fixture(scope="module")
def exported(root: Root, tmp_path_factory: pytest.TempPathFactory) -> Path:
    to = tmp_path_factory.mktemp("exported")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("USER_EMBEDDINGS_DECODER", str(root.decoder))
        export_models(root.layout, to, str(DIMENSION))
    return to


def script_of(folder: Path) -> str:
    """The script that the model card prints."""
    found = re.search(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    assert found is not None
    return found[1]


@pytest.fixture(scope="module")
def made(exported: Path) -> dict[str, np.ndarray]:
    """What the cards' scripts make in an interpreter of their own."""
    for name, script in (("user_encoder", "encoder.py"), ("personalised_llm", "llm.py")):
        (exported / script).write_text(script_of(exported / name))
        assert len((exported / script).read_text().splitlines()) <= 20
    subprocess.run([sys.executable, "-I", "-c", ALONE], cwd=exported, check=True, timeout=120)
    return {**np.load(exported / "encoder.npz"), **np.load(exported / "llm.npz")}


def chunks(root: Root, texts: list[str]) -> pl.DataFrame:
    """One user's chunks with the vectors of our own encoders."""
    options = {"max_tokens": MAX_TOKENS, "precision": "float32", "threads": 1}
    vectors = TextEncoder(str(root.base), root.item.output, **options).encode(texts)
    contexts = TextEncoder(str(root.base), None, **options).encode(texts)
    n, ended = len(texts), [datetime.fromtimestamp(second, UTC) for second in ENDED]
    return pl.DataFrame(
        {
            "datadao": ["d"] * n, "user_id": ["u"] * n, "position": range(n), "ended_at": ended[:n],
            "vector": vectors.tolist(), "context": contexts.tolist(),
        },
        schema_overrides={"vector": pl.List(pl.Float32), "context": pl.List(pl.Float32)},
    )  # fmt: skip


def test_the_user_encoder_alone_says_what_ours_says(root: Root, made: dict[str, np.ndarray]) -> None:
    """C48: item vectors and user states to 1e-5."""
    frame = chunks(root, TEXTS)
    vectors, contexts = (np.stack(frame[name].to_list()) for name in ("vector", "context"))
    np.testing.assert_allclose(made["items"], vectors, atol=1e-5)
    assert np.abs(vectors - contexts).max() > 1e-2, "the adapters change something"
    states, _ = SequenceEncoder.load(root.sequence.output).encode_positions(frame)
    np.testing.assert_allclose(made["states"], states, atol=1e-5)


def test_the_personalised_llm_alone_says_what_ours_says(root: Root, made: dict[str, np.ndarray]) -> None:
    """C48: user tokens and logits to 1e-5."""
    users, logits, bare = ours(root)
    np.testing.assert_allclose(made["users"], users, atol=1e-5)
    np.testing.assert_allclose(made["logits"], logits, atol=1e-5)
    assert np.abs(logits - bare).max() > 1e-3, "the user changes something"


@torch.inference_mode()
def ours(root: Root) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """User tokens, logits and the bare decoder's logits, as the platform's own loader has them."""
    llm = TrainedLLM.load(root.personalised.output, root.decoder)
    known = llm.user_states(SequenceEncoder.load(root.sequence.output), chunks(root, ["SUBJECT: the gas one, always"]))
    users = llm.model.user_tokens(*known.batch([("d", "u")], [1], llm.model.shape.max_states))
    ids = llm.tokenizer("Which stove?", return_tensors="pt").input_ids
    bare = llm.model.decoder(input_ids=ids).logits
    if llm.model.shape.injection == "soft_prompt":
        prompt, embedded = llm.model.injection.tokens(users), llm.model.decoder.get_input_embeddings()(ids)
        inputs = torch.cat([prompt, embedded], dim=1)
        logits = llm.model.decoder(inputs_embeds=inputs).logits[:, prompt.shape[1] :]
    else:
        with llm.model.written_for(users) as decoder:
            logits = decoder(input_ids=ids).logits
    return users.numpy(), logits.numpy(), bare.numpy()


@pytest.mark.parametrize(
    ("preset", "injection"), [("lora", "cross_attention"), ("enc", "cross_attention"), ("full", "soft_prompt")]
)
def test_every_preset_is_exported_as_it_was_trained(
    preset: str, injection: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Adapters are in the decoder's weights, a sequence encoder trained along lies beside; generation runs."""
    root = make_root(tmp_path, preset, injection)
    monkeypatch.setenv("USER_EMBEDDINGS_DECODER", str(root.decoder))
    export_models(root.layout, tmp_path / "to", str(DIMENSION))
    made: dict[str, object] = {"__name__": "script"}
    with monkeypatch.context() as patch, pytest.MonkeyPatch.context() as paths:
        patch.chdir(tmp_path / "to")
        paths.setattr(sys, "path", [*sys.path])
        for module in ("modeling_personalised", "modeling_user_encoder"):
            paths.delitem(sys.modules, module, raising=False)
        exec(script_of(tmp_path / "to" / "personalised_llm"), made)
    users, logits, bare = ours(root)
    np.testing.assert_allclose(np.asarray(made["users"]), users, atol=1e-5)
    np.testing.assert_allclose(np.asarray(made["logits"]), logits, atol=1e-5)
    assert np.abs(logits - bare).max() > 1e-3
    own = tmp_path / "to" / "personalised_llm" / "sequence_encoder.safetensors"
    assert own.exists() == (preset in ("enc", "full")) == ("sequence_weights=" in script_of(own.parent))


def test_the_card_says_what_it_must_and_nothing_about_few(exported: Path, root: Root) -> None:
    """C48: data, splits, split hash, masking, consent, scores with intervals, licence, what is not promised."""
    card = (exported / "user_encoder" / "README.md").read_text()
    for told in (
        "| zig | train | train | 30 | 60 |", "| zig | valid | train | hidden | hidden |", "| zig | test | evaluate |",
        split_hash(snapshot()), "chunks-9", "0.250 | 0.200 to 0.300", "Not promised", "Of this model: not specified",
        "apache-2.0", "without differential privacy", "whose people are those that the models were trained on",
    ):  # fmt: skip
        assert told in card, told
    other = (exported / "personalised_llm" / "README.md").read_text()
    assert "1,234 questions" in other and "pipeline_tag: text-generation" in other and "cross attention" in other
    scores = (exported / "user_encoder" / "scores.csv").read_text()
    for secret in ("0.123", "0.654", "valid0", "train0", "test0"):
        assert secret not in card and secret not in scores
    assert (exported / "user_encoder" / "text_encoder" / "README.md").read_text().startswith("---\nlicense: apache")


def test_licence_and_differential_privacy_stand_in_the_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_root(tmp_path, privacy="per user (3.2, 1e-05)-DP given the item vectors; noise secret")
    monkeypatch.setenv("USER_EMBEDDINGS_MODEL_LICENCE", "Apache-2.0")
    export_models(root.layout, tmp_path / "to", str(DIMENSION), ["user_encoder"])
    card = (tmp_path / "to" / "user_encoder" / "README.md").read_text()
    assert "per user (3.2, 1e-05)-DP" in card and card.startswith("---\nlicense: Apache-2.0\n")
    assert not (tmp_path / "to" / "personalised_llm").exists()


def test_a_flipped_bit_of_an_export_is_not_loaded(exported: Path, tmp_path: Path) -> None:
    shutil.copytree(exported / "user_encoder", tmp_path / "user_encoder")
    path = tmp_path / "user_encoder" / "item_encoder.safetensors"
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    made: dict[str, object] = {"__name__": "modeling"}
    exec((path.parent / "modeling_user_encoder.py").read_text(), made)
    with pytest.raises(made["CorruptArtifact"], match=r"item_encoder\.safetensors"):
        made["UserEncoder"].load(path.parent)
