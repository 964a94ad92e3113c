"""One choice of every group of conf/, composed by Hydra: the project's files first, the installed ones behind them."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from saescale.campaign import folders


def group_choices() -> dict[str, list[str]]:
    """Group -> its choices, of the project and as installed."""
    found: dict[str, list[str]] = {}
    for path in folders.files("conf"):
        if len(path.parts) == 2 and path.parts[0] not in folders.DATA:
            found.setdefault(path.parts[0], []).append(path.stem)
    return found


def compose(groups: Mapping[str, str]) -> dict[str, Any]:
    import hydra
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException
    from omegaconf import OmegaConf

    _look_behind()
    GlobalHydra.instance().clear()
    overrides = [f"{k}={v}" for k, v in groups.items()]
    try:
        with hydra.initialize_config_dir(config_dir=str(folders.folders("conf")[0]), version_base="1.3"):
            composed = hydra.compose(config_name="config", overrides=overrides)
            # `???` of conf/lm/folder.yaml is filled by the overrides put over it afterwards.
            return OmegaConf.to_container(composed, resolve=True, throw_on_missing=False)
    except HydraException as e:
        raise ValueError(f"conf/ cannot be composed with {' '.join(overrides)}: {' '.join(str(e).split())}") from e


@functools.cache
def _look_behind() -> None:
    """Once a process, tell Hydra to look into the installed conf/ after the project's own."""
    from hydra.core.config_search_path import ConfigSearchPath
    from hydra.core.plugins import Plugins
    from hydra.plugins.search_path_plugin import SearchPathPlugin

    class InstalledConf(SearchPathPlugin):
        def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
            for folder in folders.folders("conf")[1:]:
                search_path.append("saescale", f"file://{folder}")

    Plugins.instance().register(InstalledConf)
