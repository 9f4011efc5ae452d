"""Training jobs as Pipes subprocesses: `python -P -m training.<job> --inputs … --output …`."""

import os
import subprocess
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path

import dagster as dg

from user_embeddings_dagster.quality.escaping import code_block

# Dagster asks its own reader of messages, in every session, for what it calls a preview.
warnings.filterwarnings(
    "ignore", message=r"Function `PipesMessageReader\.expected_writer_count`", category=dg.PreviewWarning
)

LOG_TAIL_BYTES = 64_000
SHOWN_CHARACTERS = 4_000


class TrainingJobs(dg.ConfigurableResource):
    """Runs one job of `package` and hands back what it reported.

    A job that fails raises `dagster.Failure` with the end of what it said itself; one that exits 0 without reporting a
    materialisation fails too; cancelling the run terminates the process (SIGTERM, then SIGKILL).
    """

    package: str = "training"
    torch_threads: int = 0
    termination_seconds: float = 30.0

    def run(
        self,
        context: dg.AssetExecutionContext,
        job: str,
        inputs: Path,
        output: Path,
        variables: Mapping[str, str] | None = None,
    ) -> dg.MaterializeResult:
        """Run `training.<job>` on an inputs folder, writing an output folder. Raises dagster.Failure.

        `variables` are added to its environment: what must not stand in a file.
        """
        command = [sys.executable, "-P", "-m", f"{self.package}.{job}", "--inputs", inputs, "--output", output]
        output.parent.mkdir(parents=True, exist_ok=True)
        log = output.parent / "stderr.log"
        with dg.open_pipes_session(
            context, dg.PipesTempFileContextInjector(), dg.PipesTempFileMessageReader()
        ) as session:
            environment = {**os.environ, **session.get_bootstrap_env_vars(), **(variables or {})}
            if self.torch_threads:
                environment["USER_EMBEDDINGS_TORCH_THREADS"] = str(self.torch_threads)
            with log.open("wb") as stderr:
                process = subprocess.Popen(command, env=environment, stdout=stderr, stderr=stderr)
                try:
                    code = process.wait()
                finally:
                    self._terminate(process)
        if code != 0:
            raise dg.Failure(
                f"{self.package}.{job} exited with code {code}; what it said is below, all it wrote in {log.name}",
                metadata={"exit_code": code, "log": dg.MetadataValue.md(code_block(_said(log, job)))},
            )
        results = session.get_results(implicit_materializations=False)
        materializations = [result for result in results if isinstance(result, dg.MaterializeResult)]
        if len(materializations) != 1:
            raise dg.Failure(f"{self.package}.{job} exited with code 0 but reported no result")
        return materializations[0]

    def _terminate(self, process: subprocess.Popen) -> None:
        if process.poll() is not None:
            return
        process.terminate()
        try:
            process.wait(timeout=self.termination_seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _said(log: Path, job: str) -> str:
    """The end of what the job itself wrote, which is without data; what libraries write may quote some."""
    with log.open("rb") as stream:
        stream.seek(max(0, log.stat().st_size - LOG_TAIL_BYTES))
        lines = stream.read().decode("utf-8", "replace").splitlines()
    return "\n".join(line for line in lines if line.startswith(f"[{job}] "))[-SHOWN_CHARACTERS:]
