"""Whether the refinement finds the best instructions where they are known: ten seeds against a scripted model.

    python -m benchmarks.refinement [--seeds N] [--calls N]

`benchmarks.scripted_model` says what the model does. Every seed has its own chunks, split and proposals, and at most
`--calls` calls (summaries and reflections together). The control takes as many proposals of the same writer and
accepts every one: what is left then is the writer's doing, not the optimiser's. Exits with 1 if fewer than 9 of 10
seeds reach the optimum.
"""

import argparse
import random
import sys
import time
from dataclasses import dataclass

from benchmarks.scripted_model import START, Script, ScriptedModel, edited, examples
from user_embeddings_dagster.summaries.adherence import Adherence
from user_embeddings_dagster.summaries.refinement import Refinement, refine
from user_embeddings_dagster.summaries.subject import summarise_subject

BUDGET_CALLS = 1_000
ENOUGH = 0.9  # share of the seeds
TRAINING = (16, 3)  # contributors, chunks of each
DEVELOPMENT = (10, 2)


@dataclass(frozen=True)
class Trial:
    """One seed: the refinement, and the score of the control on the same development examples."""

    seed: int
    refinement: Refinement
    control: float
    seconds: float

    @property
    def best(self) -> bool:
        """Whether the program to use is one of the best: it breaks no constraint in any chunk."""
        return self.refinement.adopted and Script(self.refinement.program.instructions).best


def trial(seed: int, max_calls: int = BUDGET_CALLS) -> Trial:
    """Refine from the bare instructions with this seed."""
    started, model = time.perf_counter(), ScriptedModel()
    program = summarise_subject().with_instructions(START)
    train, development = examples(*TRAINING, seed=2 * seed), examples(*DEVELOPMENT, seed=2 * seed + 1)
    result = refine(program, train, development, model, model, seed=seed, max_calls=max_calls)
    seconds = time.perf_counter() - started
    return Trial(seed, result, control(seed, result.search.proposed), seconds)


def control(seed: int, proposals: int) -> float:
    """Mean development score after as many proposals, every one accepted."""
    program = summarise_subject().with_instructions(START)
    train, development = examples(*TRAINING, seed=2 * seed), examples(*DEVELOPMENT, seed=2 * seed + 1)
    adherence, rng = Adherence(ScriptedModel()), random.Random(seed)
    for _ in range(proposals):
        read = adherence.scored(program, rng.sample(train, 3))
        broken = sorted({number for each in read for number in each.violated})
        program = program.with_instructions(edited(program.instructions, broken, "", rng))
    scores = [each.score for each in adherence.scored(program, development)]
    return sum(scores) / len(scores)


def main() -> int:
    """Print the table; returns 1 if too few seeds reach the optimum."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--calls", type=int, default=BUDGET_CALLS, help="budget of one seed")
    arguments = parser.parse_args()
    trials = []
    print("| seed | before | after | difference (95% interval) | proposals | calls | ended by | control | seconds |")
    print("|---" * 9 + "|")
    for seed in range(arguments.seeds):
        trials.append(this := trial(seed, arguments.calls))
        result = this.refinement
        low, high = result.difference.low or float("nan"), result.difference.high or float("nan")
        print(
            f"| {seed} | {result.before.value:.3f} | {result.after.value:.3f} | {result.difference.value:+.3f} "
            f"[{low:+.3f}, {high:+.3f}] | {result.search.proposed} | {result.usage.calls} | {result.stopped_by} "
            f"| {this.control:.3f} | {this.seconds:.1f} |",
            flush=True,
        )
    best = sum(this.best for this in trials)
    unselected = sum(this.control == 1.0 for this in trials)
    print(
        f"\n{best} of {len(trials)} seeds reach the optimum (adherence 1.0) within {arguments.calls} calls; "
        f"accepting every proposal, {unselected} do."
    )
    return 0 if best >= ENOUGH * len(trials) else 1


if __name__ == "__main__":
    sys.exit(main())
