"""Through the front door: saescale's verbs, as a user types them."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path


def through_the_door(verbs: Sequence[str], words: Sequence[str], store: Path) -> None:
    """Each verb on the same sweep and overrides. Raises CalledProcessError for one that fails; progress goes to stderr."""
    for verb in verbs:
        subprocess.run([sys.executable, "-m", "saescale.cli", verb, *words, "--store", str(store)], check=True,
                       stdout=subprocess.DEVNULL)  # fmt: skip


def publish(words: Sequence[str], store: Path, out: Path, command: str) -> None:
    """Fit and draw a collected sweep again, and put it in `out` as what `command` made."""
    through_the_door(("fit", "figures"), words, store)
    through_the_door(("publish",), [*words, "--to", str(out), "--command", command], store)
