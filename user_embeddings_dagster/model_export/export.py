"""The two trained artifacts as folders that load alone, without Dagster or this package (C48)."""

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from user_embeddings_dagster.embedding import base_model
from user_embeddings_dagster.embedding.text_encoder import ENCODER
from user_embeddings_dagster.keys import load_or_create_key
from user_embeddings_dagster.model_export.card import card, licence_of, scores_csv
from user_embeddings_dagster.model_export.facts import facts_of
from user_embeddings_dagster.model_export.source import standalone
from user_embeddings_dagster.privacy.access.log import AccessLog
from user_embeddings_dagster.privacy.consent.live import LEDGER, Consent
from user_embeddings_dagster.privacy.consent.withdrawal import without_consent
from user_embeddings_dagster.settings import PREFIX, Layout, release_tainted
from user_embeddings_dagster.storage.durability import make_folder, sync
from user_embeddings_dagster.storage.lake import Lake
from user_embeddings_dagster.storage.manifest import finalise
from user_embeddings_dagster.storage.models import ModelFolder, Models, StaleEncoder, TaintedModel, trained_anew
from user_embeddings_dagster.storage.score_table import ScoreTable

USER_ENCODER, PERSONALISED = "user_encoder", "personalised_llm"
ARTIFACTS = (USER_ENCODER, PERSONALISED)
EVENT = "export_model"
ENCODER_ABOUT = (
    "Texts of one person to a user embedding of {dimension} dimensions: a frozen text encoder, the item encoder trained"
    " on it (one vector a chunk, of SUBJECT) and a causal sequence encoder over a person's chunks.",
    "A chunk is a stretch of a conversation around one person, one line a turn, `SUBJECT: …` for that person's and "
    "`<P1>: …`, `<P2>: …` for the others', with names and identifiers masked; the last {max_tokens} tokens are read. "
    "Texts that were not masked by the platform give vectors too, of worse privacy than it promises.",
)
LLM_ABOUT = (
    "A decoder that writes for a user: the states of the user encoder become {tokens} user tokens (a Perceiver), which "
    "frozen decoder layers attend to ({injection}). Trained set: `{preset}`. For nobody, it is the bare decoder.",
    "It reads the states of sequence encoder `{sequence_encoder}` alone: other versions' states mean nothing to it. Of"
    " a user's states the last {max_states} are read.",
)
TASKS_ABOUT = "Its last stage of training was on {n:,} questions about later chunks of the people of the split `train`."


@dataclass(frozen=True)
class _Plan:
    """One artifact: the versions it is made of, what writes its weights, and what its card says."""

    models: Mapping[str, ModelFolder]
    write: Callable[[Path], dict[str, Any]]
    about: Callable[[dict[str, Any]], tuple[list[str], str]]
    bases: Sequence[tuple[str, str]]
    code: str
    root: tuple[str, str]
    without: Sequence[str] = ()


def export_models(layout: Layout, to: Path, dimension: str, artifacts: Sequence[str] = ARTIFACTS) -> list[Path]:
    """Write the artifacts as folders below `to`; the folders.

    All or nothing of each: a folder is there once it is whole. Raises FileExistsError for a folder that is there,
    FileNotFoundError for a model that was not trained, TaintedModel for one trained on somebody who was erased or whose
    consent has ended, StaleEncoder for models that do not belong together, CorruptArtifact for damaged ones.
    """
    if there := [str(to / name) for name in artifacts if (to / name).exists()]:
        raise FileExistsError(f"{', '.join(there)}: there already; name another folder, or remove it")
    models, log = Models(layout.models, release_tainted()), AccessLog.of(layout)
    plans = {USER_ENCODER: _user_encoder, PERSONALISED: _personalised}
    written = []
    for name in artifacts:
        try:
            plan = plans[name](models, dimension)
            _still_consented(layout, models, plan.models)
        except TaintedModel:
            log.append(EVENT, "refused", subject=name)
            raise
        written.append(_write(layout, log, to, name, plan))
    return written


def decoder_folder(models: Models) -> Path:
    """The decoder that is personalised: USER_EMBEDDINGS_DECODER, or the promoted base_decoder."""
    named = os.environ.get(f"{PREFIX}DECODER")
    return Path(named) if named else models.current("base_decoder").output


def _user_encoder(models: Models, dimension: str) -> _Plan:
    item = models.current("item_encoder")
    sequence = models.current_on(f"sequence_encoder/{dimension}", "item_encoder")
    named = json.loads((item.output / ENCODER).read_bytes())["base"]
    base = base_model.model_folder(named)

    def write(folder: Path) -> dict[str, Any]:
        from training.standalone_write import write_user_encoder

        return write_user_encoder(folder, base, item.output, sequence.output)

    def about(config: dict[str, Any]) -> tuple[list[str], str]:
        return [text.format(dimension=dimension, max_tokens=config["max_tokens"]) for text in ENCODER_ABOUT], ""

    return _Plan(
        models={"item_encoder": item, f"sequence_encoder/{dimension}": sequence},
        write=write,
        about=about,
        bases=[(f"the text encoder `{Path(named).name}` (`text_encoder/`)", licence_of(base))],
        code="modeling_user_encoder.py",
        root=("training.standalone_encoder", "UserEncoder"),
    )


def _personalised(models: Models, dimension: str) -> _Plan:
    trained = models.current("personalised_decoder")
    sequence = models.current_on(f"sequence_encoder/{dimension}", "item_encoder")
    decoder, base = decoder_folder(models), f"{PREFIX}DECODER" not in os.environ

    def write(folder: Path) -> dict[str, Any]:
        from training.standalone_write import write_personalised

        config = write_personalised(folder, trained.output, decoder)
        if config["sequence_encoder"] != sequence.record()["data_version"]:
            raise StaleEncoder(
                f"personalised_decoder reads the states of another encoder than sequence_encoder/{dimension}: "
                "name its dimension, or materialise personalised_decoder again"
            )
        return config

    def about(config: dict[str, Any]) -> tuple[list[str], str]:
        words = {**config["shape"], **config, "injection": config["shape"]["injection"].replace("_", " ")}
        weights = ', sequence_weights="personalised_llm/sequence_encoder.safetensors"'
        told = [text.format(**words) for text in LLM_ABOUT]
        if (n := trained.record()["metadata"].get("train_tasks")) is not None:
            told.append(TASKS_ABOUT.format(n=n))
        return told, weights if config["own_sequence_weights"] else ""

    built_on = "the platform's own small decoder" if base else f"the decoder `{decoder.name}`"
    also = {"base_decoder": models.current("base_decoder")} if base else {}
    return _Plan(
        models={**also, f"sequence_encoder/{dimension}": sequence, "personalised_decoder": trained},
        write=write,
        about=about,
        bases=[(f"{built_on} (`decoder/`)", "as this model" if base else licence_of(decoder))],
        code="modeling_personalised.py",
        root=("training.standalone_llm", "PersonalisedLLM"),
        without=["PersonalisedDecoder.adapt_decoder"],
    )


def _still_consented(layout: Layout, models: Models, used: Mapping[str, ModelFolder]) -> None:
    """Raise TaintedModel if a grant has ended since the ledger last marked the models, also by the clock."""
    if models.release_tainted:
        return
    lake = Lake(layout.root)
    if not (names := lake.partitions(LEDGER)):
        raise FileNotFoundError(f"{LEDGER} has not been made yet: nobody has consented to anything")
    ledger = pl.concat([lake.read(LEDGER, name) for name in names])
    found = without_consent(models, ledger, Consent.of_all(lake), load_or_create_key(layout.key))
    gone = {folder.root for folder, people in found if people}
    if ended := [name for name, folder in used.items() if folder.root in gone]:
        again = "; ".join(dict.fromkeys(map(trained_anew, ended)))
        raise TaintedModel(f"{', '.join(ended)}: consent has ended of people it was trained on: {again}")


def _write(layout: Layout, log: AccessLog, to: Path, name: str, plan: _Plan) -> Path:
    """Everything in a folder beside, then the entry in the access log, then the folder's name."""
    make_folder(to)
    partial = to / f".{name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    try:
        config = plan.write(partial)
        title = f"Code of this model; see README.md. Generated from the platform's own modules: {plan.root[0]}."
        (partial / plan.code).write_text(standalone([plan.root], title, plan.without))
        lake, key = Lake(layout.root), load_or_create_key(layout.key)
        facts = facts_of(plan.models, lake.read("training_snapshot"), ScoreTable(layout.scores).read(), key)
        about, weights = plan.about(config)
        (partial / "README.md").write_text(card(name, about, facts, plan.bases, weights))
        (partial / "scores.csv").write_text(scores_csv(facts.scores))
        finalise(partial)
        last = list(facts.models.values())[-1]
        log.append(EVENT, "done", subject=f"{name}/{last}")
        partial.rename(to / name)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    sync(to)
    return to / name
