"""Supervised stage: Perceiver and injection learn to tell what a user says next; the decoder stays frozen.

    python -P -m training.supervised_decoder --inputs DIR --output DIR

Inputs: training.llm_inputs. Output: `personalised.json`, `model.safetensors` (training.personalised_inference),
`metrics.jsonl`, `job.json`, `manifest.json`. Of each task's four texts x_i, whose owners' tokens at that time are u_j,
with g_ij = mean over tokens of log p(x_i | u_j) - log p(x_i), nats, and d what the injection adds to the stream:

    loss = ½ [CE_i(s·g_i·) + CE_j(s·g_·j)] + λ · mean |d|² / |h|²

which user wrote a text and which text a user wrote, both ways round (Radford et al. 2021, CLIP, section 2.3). Where
only the head lies above the injection, g is taken to first order in d (training.option_texts), for which every text is
read once, before the training: no step passes the head, and λ keeps d small enough for it to hold (exact gains have no
such term). To first order the best linear map has a closed form, with which the training begins
(training.discriminant). A user is also asked about chunks just read (`recall_share`): to say again what was said needs
the same map from states to words as to say what comes next. The weights of the lowest validation loss are the result,
shrunk as far as it cannot tell.
"""

import sys
from typing import Any

from training import versions
from training.decoder import weights_hash
from training.job import Job, run
from training.llm_inputs import LLMInputs
from training.personalised_inference import save
from training.supervised_training import Config, SupervisedTraining
from user_embeddings_dagster.keys import file_sha256


def train(job: Job) -> None:
    """Train, write the model, report; the decoder's weights are the same before and after unless the preset trains
    them."""
    config = Config.of(job.config)
    inputs = LLMInputs(job, job.seed())
    training = SupervisedTraining(config, inputs)
    before = weights_hash(training.model.decoder)
    if not len(training.train):
        raise ValueError("no training user has a task with options")
    weights = sum(weight.numel() for weight in training.trained.values())
    order = "exact" if training.train.texts.slopes is None else "first-order"
    read = f"{len(training.train):,} of {training.tasks.height:,} training tasks"
    job.log(f"{read} are read, {weights:,} trained weights, {order} gains")
    checkpoint = job.resume()
    first: dict[str, float] = {}
    if checkpoint is not None:
        training.restore(checkpoint.state)
    else:
        first = training.validate() | training.begin()
    every = max(1, config.steps // max(1, config.validations))
    for step in range((checkpoint.step if checkpoint else 0) + 1, config.steps + 1):
        values = first if step == 1 else {}
        values |= training.step(step)
        if step % every == 0 or step == config.steps:
            values |= training.validated()
        job.step(step, config.steps, training.state, **values)
    shrunk_to = training.take_best()
    if config.preset != "full" and weights_hash(training.model.decoder) != before:
        raise ValueError("a frozen weight of the decoder has changed")
    finish(job, training, before, shrunk_to=shrunk_to)


def finish(job: Job, training: SupervisedTraining, frozen: str, **metadata: Any) -> None:
    """Write and report a trained model."""
    config, inputs = training.config, training.inputs
    save(
        job.result, training.model.eval(), training.trained, preset=config.preset, rank=config.rank,
        decoder=inputs.decoder_folder, sequence_encoder=inputs.encoder.version,
    )  # fmt: skip
    tasks = training.tasks
    measured: dict[str, Any] = {
        "preset": config.preset,
        "injection": config.injection,
        "trained_weights": sum(weight.numel() for weight in training.trained.values()),
        "user_tokens": config.tokens,
        "state_axes": training.model.shape.state_dimension,
        "train_tasks": tasks.height,
        "train_users": tasks.select("datadao", "user_id").n_unique(),
        "valid_tasks": len(training.valid),
        "frozen_hash": frozen,
        "seed": config.seed,
        **training.validate(),
    }
    version = file_sha256(job.result / "model.safetensors")[:32]
    job.finish({**measured, **metadata, "version": version}, data_version=version, device=inputs.device)


if __name__ == "__main__":
    sys.exit(run("supervised_decoder", train, versions.SUPERVISED_DECODER))
