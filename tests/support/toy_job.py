"""A training job small enough to be killed many times."""

import json
import multiprocessing
import runpy
import time
from pathlib import Path

from user_embeddings_dagster.keys import file_sha256

# A regression with dropout whose data come from numpy's and Python's global generators: exact only if all resume.
TOY = """
import os, random, signal, sys, time
import numpy as np
from training.job import run

def train(job):
    import torch
    from training import checkpoint
    from safetensors.torch import save_file
    options = job.config
    device = job.seed()
    if "forget" in options.get("broken", ""):
        checkpoint.restore_random_state = lambda state: None
    if "silent" in options.get("broken", ""):
        return
    (job.work / "pid").write_text(str(os.getpid()))
    model = torch.nn.Sequential(torch.nn.Linear(4, 16), torch.nn.Dropout(0.5), torch.nn.Linear(16, 1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05)
    resumed = job.resume()
    if resumed:
        model.load_state_dict(resumed.state["model"])
        optimizer.load_state_dict(resumed.state["optimizer"])
    for step in range(resumed.step + 1 if resumed else 1, options["steps"] + 1):
        if step == KILL_AT:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(PAUSE)
        x = torch.from_numpy(np.random.standard_normal((8, 4))).float() * random.random()
        loss = (model(x) - x.sum(1, keepdim=True)).square().mean()
        optimizer.zero_grad(); loss.backward(); optimizer.step()
        state = lambda: {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
        job.step(step, options["steps"], state, loss=loss.item())
    save_file(model.state_dict(), job.result / "model.safetensors")
    value = float("nan") if "nan" in options.get("broken", "") else loss.detach().numpy()[()]
    job.finish({"end_loss": value}, data_version="v1", device=device)

if __name__ == "__main__":
    sys.argv = ["toy", *ARGUMENTS] if "ARGUMENTS" in globals() else sys.argv
    if "LOG" in globals():
        for stream in (sys.stdout, sys.stderr):
            os.dup2(os.open(LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream.fileno())
    KILL_AT = globals().get("KILL_AT", int(os.environ.get("KILL_AT", 0)))
    PAUSE = globals().get("PAUSE", float(os.environ.get("PAUSE", 0)))
    sys.exit(run("toy", train))
"""
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["torch._dynamo", "safetensors.torch", "training.checkpoint", "training.job"])


class Toy:
    """The toy job in one folder; each start is a fresh process (forked from a server that has torch loaded)."""

    def __init__(self, folder, steps=14, **config):
        self.folder = Path(folder)
        self.inputs, self.output = self.folder / "inputs", self.folder / "models" / "toy"
        self.inputs.mkdir(parents=True, exist_ok=True)
        config = {"seed": 3, "steps": steps, "threads": 1, "checkpoint_seconds": 0.0, **config}
        (self.inputs / "config.json").write_text(json.dumps(config))
        self.script = self.folder / "toy.py"
        self.script.write_text(TOY)
        self.arguments = ["--inputs", str(self.inputs), "--output", str(self.output)]

    def start(self, kill_at=0, pause=0.0):
        values = {
            "ARGUMENTS": self.arguments, "KILL_AT": kill_at, "PAUSE": pause, "LOG": str(self.folder / "log"),
        }  # fmt: skip
        process = FORKS.Process(target=runpy.run_path, args=(str(self.script), values, "__main__"))
        process.start()
        return process

    def run(self, **options):
        process = self.start(**options)
        process.join(60)
        return process.exitcode

    @property
    def log(self):
        return (self.folder / "log").read_text()

    @property
    def weights(self):
        return file_sha256(self.output / "model.safetensors")

    @property
    def checkpoints(self):
        return sorted((self.folder / "models" / "toy.work" / "checkpoints").glob("step-*"))

    def wait_for_checkpoint(self):
        deadline = time.monotonic() + 30
        while not self.checkpoints and time.monotonic() < deadline:
            time.sleep(0.02)
        assert self.checkpoints
