"""A real Slurm on this one machine, for tests: controller, accounting, four virtual nodes with fake GPUs, all on 127.0.0.1.

Every daemon is a child of this process and runs in the foreground: `down` ends exactly these. Configuration, key, sockets, state
and logs lie in one folder; nothing system-wide is read or written. Needs root and the packages of PROGRAMS.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

PROGRAMS = {"slurmctld": "slurm-wlm", "slurmd": "slurm-wlm", "sbatch": "slurm-wlm", "munged": "munge", "slurmdbd": "slurmdbd",
            "mariadbd": "mariadb-server"}
NODES, CPUS, MEMORY_MB, GPUS = 4, 2, 16000, 2
CONF = """\
ClusterName=onehost
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ctld}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={munge},cred_expire=5
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SwitchType=switch/none
MailProg=/bin/true
ReturnToService=2
SlurmdParameters=config_overrides
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,sched_min_interval=0,bf_interval=1,batch_sched_delay=0,bf_continue
SlurmctldTimeout=60
SlurmdTimeout=60
InactiveLimit=0
KillWait=5
OverTimeLimit=0
MinJobAge=600
MaxArraySize={max_array}
JobRequeue=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters={ctld_parameters}
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=500
GresTypes=gpu
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={dbd}
AccountingStoragePass={munge}
AccountingStorageTRES=gres/gpu
AccountingStorageEnforce=limits
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=5
NodeName=n[1-{nodes}] NodeHostname={host} NodeAddr=127.0.0.1 Port={first}-{last} CPUs={cpus} Boards=1 SocketsPerBoard=1 \
CoresPerSocket={cpus} ThreadsPerCore=1 RealMemory={memory} Gres=gpu:h100:{gpus} State=UNKNOWN
PartitionName=main Nodes=n[1-{nodes}] Default=YES MaxTime=INFINITE DefaultTime=30 State=UP PriorityTier=10 PreemptMode=OFF
PartitionName=scavenge Nodes=n[1-{nodes}] MaxTime=INFINITE DefaultTime=30 State=UP PriorityTier=1 PreemptMode=REQUEUE GraceTime=20
"""
DBD_CONF = """\
AuthType=auth/munge
AuthInfo=socket={munge}
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort={dbd}
SlurmUser=root
LogFile={folder}/log/slurmdbd.log
PidFile={folder}/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=root
StorageLoc=slurm_acct_db
CommunicationParameters=NoInAddrAny
"""


def why_not() -> str | None:
    """Why no cluster can be had here, or None."""
    missing = sorted({package for program, package in PROGRAMS.items() if shutil.which(program, path=search_path()) is None})
    if missing:
        return f"not installed: {' '.join(missing)}"
    return None if os.geteuid() == 0 else "the single-host cluster needs root"


def search_path() -> str:
    return os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])


class OneHost:
    """`up` starts the cluster and puts it into this process's environment; `down` ends it and takes it out again."""

    def __init__(self, max_array: int = 5) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="ss-"))  # short: paths of sockets have 108 characters at most
        ports = free_ports(NODES + 2)
        self.conf = self.folder / "etc" / "slurm.conf"
        self.munge = self.folder / "munge" / "socket"
        self.values = {"host": socket.gethostname().split(".")[0], "folder": self.folder, "munge": self.munge, "nodes": NODES,
                       "ctld": ports, "dbd": ports + 1, "first": ports + 2, "last": ports + 1 + NODES, "cpus": CPUS,
                       "memory": MEMORY_MB, "gpus": GPUS, "max_array": max_array,
                       "ctld_parameters": parameters_of_controller(warns=True)}
        self.number = itertools.count()
        self.daemons: list[tuple[str, subprocess.Popen]] = []
        self.before = {k: os.environ.get(k) for k in ("SLURM_CONF", "PATH")}

    def up(self) -> OneHost:
        for name in ("etc", "log", "state", "spool", "munge", "db", "dev"):
            (self.folder / name).mkdir()
        for name in ("", "munge"):
            (self.folder / name).chmod(0o755)
        os.environ |= {"SLURM_CONF": str(self.conf), "PATH": search_path()}
        self.write()
        self.start("munged", "--foreground", "--force", f"--key-file={self.folder}/etc/munge.key", f"--socket={self.munge}",
                   f"--pid-file={self.folder}/munge/pid", f"--log-file={self.folder}/log/munge.log",
                   f"--seed-file={self.folder}/munge/seed", "--origin=127.0.0.1")
        wait_for("munge", lambda: answers("munge", "-S", str(self.munge), "-n"))
        self.start_accounting()
        self.start("slurmctld", "-D", "-f", str(self.conf))
        wait_for("slurmctld", lambda: answers("scontrol", "ping"))
        for i in range(1, NODES + 1):
            self.start_node(f"n{i}")
        wait_for("the nodes", lambda: said("sinfo", "-hN", "-o", "%t", "-p", "main").split() == ["idle"] * NODES)
        return self

    def warn_before_preemption(self, warns: bool) -> None:
        """Whether a job that is preempted is sent its USR2 first: the controller is started again with the other setting."""
        self.values["ctld_parameters"] = parameters_of_controller(warns)
        self.conf.write_text(CONF.format(**self.values))
        name, process = next((n, p) for n, p in self.daemons if n.startswith("slurmctld"))
        process.terminate()
        process.wait(timeout=30)
        self.daemons.remove((name, process))
        self.start("slurmctld", "-D", "-f", str(self.conf))
        wait_for("slurmctld", lambda: answers("scontrol", "ping"))
        wait_for("the nodes", lambda: said("sinfo", "-hN", "-o", "%t", "-p", "main").split() == ["idle"] * NODES)

    def write(self) -> None:
        self.conf.write_text(CONF.format(**self.values))
        (self.folder / "etc" / "cgroup.conf").write_text("CgroupPlugin=autodetect\n")
        (self.folder / "etc" / "plugstack.conf").write_text("")
        for i in range(GPUS):  # harmless device nodes, so that indices are dealt out; nothing opens them
            os.mknod(self.folder / "dev" / f"gpu{i}", 0o20666, os.makedev(1, 3))
        devices = f"{self.folder}/dev/gpu[0-{GPUS - 1}]"
        (self.folder / "etc" / "gres.conf").write_text(f"AutoDetect=off\nName=gpu Type=h100 File={devices}\n")
        key = self.folder / "etc" / "munge.key"
        key.write_bytes(os.urandom(128))
        dbd = self.folder / "etc" / "slurmdbd.conf"
        dbd.write_text(DBD_CONF.format(**self.values))
        for path in (key, dbd):
            path.chmod(0o600)

    def start_accounting(self) -> None:
        db = self.folder / "db"
        subprocess.run(["mariadb-install-db", "--user=root", f"--datadir={db}/data", "--auth-root-authentication-method=normal",
                        "--skip-test-db"], check=True, capture_output=True)
        self.start("mariadbd", "--no-defaults", "--user=root", f"--datadir={db}/data", f"--socket={db}/sock", "--skip-networking",
                   f"--pid-file={db}/pid", "--innodb-buffer-pool-size=64M", "--innodb-lock-wait-timeout=900",
                   "--innodb-log-file-size=32M")
        wait_for("mariadb", lambda: answers("mariadb-admin", "--no-defaults", f"--socket={db}/sock", "-uroot", "ping"))
        said("mariadb", "--no-defaults", f"--socket={db}/sock", "-uroot", "-e", "CREATE DATABASE IF NOT EXISTS slurm_acct_db")
        self.start("slurmdbd", "-D", MYSQL_UNIX_PORT=f"{db}/sock")
        wait_for("slurmdbd", lambda: answers("sacctmgr", "-n", "show", "cluster"))
        said("sacctmgr", "-i", "add", "cluster", "onehost")

    def start(self, program: str, *arguments: str, **environment: str) -> subprocess.Popen:
        name = f"{program}-{next(self.number)}"
        with (self.folder / "log" / f"{name}.out").open("wb") as out:
            process = subprocess.Popen([program, *arguments], stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                                       env={**os.environ, **environment}, preexec_fn=die_with_parent)
        self.daemons.append((name, process))
        return process

    def start_node(self, node: str) -> subprocess.Popen:
        (self.folder / "spool" / node).mkdir(exist_ok=True)
        return self.start("slurmd", "-D", "-f", str(self.conf), "-N", node)

    def down(self) -> None:
        with contextlib.suppress(Exception):
            ids = said("squeue", "-h", "-o", "%A").split()
            if ids:
                said("scancel", *sorted(set(ids)))
                wait_for("an empty queue", lambda: not said("squeue", "-h").strip(), seconds=20)
        for _, process in reversed(self.daemons):
            process.terminate()
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for name, value in self.before.items():
            os.environ.pop(name, None)
            os.environ |= {name: value} if value is not None else {}
        shutil.rmtree(self.folder, ignore_errors=True)


def parameters_of_controller(warns: bool) -> str:
    return "preempt_send_user_signal" if warns else "idle_on_node_suspend"


def die_with_parent() -> None:
    """A session of its own, and SIGTERM when the tests are killed: no daemon outlives them."""
    os.setsid()
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def free_ports(n: int) -> int:
    """The first of `n` consecutive ports nobody listens on."""
    for first in range(17000 + os.getpid() % 1000 * 10, 60000, n):
        with contextlib.ExitStack() as stack:
            try:
                for port in range(first, first + n):
                    stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
            except OSError:
                continue
            return first
    raise OSError("no free ports")


def said(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


def answers(*command: str) -> bool:
    try:
        return subprocess.run(command, capture_output=True, timeout=20).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def wait_for(what: str, happened: Callable[[], bool], seconds: float = 180) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, f"{what} did not come within {seconds} s"
        time.sleep(0.1)
