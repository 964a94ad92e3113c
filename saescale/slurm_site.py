"""What a Slurm site and its jobs need, as a person says it (`conf/cluster/slurm.yaml`). Never part of a run's identity."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass, field

SECRET = re.compile(r"(?:API_?KEY|TOKEN|SECRET|PASSW|CREDENTIAL|PRIVATE_KEY)", re.IGNORECASE)
ASSIGNED = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(\S*)")
WORD = re.compile(r"[A-Za-z0-9_.,:+&|\[\]()*-]+")
MEMORY_UNITS = {"M": 2**20, "G": 2**30, "T": 2**40}
TIME_FORMS = "'4h', '90m', '2d', '4:00:00' or '1-12:00:00' (in quotes, as YAML reads 4:00:00 as a number)"


def minutes(key: str, text: str) -> int:
    """Whole minutes of a time limit, rounded up. Raises ValueError naming `key`."""
    short = re.fullmatch(r"(\d+)([mhd])", text)
    if short:
        total = int(short[1]) * {"m": 60, "h": 3600, "d": 86400}[short[2]]
    else:
        long = re.fullmatch(r"(?:(\d+)-)?(\d+):([0-5]\d):([0-5]\d)", text)
        if not long:
            raise ValueError(f"{key}={text!r} is not a time limit. Write it as {TIME_FORMS}.")
        days, hours, mins, secs = (int(g or 0) for g in long.groups())
        total = ((days * 24 + hours) * 60 + mins) * 60 + secs
    if total < 60:
        raise ValueError(f"{key}={text!r} is too short: Slurm's limits are whole minutes. Give a minute or more.")
    return -(-total // 60)


def memory_bytes(key: str, text: str) -> float:
    """Bytes of '800M', '16G' or '1.5T' (powers of 1024, as Slurm counts). Raises ValueError naming `key`."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([MGT])B?", text)
    if not found or float(found[1]) == 0:
        raise ValueError(f"{key}={text!r} is not an amount of memory. Write it as '800M', '16G' or '1.5T'.")
    return float(found[1]) * MEMORY_UNITS[found[2]]


def check_word(key: str, value: str | None) -> None:
    """Names that go to sbatch are one plain word, though they are quoted as well."""
    if value is not None and not WORD.fullmatch(value):
        raise ValueError(f"{key}={value!r} is not a name Slurm could know. Use letters, digits and _ - . , : + & |.")


@dataclass(frozen=True)
class Request:
    """What one job asks for, on each of its `nodes`: `gpus`, `memory`, and `ranks_per_node` processes (null: one per GPU, one
    without GPUs) of `cpus` cores each, which train the job's fleet together."""

    gpus: int
    gpu_type: str | None
    cpus: int
    memory: str
    time: str
    partition: str | None
    nodes: int = 1
    ranks_per_node: int | None = None

    def __post_init__(self) -> None:
        if self.gpus < 0 or self.cpus < 1:
            raise ValueError(f"cluster.job.gpus={self.gpus}, cluster.job.cpus={self.cpus} is out of range: a job has 0 or more "
                             "GPUs and at least 1 core.")
        for key, value in (("nodes", self.nodes), ("ranks_per_node", self.ranks_per_node)):
            if value is not None and value < 1:
                raise ValueError(f"cluster.job.{key}={value} is out of range: it must be at least 1.")
        minutes("cluster.job.time", self.time)
        memory_bytes("cluster.job.memory", self.memory)
        check_word("cluster.job.partition", self.partition)
        check_word("cluster.job.gpu_type", self.gpu_type)

    @property
    def minutes(self) -> int:
        return minutes("cluster.job.time", self.time)

    @property
    def memory_bytes(self) -> float:
        return memory_bytes("cluster.job.memory", self.memory)

    @property
    def label(self) -> str:
        """'1 x h100, 4 cores, 16G, 4h': for tables."""
        gpus = f"{self.gpus} x {self.gpu_type or 'GPU'}" if self.gpus else "no GPU"
        where = f", {self.partition}" if self.partition else ""
        cores = f"{self.cpus} {'core' if self.cpus == 1 else 'cores'}" + (" a rank" if self.n_ranks > 1 else "")
        size = (f"{self.nodes} nodes with " if self.nodes > 1 else "", f"{self.n_ranks} ranks, " if self.n_ranks > 1 else "")
        return f"{size[0]}{gpus}, {size[1]}{cores}, {self.memory}, {self.time}{where}"

    @property
    def ranks_on_a_node(self) -> int:
        return self.ranks_per_node or max(1, self.gpus)

    @property
    def n_ranks(self) -> int:
        """Processes of the job, one task of the scheduler each."""
        return self.nodes * self.ranks_on_a_node

    @property
    def n_gpus(self) -> int:
        return self.nodes * self.gpus

    def of_one_process(self) -> Request:
        """The same for work that is one process: a harvest, a probe."""
        return dataclasses.replace(self, nodes=1, gpus=min(1, self.gpus), ranks_per_node=None)


@dataclass(frozen=True)
class Rule:
    """Runs for which `when` is true (the grammar of --only) ask for this instead; null keeps what `cluster.job` says."""

    when: str
    gpus: int | None = None
    gpu_type: str | None = None
    cpus: int | None = None
    memory: str | None = None
    time: str | None = None
    partition: str | None = None
    nodes: int | None = None
    ranks_per_node: int | None = None


@dataclass(frozen=True)
class SlurmConfig:
    """How this site wants its jobs. Limits that are null are asked of the controller."""

    account: str | None
    qos: str | None
    constraint: str | None
    setup: tuple[str, ...]
    environment: dict[str, str]
    max_array_size: int | None
    max_submit: int | None
    signal_delay_s: int
    extra: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for key in ("account", "qos", "constraint"):
            check_word(f"cluster.slurm.{key}", getattr(self, key))
        for key in ("max_array_size", "max_submit", "signal_delay_s"):
            value = getattr(self, key)
            if value is not None and value < 1:
                raise ValueError(f"cluster.slurm.{key}={value} is out of range: it must be at least 1.")
        for name, value in self.environment.items():
            if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
                raise ValueError(f"cluster.slurm.environment: {name!r} is not the name of a variable.")
            refuse_secret("cluster.slurm.environment", name, value)
        for line in self.setup:
            for name, value in ASSIGNED.findall(line):
                refuse_secret("cluster.slurm.setup", name, value)
        for name, value in self.extra.items():
            if not re.fullmatch(r"[a-z][a-z-]*", name) or "\n" in value:
                raise ValueError(f"cluster.slurm.extra: {name!r} is not an option of sbatch. Write it as in its manual, "
                                 "without the leading dashes.")


def refuse_secret(key: str, name: str, value: str) -> None:
    """A secret must not be written into scripts, plans and logs; one that is looked up when the job runs is fine."""
    if SECRET.search(name) and value.lstrip("\"'")[:1] not in ("", "$", "`"):
        raise ValueError(f"{key} would write {name} into every script. Set it in your shell before you launch, or have a set-up "
                         f"line read it from a file only you can read: export {name}=$(cat ~/.secret).")
