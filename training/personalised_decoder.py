"""Reward stage: a judge's scores move Perceiver and injection, from the supervised policy on; the decoder stays frozen.

    python -P -m training.personalised_decoder --inputs DIR --output DIR

Inputs: training.llm_inputs, and in `config.json` the folder `personalised` of the supervised stage. Output: as that.
Group-relative policy gradient (Shao et al. 2024, DeepSeekMath, section 4.1) with one update per sample: of each
free-form question K answers a_k are drawn from the policy π for the user, the decoder token by token up to the end of
the line, at the temperature that it answers with. r_k is the judge's score of the text behind the guards
(personalisation.guards: empty, too long, repetition, copies, words to the judge earn 0); with the advantages
A_k = (r_k - mean r) / (std r + ε)

    loss = - mean_k A_k · log π(a_k) / length + β · KL(π ‖ π_supervised)

the KL by the estimator e^d - d - 1, d = log π_supervised - log π (Schulman 2020). Of choices all answers can be
enumerated: π = softmax(s · gains) over the options, and expected reward and KL are exact, without a draw:

    loss = - π(right) + γ · KL(π ‖ π_supervised)

with a larger γ: the supervised stage has stopped where validation users' choices were best, and what is gained beyond
on training users' is lost on others.

Answers move the voice (`PersonalisedDecoder.add_voice`), choices Perceiver and injection: a likelihood is best with
little added for a user, a sampled text says who speaks with more. The voice begins as many times as strong as the judge
finds best in answers to validation users' questions (`find_voice`; as the guidance scale of Sanchez et al. 2023,
arXiv:2306.17806, section 2).
"""

import sys
from pathlib import Path
from typing import Any

from training import versions
from training.decoder import weights_hash
from training.job import Job, run
from training.llm_inputs import LLMInputs
from training.personalised_inference import save
from training.reward_training import Config, RewardTraining
from user_embeddings_dagster.keys import file_sha256


def train(job: Job) -> None:
    """Train, write the model, report; the decoder's frozen weights must be the same before and after."""
    config = Config.of(job.config)
    inputs = LLMInputs(job, job.seed())
    training = RewardTraining(config, inputs, Path(job.config["personalised"]), job.threads)
    if not len(training.choices) and not len(training.questions):
        raise ValueError("no training user has a task")
    before = weights_hash(training.model.decoder)
    job.log(f"{len(training.choices):,} choices and {len(training.questions):,} questions, judge {training.judge.name}")
    checkpoint = job.resume()
    first: dict[str, float] = {}
    if checkpoint is not None:
        training.restore(checkpoint.state)
    else:
        first = training.validate() | training.find_voice()
        job.log(f"begins to speak as users {training.strength:g} times as strongly")
    last: dict[str, float] = {}
    for step in range((checkpoint.step if checkpoint else 0) + 1, config.steps + 1):
        values = first if step == 1 else {}
        values |= training.step(step)
        if step == config.steps:
            last = training.validate()
            values |= last
        job.step(step, config.steps, training.state, **values)
    if weights_hash(training.model.decoder) != before:
        raise ValueError("a frozen weight of the decoder has changed")
    _finish(job, training, before, last or training.validate())


def _finish(job: Job, training: RewardTraining, frozen: str, validated: dict[str, float]) -> None:
    described, inputs = training.described, training.inputs
    along = {f"encoder.{name}": weight for name, weight in training.encoder_weights.items()}
    save(
        job.result, training.model.eval(), {**along, **training.trained}, preset=described["preset"],
        rank=described["rank"], decoder=inputs.decoder_folder, sequence_encoder=described["sequence_encoder"],
    )  # fmt: skip
    metadata: dict[str, Any] = {
        "judge": training.judge.name,
        "guards": training.config.guards,
        "objections": dict(sorted(training.objections.items())),
        "train_tasks": len(training.choices) + len(training.questions),
        "train_choices": len(training.choices),
        "train_questions": len(training.questions),
        "valid_questions": training.validated,
        "strength": training.strength,
        "trained_weights": sum(weight.numel() for weight in training.trained.values()),
        "frozen_hash": frozen,
        "seed": training.config.seed,
        **validated,
    }
    version = file_sha256(job.result / "model.safetensors")[:32]
    job.finish({**metadata, "version": version}, data_version=version, device=inputs.device)


if __name__ == "__main__":
    sys.exit(run("personalised_decoder", train, versions.PERSONALISED_DECODER))
