"""wandb's client, held at arm's length: nothing outside the sweep's track/ folder is written, nothing is asked at a terminal, and
every call ends in bounded time.

The names below wandb.sdk and wandb.apis are not wandb's public face: pyproject pins the minor version they were tried with.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from saescale.track.tracked import Tracked

INIT_S, FINISH_S, ASK_S = 10.0, 20.0, 8.0
PROJECT = "saescale"
OF_ANOTHER_RUN = tuple(f"WANDB_{name}" for name in (  # what a surrounding wandb run may have left in the environment
    "RUN_ID", "SWEEP_ID", "RESUME", "RUN_GROUP", "JOB_TYPE", "NAME", "TAGS", "NOTES", "MODE"))
HELD = """query RunResumeStatus($project: String, $entity: String, $name: String!) {
  model(name: $project, entityName: $entity) { bucket(name: $name, missingOk: true) { historyLineCount } } }"""


class Unreachable(Exception):
    """The server does not answer, or not as it should."""


class NoKey(Unreachable):
    """There is no key to log in with."""


class IdTaken(Unreachable):
    """The id belongs to a run of another experiment."""


class Deleted(Exception):
    """The run was deleted on the server, which does not take its id again."""


class Client:
    """Opens runs of one sweep, `online` or not. Import and service start with the first client of a process."""

    def __init__(self, folder: Path, project: str | None, entity: str | None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for name in OF_ANOTHER_RUN:
            os.environ.pop(name, None)
        for name in ("DIR", "CACHE_DIR", "DATA_DIR", "ARTIFACT_DIR"):
            os.environ[f"WANDB_{name}"] = str(folder)
        os.environ |= {"WANDB_SILENT": "true", "WANDB_CONSOLE": "off", "WANDB_ERROR_REPORTING": "false"}
        import wandb

        self.wandb, self.folder = wandb, folder
        self.project = project or os.environ.get("WANDB_PROJECT") or PROJECT
        self.entity = entity or os.environ.get("WANDB_ENTITY")
        self.api: Any = None

    def connect(self) -> str:
        """Find the key, ask the server who it belongs to, and return where runs go: `<server>/<entity>/<project>`.

        Raises NoKey or Unreachable, in ASK_S at the latest.
        """
        from wandb.apis.public.service_api import ServiceApi
        from wandb.sdk.lib import wbauth

        settings = self.wandb.setup().settings
        try:
            found = wbauth.authenticate_session(host=settings.base_url, source="saescale", prompt=False)
        except Exception as e:
            raise NoKey(f"the wandb key cannot be used: {_first_line(e)}") from e
        if found is None:
            raise NoKey("there is no wandb key (set WANDB_API_KEY, or log in once with `wandb login`)")
        self.api = ServiceApi(settings=self.wandb.setup().settings, timeout=ASK_S)
        viewer = self._ask("query Viewer { viewer { entity } }", {}).get("viewer")
        if not viewer:
            raise Unreachable(f"{settings.base_url} does not know this wandb key")
        self.entity = self.entity or viewer["entity"]
        return f"{settings.base_url}/{self.entity}/{self.project}"

    def _ask(self, query: str, variables: Mapping[str, Any]) -> dict[str, Any]:
        try:
            return self.api.execute_graphql(query, variables, timeout=ASK_S) or {}
        except Exception as e:
            server = self.wandb.setup().settings.base_url
            if "error 401" in str(e) or "error 403" in str(e):
                raise Unreachable(f"{server} refuses the wandb key") from e
            raise Unreachable(f"{server} does not answer as a wandb server does ({_first_line(e)})") from e

    def rows_there(self, wandb_id: str) -> int:
        """History rows the server has of a run, 0 when it does not know it. Raises Unreachable."""
        model = self._ask(HELD, {"project": self.project, "entity": self.entity, "name": wandb_id}).get("model") or {}
        return (model.get("bucket") or {}).get("historyLineCount") or 0

    def open(self, run: Tracked, wandb_id: str, online: bool) -> LiveRun:
        """Raises Deleted, or Unreachable with the reason, after INIT_S at the latest."""
        opened = self.init(wandb_id, online, name=run.run_id, group=run.sweep, job_type="sae",
                           tags=[tag[:64] for tag in run.tags])
        theirs = opened.config.get("fingerprint")
        if theirs not in (None, run.config["fingerprint"]):
            opened.finish(exit_code=1)
            raise IdTaken(f"the id {wandb_id} is already used in {self.project} by a run that is not this one")
        opened.config.update(run.config, allow_val_change=True)
        opened.define_metric("tokens", hidden=True)
        opened.define_metric("flops_dense", hidden=True, step_metric="tokens")
        opened.define_metric("train/*", step_metric="tokens")
        return LiveRun(opened, online)

    def init(self, wandb_id: str, online: bool, **about: Any) -> Any:
        try:
            return self.wandb.init(id=wandb_id, project=self.project, entity=self.entity, dir=str(self.folder),
                                   mode="online" if online else "offline", resume="allow" if online else None,
                                   reinit="create_new", settings=self.settings(online), **about)
        except Exception as e:
            if "previously created and deleted" in str(e):
                raise Deleted(wandb_id) from e
            raise Unreachable(f"wandb could not begin {wandb_id}: {_first_line(e)}") from e

    def settings(self, online: bool) -> Any:
        """Numbers only: no console, code, git, requirements or host, and no statistics of a process that does not train.

        Online, the client's own log is not written: what it would save is in metrics.jsonl.
        """
        return self.wandb.Settings(init_timeout=INIT_S, finish_timeout=FINISH_S, finish_timeout_raises=True, console="off",
                                   silent=True, save_code=False, disable_git=True, x_disable_stats=True, x_disable_meta=True,
                                   x_disable_machine_info=True, x_save_requirements=False, x_skip_transaction_log=online)

    def close(self) -> None:
        self.wandb.teardown()

    def sweep_up(self, wandb_id: str, kept: Path | None) -> None:
        """Of a run that is whole now: remove the folders `kept` has replaced. With None the server has it: offline folders stay,
        for wandb leet, with the mark by which `wandb sync` passes over them.
        """
        for folder in (self.folder / "wandb").glob(f"*run-*-{wandb_id}*"):
            is_offline = folder.name.startswith("offline-")
            again = folder.name.split("-", 3 if is_offline else 2)[-1].removeprefix(wandb_id)
            if folder == kept or folder.is_symlink() or not (again == "" or again[0] == "-" and again[1:].isdigit()):
                continue
            if kept is None and is_offline:
                (folder / f"run-{wandb_id}.wandb.synced").touch()
            else:
                shutil.rmtree(folder, ignore_errors=True)


class LiveRun:
    """A run that is open in wandb. `starting_step`: the server has all rows before it."""

    def __init__(self, opened: Any, online: bool) -> None:
        self.opened, self.online, self.starting_step = opened, online, opened.starting_step
        self.folder = Path(opened.settings.sync_dir)
        self.sent = 0  # rows of the run that are in wandb or on their way

    def send(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """All rows of the run so far; those sent before, or that the server has, are passed over."""
        for row in rows[self.sent:]:
            if row["step"] >= self.starting_step:
                axes = {k: row[k] for k in ("tokens", "flops_dense") if k in row}
                rest = {f"train/{k}": v for k, v in row.items() if k != "step" and k not in axes and v is not None}
                self.opened.log(axes | rest, step=row["step"], commit=True)
        self.sent = len(rows)

    def close(self, state: str, summary: Mapping[str, Any]) -> None:
        """`state`: done, failed or stopped. Raises Unreachable when not all could be delivered in FINISH_S."""
        self.opened.summary.update({**summary, "state": state})
        if state == "stopped":
            self.opened.mark_preempting()
        try:
            self.opened.finish(exit_code=0 if state == "done" else 1)
        except Exception as e:
            raise Unreachable(f"not all of {self.opened.id} was taken in {FINISH_S:.0f} s") from e


def _first_line(e: Exception) -> str:
    return (str(e).strip().splitlines() or [type(e).__name__])[0].rstrip(".")
