"""Is everything here that a launch needs: one line per thing looked at, and what to do where it is not."""

from __future__ import annotations

import json
import platform
import re
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from saescale.campaign import compose, folders, queue
from saescale.config import ClusterConfig, group
from saescale.records.store import Store

OK, WARN, FAIL = "ok", "warn", "fail"
LITTLE_DISK_GB = 5.0
HERE = ("local", "inprocess")  # never read through Hydra, whose absence is for a check to say


@dataclass(frozen=True)
class Check:
    """`verdict` ok, warn (it works, and something is lost) or fail (it will not work); `advice` empty when ok."""

    verdict: str
    name: str
    said: str
    advice: str = ""


def examine(store: Store, cluster: str, partition: str | None) -> Iterator[Check]:
    """Look at this machine, and where conf/cluster/<cluster>.yaml is of a Slurm site at its scheduler and one of its nodes.

    Raises ValueError for a cluster there is not.
    """
    site = settings_of(cluster) if cluster not in HERE else None
    yield from machine(store)
    if site is not None and site.kind == "slurm":
        yield from scheduler()
        yield from shared_folder(store, site, partition)


def settings_of(cluster: str) -> ClusterConfig:
    known = compose.group_choices()["cluster"]
    if cluster not in known:
        raise ValueError(f"--cluster {cluster} is not known. Choose one of: {', '.join(known)}.")
    site = group("cluster", compose.compose({"cluster": cluster})["cluster"])
    if site.kind == "slurm" and (site.job is None or site.slurm is None):
        raise ValueError(f"conf/cluster/{cluster}.yaml needs job and slurm. Copy conf/cluster/slurm.yaml.")
    return site


def machine(store: Store) -> Iterator[Check]:
    found = platform.python_version()
    yield Check(OK if sys.version_info >= (3, 11) else FAIL, "python", f"{found}, {sys.executable}", "use Python 3.11 or newer")
    for name in ("torch", "hydra-core", "submitit"):
        yield installed(name, FAIL)
    for name, why in (("numba", "faster kernels: pip install 'saescale[fast]'"), ("wandb", "a mirror of the records")):
        check = installed(name, WARN)
        yield check if check.verdict == OK else Check(OK, name, f"not installed ({why})")
    yield from gpus()
    for name in ("conf", "sweeps"):
        try:
            yield Check(OK, name, ", then ".join(map(str, folders.folders(name))))
        except ValueError as e:
            yield Check(FAIL, name, str(e), "run saescale in a project folder")
    try:
        store.require_writable()
        free = shutil.disk_usage(store.root).free / 1e9
        yield Check(OK if free > LITTLE_DISK_GB else WARN, "disk", f"{store.root} has {free:.0f} GB free",
                    "make room: saescale gc lists what can go")
    except ValueError as e:
        yield Check(FAIL, "disk", str(e), "")


def gpus() -> Iterator[Check]:
    """The GPUs of this machine as torch sees them, in a process of its own: a broken driver must not end this one."""
    if not shutil.which("nvidia-smi"):
        yield Check(OK, "gpu", "none here: SAEs train on the processor")
        return
    script = ("import json, torch, torch.distributed as d; c = torch.cuda; n = c.device_count() if c.is_available() else 0; "
              "print(json.dumps([torch.version.cuda, d.is_available() and d.is_nccl_available(), "
              "[[p.name, p.total_memory] for p in map(c.get_device_properties, range(n))]]))")
    try:
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
        cuda, has_nccl, found = json.loads(done.stdout.splitlines()[-1])
    except (OSError, subprocess.SubprocessError, ValueError, IndexError) as e:
        yield Check(WARN, "gpu", f"torch cannot be asked ({e})", "SAEs train on the processor until `import torch` works")
        return
    if not found:
        why = "torch is built without CUDA" if cuda is None else f"torch with CUDA {cuda} sees no GPU"
        yield Check(WARN, "gpu", why, "SAEs train on the processor: install torch with CUDA, or look at the driver and "
                                      "CUDA_VISIBLE_DEVICES")
        return
    for i, (name, n_bytes) in enumerate(found):
        yield Check(OK, f"gpu {i}", f"{name}, {n_bytes / 1e9:.1f} GB, CUDA {cuda}")
    triton = installed("triton", OK)
    said = triton.said if not triton.advice else "not installed: the torch kernels train on the GPU"
    yield Check(OK, "triton", said)
    yield Check(OK if has_nccl or len(found) == 1 else WARN, "nccl", "available" if has_nccl else "not available",
                "jobs of several GPUs need it: install torch with NCCL, or set cluster.ranks=1")


def installed(name: str, otherwise: str) -> Check:
    try:
        return Check(OK, name, version(name))
    except PackageNotFoundError:
        return Check(otherwise, name, "not installed", f"pip install {name}")


def scheduler() -> Iterator[Check]:
    for name in ("sbatch", "srun", "squeue", "scontrol", "scancel"):
        found = shutil.which(name)
        yield Check(OK if found else FAIL, name, found or "not on PATH", "log in to a node where Slurm's commands are")
    now = queue.queue()
    yield Check(FAIL if now.unknown else OK, "queue", now.unknown or f"{len(now.elements)} jobs of yours",
                "the controller has to answer before a launch")
    out, why = queue.ask("sacct", "--noheader", "--starttime=now-1minute")
    yield Check(OK if out is not None else WARN, "sacct", "answers" if out is not None else why,
                "states then come from disk and squeue; `why` knows less of out-of-memory kills")
    config, why = queue.ask("scontrol", "show", "config")
    if config is None:
        yield Check(FAIL, "configuration", why, "the controller has to answer before a launch")
        return
    yield from configuration(config)
    out, _ = queue.ask("sinfo", "--noheader", "--format=%R %a %l %D nodes %G")
    for line in sorted(set((out or "").splitlines())):
        yield Check(OK, "partition", " ".join(line.split()))


def configuration(config: str) -> Iterator[Check]:
    """What the controller's settings mean for a sweep."""
    def value(key: str) -> str:
        found = re.search(rf"^{key}\s*=\s*(.*)$", config, re.MULTILINE)
        return found[1].strip() if found else ""

    known = queue.limits()
    yield Check(OK, "limits", f"MaxArraySize {known.array}, jobs per user "
                              f"{'without limit' if known.submit is None else f'at most {known.submit}'}")
    warned = "preempt_send_user_signal" in value("SlurmctldParameters") + value("PreemptParameters")
    if "none" in value("PreemptType").lower() or value("PreemptMode") == "OFF":
        yield Check(OK, "preemption", "none here")
    else:
        yield Check(OK if warned else WARN, "preemption", f"{value('PreemptType')}, " + (
            "jobs are sent USR2 first and save" if warned else "without a warning by USR2"),
                    "a preempted job then has its grace time after SIGTERM to save, and loses what came after its last "
                    "checkpoint if that is short: lower cluster.checkpoint_s")
    requeue = value("JobRequeue") != "0"
    yield Check(OK if requeue else WARN, "requeue", "jobs of a failed node go back to the queue" if requeue else
                "JobRequeue=0", "jobs of a failed node end: launch again")


def shared_folder(store: Store, site: ClusterConfig, partition: str | None) -> Iterator[Check]:
    """Whether a node reads what is written here and writes what is read here, tried with a job of a second that asks for the
    account, the qos, the constraint and the partition of the site's jobs."""
    assert site.slurm is not None and site.job is not None
    token = uuid.uuid4().hex
    here, there = store.root / f".doctor-{token}", store.root / f".doctor-{token}.back"
    try:
        here.write_text(token + "\n")
        script = 'read -r t < "$1" && printf %s "$t" > "$2" && "$3" -c "import saescale, torch"'
        asked = {"partition": partition or site.job.partition, "account": site.slurm.account, "qos": site.slurm.qos,
                 "constraint": site.slurm.constraint}
        where = [f"--{name}={value}" for name, value in asked.items() if value]
        out, why = queue.ask("srun", "--quiet", "--immediate=45", "--ntasks=1", "--nodes=1", "--time=2", *where,
                             "--job-name=saescale-doctor", "sh", "-c", script, "sh", str(here), str(there), sys.executable)
        written = there.exists() and there.read_text() == token
        yield Check(OK if out is not None else FAIL if not written else WARN, "shared folder and python",
                    f"a node reads and writes {store.root} and imports saescale with {sys.executable}" if out is not None else
                    ("a node sees the folder; " if written else "") + why,
                    "put the store and the environment on a filesystem the nodes share; try another --partition")
    except OSError as e:
        yield Check(FAIL, "shared folder", f"{store.root}: {e.strerror}", "give a folder you may write to with --store")
    finally:
        for path in (here, there):
            path.unlink(missing_ok=True)


def worst(checks: list[Check]) -> str:
    return max((c.verdict for c in checks), key=(OK, WARN, FAIL).index, default=OK)
