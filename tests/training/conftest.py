import importlib.util
import signal
from pathlib import Path

import pytest

from training.job import run
from training.sequence_encoder import train
from training.versions import SEQUENCE_ENCODER


def _load(name):
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def samples():
    """The generator of sequences with a learnable rule."""
    return _load("sequence_samples")


@pytest.fixture(scope="session")
def train_sequence_encoder():
    """Run the job in this process: (inputs, output) → output; signal handlers are put back."""

    def start(inputs, output):
        numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGALRM)
        before = [signal.getsignal(number) for number in numbers]
        try:
            arguments = ["--inputs", str(inputs), "--output", str(output)]
            assert run("sequence_encoder", train, SEQUENCE_ENCODER, arguments) == 0
        finally:
            for number, handler in zip(numbers, before, strict=True):
                signal.signal(number, handler)
        return output

    return start


@pytest.fixture(scope="session")
def population(tmp_path_factory):
    """Users whose words follow from their items, with a decoder and a sequence encoder."""
    from made_up_population import population

    return population(tmp_path_factory.mktemp("population"))


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory):
    """The toy job, run to its end; read it only."""
    from toy_job import Toy

    toy = Toy(tmp_path_factory.mktemp("undisturbed"))
    assert toy.run() == 0
    return toy
