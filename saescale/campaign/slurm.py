"""Arrays of jobs handed to Slurm. The only file that imports submitit, which is transport here: its results, states and
requeueing are not used, for the records on disk say more and survive more."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

from submitit import SlurmExecutor
from submitit.core.utils import FailedJobError, FailedSubmissionError
from submitit.helpers import clean_env

from saescale.campaign import queue, task
from saescale.config import ClusterConfig
from saescale.slurm_site import Request


class Refused(Exception):
    """sbatch did not say that it accepted; whether it did is for the queue to say."""


@dataclass(frozen=True)
class Array:
    """What sbatch is told of one array. `after`: ('afterok', numbers) or ('afterany', numbers); `at_once`: its throttle."""

    name: str
    folder: Path
    request: Request
    code: str
    after: tuple[str, Sequence[str]] | None = None
    at_once: int = 256


def check_folder(root: Path) -> None:
    """sbatch expands % in the paths of logs and cannot take line ends. Raises ValueError."""
    if any(c in str(root) for c in "%\n\r\\"):
        raise ValueError(f"the store {str(root)!r} has a character that sbatch would expand (%, \\, a line end). "
                         "Give another folder with --store.")


def parameters(array: Array, cluster: ClusterConfig) -> dict[str, Any]:
    """The options of sbatch. Everything is quoted by submitit; the set-up lines are the site's own shell."""
    site, request = cluster.slurm, array.request
    assert site is not None
    more: dict[str, Any] = {"requeue": True, "kill-on-invalid-dep": "yes", **site.extra}
    gpus = f"{request.gpu_type}:{request.gpus}" if request.gpu_type else request.gpus
    lines = [*site.setup, *(f"export {k}={shlex.quote(v)}" for k, v in site.environment.items()),
             f"export PYTHONPATH={shlex.quote(array.code)}${{PYTHONPATH:+:$PYTHONPATH}}"]
    given = {"job_name": array.name, "time": request.minutes, "nodes": request.nodes, "wckey": None,
             "ntasks_per_node": request.ranks_on_a_node, "srun_args": srun_arguments(request),
             "cpus_per_task": request.cpus, "mem": f"{int(request.memory_bytes / 2**20)}M", "partition": request.partition,
             "gpus_per_node": gpus if request.gpus else None, "account": site.account, "qos": site.qos,
             "constraint": site.constraint, "signal_delay_s": site.signal_delay_s, "setup": lines,
             "dependency": f"{array.after[0]}:{':'.join(array.after[1])}" if array.after and array.after[1] else None,
             "array_parallelism": max(1, array.at_once), "additional_parameters": more}
    return {k: v for k, v in given.items() if v is not None or k == "wckey"}


def srun_arguments(request: Request) -> list[str]:
    """A step does not inherit the cores of its tasks. When one rank ends badly, Slurm ends the others of its job."""
    return [f"--cpus-per-task={request.cpus}", *(["--kill-on-bad-exit=1"] if request.n_ranks > 1 else [])]


def submit(array: Array, cluster: ClusterConfig, jobs: Sequence[Path]) -> str:
    """Hand over one array, an element per job; returns its number. Raises Refused."""
    with outside_any_job(), redirect_stderr(StringIO()):  # submitit prints what it raises
        executor = SlurmExecutor(array.folder)
        executor.update_parameters(**parameters(array, cluster))
        try:
            handed = executor.map_array(task.run_task, [str(j) for j in jobs])
        except (FailedJobError, FailedSubmissionError, OSError) as e:
            raise Refused(_said(e)) from e
    return str(handed[0].job_id).partition("_")[0]


@contextmanager
def outside_any_job() -> Iterator[None]:
    """A launch from within a job must not hand down that job's variables; where Slurm's configuration lies is no such thing."""
    if "SLURM_JOB_ID" not in os.environ:
        yield
        return
    conf = os.environ.get("SLURM_CONF")
    with clean_env():
        os.environ |= {"SLURM_CONF": conf} if conf else {}
        yield


def _said(error: Exception) -> str:
    """The last line sbatch wrote, without submitit's frame."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = [line for line in lines if "error:" in line] or lines[-1:] or [type(error).__name__]
    return told[-1].removeprefix("subprocess.CalledProcessError: ")


def test_only(array: Array, cluster: ClusterConfig, n_jobs: int) -> tuple[bool, str]:
    """Ask sbatch whether it would accept: (whether it would, what it said). Nothing is queued."""
    array.folder.mkdir(parents=True, exist_ok=True)
    script = array.folder / "test-only.sh"
    given: Mapping[str, Any] = parameters(array, cluster)
    with outside_any_job():
        executor = SlurmExecutor(array.folder)
        executor.update_parameters(**given)
        script.write_text(executor._make_submission_file_text("true", ""))
        more = [f"--array=0-{n_jobs - 1}"] if n_jobs > 1 else []
        out, why = queue.ask("sbatch", "--test-only", *more, str(script), with_errors=True)
    script.unlink()
    return out is not None, " ".join((out or why).split()).removeprefix("sbatch: ")


def accepted_silently(name: str, said: str) -> queue.Queue:
    """The queue after an sbatch that failed, asked for a while where it may have been accepted all the same."""
    slow = any(word in said.lower() for word in ("timed out", "timeout", "unable to contact", "zero bytes", "connection"))
    found = queue.queue()
    for _ in range(5 if slow else 0):
        if found.unknown is None and found.named(name):
            break
        time.sleep(1)
        found = queue.queue()
    return found
