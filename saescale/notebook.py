"""What a notebook asks of the store. `saescale.load_sae` is this file's."""

from pathlib import Path

from saescale.campaign.recorded import find
from saescale.records import record
from saescale.records.store import Store
from saescale.sae import export
from saescale.sae.model import SAE


def load_sae(run: str | Path, store: str | Path = "runs") -> SAE:
    """The SAE of a finished run, for raw activations [token, d_in] of its hook.

    `run`: the beginning or end of a run's id in `store`, or a folder that holds an exported SAE.
    Errors: `ValueError` when there is no such run, several, or one that is not finished.
    """
    if Path(run).is_dir():
        return export.load(run)
    at = Store(Path(store).absolute())
    found = find(at, str(run))
    folder = at.run_dir(found.run_id)
    if not (folder / record.RESULT).is_file():
        raise ValueError(f"{found.run_id} is not finished: `saescale why {found.run_id}` says where it stands.")
    return export.load(folder)
