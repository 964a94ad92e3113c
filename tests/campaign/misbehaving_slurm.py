"""Small executables on PATH that stand in where a real Slurm would not misbehave on demand.

`sbatch` keeps a queue in a file that `squeue` prints; files beside it say what goes wrong.
"""

import stat
from pathlib import Path

SCRIPTS = {
    "sbatch": """
        echo "$@" >> sbatch.calls
        if [ -f sbatch.refuse ]; then cat sbatch.refuse >&2; exit 1; fi
        n=$(($(cat number 2>/dev/null || echo 100) + 1)); echo $n > number
        name=$(sed -n "s/^#SBATCH --job-name=//p" "$1" | tr -d "'")
        last=$(sed -n "s/^#SBATCH --array=0-\\([0-9]*\\)%.*/\\1/p" "$1")
        if [ -z "$last" ]; then echo "$n|$n|N/A|PENDING|$name|None" >> squeue.out
        else for i in $(seq 0 $last); do echo "$n|$n|$i|PENDING|$name|Priority" >> squeue.out; done; fi
        if [ -f sbatch.late ]; then echo "sbatch: error: Socket timed out on send/recv operation" >&2; exit 1; fi
        echo "Submitted batch job $n" """,
    "squeue": "[ -f squeue.fail ] && { echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1; }\n"
              "cat squeue.out 2>/dev/null || true",
    "scontrol": 'echo "$@" >> scontrol.calls\necho "MaxArraySize            = 5"', "srun": "true",
    "scancel": 'echo "$@" >> scancel.calls'}


class FakeSlurm:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        for name, script in SCRIPTS.items():
            path = folder / name
            path.write_text(f"#!/bin/sh\nPATH=/usr/bin:/bin\nGIVEN=$1\ncd {folder}\n{script}\n")
            path.chmod(path.stat().st_mode | stat.S_IEXEC)

    def say(self, name: str, text: str = "") -> None:
        (self.folder / name).write_text(text)

    def no_longer(self, name: str) -> None:
        (self.folder / name).unlink()

    def rows(self) -> list[list[str]]:
        path = self.folder / "squeue.out"
        return [line.split("|") for line in path.read_text().splitlines()] if path.exists() else []

    def set_rows(self, rows) -> None:
        self.say("squeue.out", "".join("|".join(r) + "\n" for r in rows))

    @property
    def n_sbatch(self) -> int:
        path = self.folder / "sbatch.calls"
        return len(path.read_text().splitlines()) if path.exists() else 0
