"""Trained encoders: one folder per version, and a pointer to the one that readers see.

<root>/<encoder>/<fingerprint>/inputs/    what a training job reads; removed once it is done
<root>/<encoder>/<fingerprint>/output/    what it wrote, with a SHA-256 manifest
<root>/<encoder>/<fingerprint>/contributors.json   whose words it is trained on, as keyed hashes
<root>/<encoder>/<fingerprint>/subjects.json       the SUBJECTs among them, by DataDAO
<root>/<encoder>/<fingerprint>/tainted.json        which of them have been erased since
<root>/<encoder>/<fingerprint>/withdrawn.json      which SUBJECTs do not consent to it any more
<root>/<encoder>/current.json             the promoted version
"""

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from user_embeddings_dagster.storage.durability import read_json, write_json
from user_embeddings_dagster.storage.manifest import CorruptArtifact, read_sealed, verify, write_sealed

POINTER = "current.json"  # of an encoder to its promoted version


class StaleEncoder(Exception):
    """An encoder was trained on vectors of another encoder than the current one."""


class TaintedModel(Exception):
    """A version was trained on a contributor who was erased or withdrew consent, and the policy is to train anew."""


# Jobs that train a version anew, in their order (automation embeds by itself, where its daemon runs).
_ENCODERS = "run the jobs train, then embed_items of each DataDAO, then train_sequence_encoder"
_JOBS = {
    "item_encoder": _ENCODERS,
    "sequence_encoder": _ENCODERS,
    "base_decoder": "run the job personalise",
    "supervised_decoder": "run the job personalise",
    "personalised_decoder": "run the job personalise",
    "summary_program": "run the job refine_summary_program",
}


def trained_anew(encoder: str) -> str:
    """What to do about a version that may not be read."""
    return _JOBS.get(encoder.partition("/")[0], "materialise it again")


@dataclass(frozen=True)
class ModelFolder:
    """One version of one encoder; its fingerprint covers data, configuration and code."""

    root: Path

    @property
    def inputs(self) -> Path:
        """Folder that the job reads."""
        return self.root / "inputs"

    @property
    def output(self) -> Path:
        """Folder that the job writes: absent, or whole with a manifest."""
        return self.root / "output"

    @property
    def complete(self) -> bool:
        """The output is there and every byte is what the manifest says."""
        try:
            verify(self.output)
        except CorruptArtifact:
            return False
        return True

    def record(self) -> dict[str, Any]:
        """What the job reported: `metadata` and `data_version`. Raises Damaged."""
        return read_json(self.output / "job.json", dict)

    def metrics(self) -> list[dict[str, float]]:
        """One dict per optimizer step, in order."""
        return [json.loads(line) for line in (self.output / "metrics.jsonl").read_text().splitlines()]

    def write_inputs(self, config: dict[str, Any], **tables) -> None:
        """`config.json` and one Parquet file per Polars frame, in a fresh inputs folder."""
        shutil.rmtree(self.inputs, ignore_errors=True)
        self.inputs.mkdir(parents=True)
        for name, frame in tables.items():
            frame.write_parquet(self.inputs / f"{name}.parquet")
        write_json(self.inputs / "config.json", config)

    def note_basis(self, version: str) -> None:
        """Write down which encoder's vectors this one is trained on."""
        write_sealed(self.root / "basis.json", {"version": version})

    @property
    def basis(self) -> str | None:
        """Version of the encoder whose vectors this one was trained on; None if it was not written down."""
        path = self.root / "basis.json"
        return read_sealed(path)["version"] if path.exists() else None

    def note_contributors(self, contributors: Iterable[str]) -> None:
        """Write down whose words this version is trained on (privacy.lineage); before it is trained."""
        write_sealed(self.root / "contributors.json", sorted(set(contributors)))

    @property
    def contributors(self) -> frozenset[str] | None:
        """Whose words it is trained on; None if that was not written down."""
        return _names(self.root / "contributors.json")

    def note_subjects(self, subjects: Mapping[str, Iterable[str]]) -> None:
        """Write down on whose consent, by DataDAO, this version is trained (privacy.lineage); before it is trained."""
        write_sealed(self.root / "subjects.json", {name: sorted(set(people)) for name, people in subjects.items()})

    @property
    def subjects(self) -> dict[str, frozenset[str]] | None:
        """On whose consent it is trained, by DataDAO; None if that was not written down."""
        path = self.root / "subjects.json"
        if not path.exists():
            return None
        return {name: frozenset(people) for name, people in read_sealed(path).items()}

    def mark_withdrawn(self, people: Iterable[str]) -> None:
        """Mark it as trained on people whose consent has ended, these alone; nobody clears the mark."""
        path, named = self.root / "withdrawn.json", sorted(set(people))
        if named and self.withdrawn != frozenset(named):
            write_sealed(path, named)
        elif not named:
            path.unlink(missing_ok=True)

    @property
    def withdrawn(self) -> frozenset[str]:
        """The people whose consent has ended that it is marked with."""
        return _names(self.root / "withdrawn.json") or frozenset()

    def taint(self, erased: Iterable[str]) -> None:
        """Mark it as trained on contributors who have been erased."""
        write_sealed(self.root / "tainted.json", sorted({*erased, *self.tainted}))

    @property
    def tainted(self) -> frozenset[str]:
        """The erased contributors that it is marked with."""
        return _names(self.root / "tainted.json") or frozenset()

    def remove_leftovers(self) -> None:
        """Remove the inputs (masked text must not lie in more places than it has to) and the job's work folder.

        To be called whenever the output is complete: a run killed right after the job left them behind.
        """
        for folder in (self.inputs, self.output.with_name(f"{self.output.name}.work")):
            shutil.rmtree(folder, ignore_errors=True)


def _names(path: Path) -> frozenset[str] | None:
    return frozenset(read_sealed(path)) if path.exists() else None


def _fingerprint(pointer: Path) -> str:
    try:
        return str(json.loads(pointer.read_bytes())["fingerprint"])
    except (ValueError, KeyError, TypeError):
        raise CorruptArtifact(f"{pointer}: not a pointer to a version") from None


class Models:
    """Every version of every encoder below one root.

    `release_tainted`: versions trained on contributors who were erased, or whose consent was revoked, may be promoted
    and read all the same.
    """

    def __init__(self, root: Path, release_tainted: bool = False) -> None:
        self.root = Path(root)
        self.release_tainted = release_tainted

    def folder(self, encoder: str, fingerprint: str) -> ModelFolder:
        """Folder of one version, whether it exists or not."""
        return ModelFolder(self.root / encoder / fingerprint)

    def promote(self, encoder: str, fingerprint: str) -> None:
        """Make a version the one that readers see. Raises CorruptArtifact if it is not whole, TaintedModel."""
        verify(self._untainted(encoder, self.folder(encoder, fingerprint)).output)
        write_json(self.root / encoder / POINTER, {"fingerprint": fingerprint})

    def current(self, encoder: str) -> ModelFolder:
        """The promoted version.

        Raises FileNotFoundError, naming the encoder, before the first one; TaintedModel; CorruptArtifact if the
        pointer to it is damaged.
        """
        return self._untainted(encoder, self._pointed_to(encoder))

    def _pointed_to(self, encoder: str) -> ModelFolder:
        path = self.root / encoder / POINTER
        try:
            folder = self.folder(encoder, _fingerprint(path))
        except FileNotFoundError:
            raise FileNotFoundError(f"{encoder} has not been trained yet: materialise it first") from None
        if not folder.output.is_dir():
            raise CorruptArtifact(f"{path}: points to a version that is not there")
        return folder

    def pointed_to(self) -> list[Path]:
        """Folder of every promoted version, which may be gone. Raises CorruptArtifact as `current`."""
        return [pointer.parent / _fingerprint(pointer) for pointer in self.root.glob(f"**/{POINTER}")]

    def versions(self) -> Iterator[ModelFolder]:
        """Every version that has a result, of every encoder, by path."""
        for manifest in sorted(self.root.glob("**/output/manifest.json")):
            yield ModelFolder(manifest.parent.parent)

    def _untainted(self, encoder: str, folder: ModelFolder) -> ModelFolder:
        if self.release_tainted:
            return folder
        if folder.tainted:
            raise TaintedModel(f"{encoder}: this version was trained on an erased contributor: {trained_anew(encoder)}")
        if folder.withdrawn:
            raise TaintedModel(f"{encoder}: consent revoked by people it was trained on: {trained_anew(encoder)}")
        return folder

    def current_on(self, encoder: str, basis: str) -> ModelFolder:
        """The promoted version of `encoder`, if it was trained on the vectors of the promoted `basis`.

        Raises StaleEncoder otherwise: its states would mean nothing in the other space.
        """
        folder = self.current(encoder)
        if folder.basis != self.current(basis).record()["data_version"]:
            raise StaleEncoder(f"{encoder} was trained on vectors of another {basis}: materialise {encoder} again")
        return folder

    def promoted(self, family: str) -> list[str]:
        """Encoders below `family` (such as sequence_encoder/64) that have a promoted version, sorted."""
        return sorted(str(path.parent.relative_to(self.root)) for path in (self.root / family).glob(f"**/{POINTER}"))

    def promoted_versions(self, family: str) -> dict[str, str]:
        """`data_version` of every promoted version below `family`, also of one that may not be read."""
        return {name: self._pointed_to(name).record()["data_version"] for name in self.promoted(family)}
