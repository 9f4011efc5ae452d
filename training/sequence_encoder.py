"""Training job of the sequence encoder: `python -P -m training.sequence_encoder --inputs DIR --output DIR`.

Inputs: `sequences.parquet` (datadao, user_id, split, position, ended_at, chunk_id, window_id, vector), one
row per chunk of a train or valid user, and `config.json` (the fields of `sequence_model.SequenceSettings` and of
`differential_privacy.PrivacySettings`, and the job's own: threads, device, checkpoint_seconds). Output:
`model.safetensors`, `encoder.json`, `metrics.jsonl`, `job.json`, `manifest.json`.
"""

import sys

from training import versions
from training.job import Job, run


def train(job: Job) -> None:
    """Train; torch is imported only when there is something to train."""
    from training import sequence_training

    sequence_training.train(job)


if __name__ == "__main__":
    sys.exit(run("sequence_encoder", train, versions.SEQUENCE_ENCODER))
