"""Names of people by a token-classification model (C10): optional, from a local folder, never downloaded.

The lists of `privacy.persons` miss surnames alone, rare names and lower case. A model such as those fine-tuned on
CoNLL-2003 finds more of them, at a hundred times the cost. Its folder is loaded as a base encoder's is: safetensors
and a fast tokenizer, no code, sealed by a manifest.
"""

from pathlib import Path
from typing import Any

import polars as pl

from user_embeddings_dagster.embedding.base_model import folder_hash, load_tokenizer, model_folder, verified
from user_embeddings_dagster.settings import prepare_environment

Span = tuple[int, int]
_PERSON_LABELS = ("PER", "PERSON")
_MAX_TOKENS = 512
_OVERLAP = 64  # tokens that two pieces of a long text share, so that a name at the cut is seen whole once
_BATCH = 32


class PersonModel:
    """A token-classification model with labels such as B-PER and I-PER, on the processor, in float32."""

    def __init__(self, folder: Path) -> None:
        """Raises FileNotFoundError without the files, CorruptArtifact if they are not what was sealed, ValueError if no
        label is a person's."""
        prepare_environment()
        import torch
        from transformers import AutoModelForTokenClassification

        self._tokenizer: Any = load_tokenizer(model_folder(str(folder)))
        self._tokenizer.truncation_side = "right"
        self._model: Any = AutoModelForTokenClassification.from_pretrained(
            str(verified(folder)),
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            dtype=torch.float32,
        ).eval()
        labels: dict[int, str] = self._model.config.id2label
        self._persons = [place for place, label in labels.items() if label.rpartition("-")[2].upper() in _PERSON_LABELS]
        if not self._persons:
            raise ValueError(
                f"{folder}: none of the model's labels is one of {_PERSON_LABELS}: {sorted(labels.values())}"
            )
        self._max_tokens = min(_MAX_TOKENS, self._model.config.max_position_embeddings)

    def spans(self, texts: pl.Series) -> list[list[Span]]:
        """Start and end of the words of each text that are names of persons; neighbours are one span."""
        return [
            found
            for start in range(0, len(texts), _BATCH)
            for found in self._batch(texts.slice(start, _BATCH).fill_null("").to_list())
        ]

    def _batch(self, texts: list[str]) -> list[list[Span]]:
        import torch

        encoded = self._tokenizer(
            texts, truncation=True, max_length=self._max_tokens, stride=min(_OVERLAP, self._max_tokens // 4),
            return_overflowing_tokens=True, return_offsets_mapping=True, padding=True, return_tensors="pt",
        )  # fmt: skip
        pieces, offsets = encoded.pop("overflow_to_sample_mapping").tolist(), encoded.pop("offset_mapping").tolist()
        with torch.inference_mode():
            best = self._model(**encoded).logits.argmax(-1)
        chosen = torch.isin(best, torch.tensor(self._persons))
        found: list[set[int]] = [set() for _ in texts]
        for piece, places, row in zip(pieces, offsets, chosen.tolist(), strict=True):
            for (start, end), is_person in zip(places, row, strict=True):
                if is_person and end > start:
                    found[piece].update(range(start, end))
        return [_words(text, places) for text, places in zip(texts, found, strict=True)]


def person_model(folder: str | None) -> PersonModel | None:
    """The model in `folder`; None if none is named."""
    return PersonModel(Path(folder)) if folder else None


def model_version(folder: str | None) -> str | None:
    """Content hash of the model in `folder`, part of the version of what it masks."""
    return folder_hash(model_folder(folder)) if folder else None


def _words(text: str, places: set[int]) -> list[Span]:
    """Whole words of letters with one of `places` in them; with nothing but a space, dot or dash between, one span."""
    spans: list[Span] = []
    done = 0
    for place in sorted(place for place in places if text[place].isalpha()):
        if place < done:
            continue
        start = done = place
        while start and text[start - 1].isalpha():
            start -= 1
        while done < len(text) and text[done].isalpha():
            done += 1
        if spans and 0 < start - spans[-1][1] <= 2 and not text[spans[-1][1] : start].strip(" .-"):
            spans[-1] = (spans[-1][0], done)
        else:
            spans.append((start, done))
    return spans
