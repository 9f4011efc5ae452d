"""Settings: environment variables with embedded defaults, read once.

Every variable starts with USER_EMBEDDINGS_. Nothing here names a server: the defaults run on one machine with
no key, no download and no GPU.
"""

import gc
import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

PREFIX = "USER_EMBEDDINGS_"
RETENTION = f"{PREFIX}RETENTION"

# Telemetry of dependencies is off before any of them is imported.
TELEMETRY_OFF = {
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "DO_NOT_TRACK": "1",
    "GX_ANALYTICS_ENABLED": "False",
    "VLLM_NO_USAGE_STATS": "1",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
}

# Read by libraries when they are first imported. Waiting threads sleep: spinning ones starve each other as soon
# as anything else runs on the machine (one encode took ten times as long).
THREADING = {"TOKENIZERS_PARALLELISM": "false", "OMP_WAIT_POLICY": "PASSIVE"}


def prepare_environment() -> None:
    """Telemetry off and threads set, before a library reads the variables; what the operator set stands."""
    for name, value in (TELEMETRY_OFF | THREADING).items():
        os.environ.setdefault(name, value)


def collect_rarely() -> None:
    """Python looks for cyclic garbage after 10,000 new objects, not 700, and rarely at old ones: in jobs and tests.

    Imports leave a large heap that holds next to no cycles: looking through it took a tenth of their time. Not where
    exports are read: that may have cost up to 10 MB of the 256 that their reading keeps to.
    """
    gc.set_threshold(10_000, 50, 100)


def data_root() -> Path:
    """Folder of everything the platform stores: USER_EMBEDDINGS_DATA, or ./data."""
    return Path(os.environ.get(f"{PREFIX}DATA", "data")).absolute()


def torch_threads() -> int:
    """Threads that torch may use: USER_EMBEDDINGS_TORCH_THREADS, or every processor we may run on.

    Raises ValueError on anything but a whole number of at least 1.
    """
    return _at_least_one("TORCH_THREADS", str(len(os.sched_getaffinity(0))))


def _at_least_one(name: str, default: str) -> int:
    value = os.environ.get(f"{PREFIX}{name}", default)
    if not value.isdecimal() or int(value) < 1:
        raise ValueError(f"{PREFIX}{name}: {value!r} is no whole number of at least 1")
    return int(value)


def release_tainted() -> bool:
    """Whether encoders trained on an erased contributor may go on: USER_EMBEDDINGS_ERASED_CHECKPOINTS.

    "retrain" (default): a version that was is neither promoted nor served; "release": it is, without the person's
    data in any store. Raises ValueError on another value.
    """
    value = os.environ.get(f"{PREFIX}ERASED_CHECKPOINTS", "retrain")
    if value not in ("retrain", "release"):
        raise ValueError(f"{PREFIX}ERASED_CHECKPOINTS: {value!r} is neither 'retrain' nor 'release'")
    return value == "release"


def retention_setting() -> str | None:
    """USER_EMBEDDINGS_RETENTION: a JSON object of days by stage, or "keep" (privacy.retention.windows has defaults)."""
    return os.environ.get(RETENTION)


def sealing() -> bool:
    """Whether raw exports are encrypted once they have been read: USER_EMBEDDINGS_SEAL, "on" (default) or "off".

    Sealed files are read either way. Raises ValueError on another value.
    """
    value = os.environ.get(f"{PREFIX}SEAL", "on")
    if value not in ("on", "off"):
        raise ValueError(f"{PREFIX}SEAL: {value!r} is neither 'on' nor 'off'")
    return value == "on"


def report_min_people() -> int:
    """USER_EMBEDDINGS_REPORT_MIN_PEOPLE: no published figure is about fewer people (default 10; 1 hides nothing).

    Raises ValueError on anything but a whole number of at least 1.
    """
    return _at_least_one("REPORT_MIN_PEOPLE", "10")


def check_settings() -> None:
    """Raises ValueError, naming the variable, if one that is read here has a value that it cannot have."""
    for setting in (torch_threads, release_tainted, sealing, report_min_people):
        setting()


def model_licence() -> str:
    """Licence that exported models are given, USER_EMBEDDINGS_MODEL_LICENCE: an SPDX identifier, or "not specified"."""
    return os.environ.get(f"{PREFIX}MODEL_LICENCE", "").strip() or "not specified"


def labelled_pii() -> Path | None:
    """Folder of public labelled personal data, USER_EMBEDDINGS_PII_DATA, to measure the masking on."""
    folder = os.environ.get(f"{PREFIX}PII_DATA")
    return Path(folder) if folder else None


def language_model_variable(field: str) -> str:
    """Name of the variable that sets a field of the language model."""
    return f"{PREFIX}LANGUAGE_MODEL_{field.upper()}"


def language_model_settings() -> dict[str, str]:
    """Every USER_EMBEDDINGS_LANGUAGE_MODEL_* variable that is set, but for the key and the cache."""
    others = language_model_variable("key"), language_model_variable("cache")
    names = sorted(name for name in os.environ if name.startswith(language_model_variable("")) and name not in others)
    return {name: os.environ[name] for name in names if os.environ[name]}


def language_model_key() -> str | None:
    """The endpoint's key, USER_EMBEDDINGS_LANGUAGE_MODEL_KEY: read when it is used, never part of a configuration."""
    return os.environ.get(f"{PREFIX}LANGUAGE_MODEL_KEY")


@dataclass(frozen=True)
class Layout:
    """Where things are below the data root."""

    root: Path

    def check(self) -> None:
        """Raises ValueError unless `root` is a data root: of a mistyped one, nothing to erase or to back up would look
        like done, and keys would be made there that nothing else is read by."""
        if not any((self.root / name).is_dir() for name in ("landing", "keys", "dagster_home")):
            raise ValueError(f"{self.root}: no data root there: it has no landing/, keys/ or dagster_home/")

    @property
    def landing(self) -> Path:
        """Raw drops: landing/<datadao>/…"""
        return self.root / "landing"

    @property
    def lancedb(self) -> Path:
        """LanceDB databases: lancedb/<datadao>/<table>.lance"""
        return self.root / "lancedb"

    @property
    def models(self) -> Path:
        """Trained encoders: models/<encoder>/<version>/"""
        return self.root / "models"

    @property
    def user_memories(self) -> Path:
        """What user embeddings advance from: user_memories/<datadao>.sqlite"""
        return self.root / "user_memories"

    @property
    def scores(self) -> Path:
        """DuckDB file with the scores table."""
        return self.root / "scores.duckdb"

    @property
    def key(self) -> Path:
        """Secret of the keyed hashes."""
        return self.root / "keys" / "identity.key"

    @property
    def master_key(self) -> Path:
        """Secret under which the contributors' keys are wrapped; without it nothing encrypted can be read."""
        return self.root / "keys" / "master.key"

    @property
    def contributor_keys(self) -> Path:
        """The contributors' keys, wrapped (SQLite)."""
        return self.root / "keys" / "contributors.sqlite"

    @property
    def erased(self) -> Path:
        """Keyed hashes of the people who were erased: what nobody may read in again."""
        return self.root / "keys" / "erased.json"

    @property
    def erased_names(self) -> Path:
        """Keyed hashes of their names: what is looked for when an older backup is restored."""
        return self.root / "keys" / "erased_names.json"

    @property
    def erasures(self) -> Path:
        """What each erasure removed and proved, and the sealed journals of those under way."""
        return self.root / "erasures"

    @property
    def retention(self) -> Path:
        """What purges removed, and the journal of one under way."""
        return self.root / "retention"

    @property
    def horizons(self) -> Path:
        """Up to which date each stage was purged: what lies before is not read in again."""
        return self.retention / "horizons.json"

    @property
    def access(self) -> Path:
        """Who may read, hide and remove a user embedding, and the log of it."""
        return self.root / "access"

    @property
    def access_whitelist(self) -> Path:
        """Keys of owners and of those they granted something to (SQLite)."""
        return self.access / "whitelist.sqlite"

    @property
    def access_log(self) -> Path:
        """Every access and change, one entry a line, each bound to the one before."""
        return self.access / "log.jsonl"

    @property
    def access_key(self) -> Path:
        """Secret of challenges, capability tokens and the log."""
        return self.root / "keys" / "access.key"

    @property
    def access_log_head(self) -> Path:
        """Where the log ends, signed; apart from the log, so that a log cut short does not fit."""
        return self.root / "keys" / "access_log.head"

    @property
    def batches(self) -> Path:
        """What batch jobs are asked and answer, encrypted, while they run: batches/<asset>/<partition>/"""
        return self.root / "batches"

    @property
    def language_model_cache(self) -> Path:
        """Answers of language models, each encrypted with its contributor's key (SQLite)."""
        return self.root / "cache" / "language_models.sqlite"

    @property
    def language_model_cache_url(self) -> str:
        """Where answers are cached: USER_EMBEDDINGS_LANGUAGE_MODEL_CACHE (sqlite, lmdb or redis URL), or the file."""
        default = f"sqlite://{quote(str(self.language_model_cache.absolute()))}"
        return os.environ.get(f"{PREFIX}LANGUAGE_MODEL_CACHE") or default
