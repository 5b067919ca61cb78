"""Where site profiles are found by name."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import hpcxrf
from hpcxrf.config.site import SiteProfile, load_site
from hpcxrf.errors import ConfigError

SITE_SUFFIXES: Final = {".yaml", ".yml"}


def site_folders(environment: Mapping[str, str] = os.environ) -> list[Path]:
    """Folders that are searched for NAME.yaml, in this order.

    Those of HPCXRF_SITES (a site's own, colons between), the user's, and those that come with hpcxrf: installed,
    or beside the package in a checkout.
    """
    own = [Path(p) for p in environment.get("HPCXRF_SITES", "").split(os.pathsep) if p]
    config_home = environment.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    checkout = Path(hpcxrf.__file__).resolve().parents[1]
    shipped = [Path(sys.prefix, "share", "hpcxrf", "sites")]
    if (checkout / "pyproject.toml").is_file():
        shipped.insert(0, checkout / "slurm")
    return [*own, Path(config_home, "hpcxrf", "sites"), *shipped]


def load_named_site(name: str, environment: Mapping[str, str] = os.environ) -> SiteProfile:
    """Read a profile by the path of its file or by its name.

    Raises:
        ConfigError: no profile of that name (the message lists all names and the folders that were searched), or a
            profile with faults.
    """
    if is_site_path(name):
        return load_site(Path(name))
    folders = site_folders(environment)
    for folder in folders:
        path = folder / f"{name}.yaml"
        if path.is_file():
            return load_site(path)
    known = sorted({p.stem for folder in folders for p in folder.glob("*.yaml")})
    searched = "\n".join(f"  {folder}" for folder in folders)
    raise ConfigError(
        f"no site profile {name!r}; there are {', '.join(known) or 'none'}; searched in\n{searched}\n"
        "use one of these names or the path of a .yaml, or let `hpcxrf site init` propose a profile"
    )


def is_site_path(name: str) -> bool:
    """Whether a profile is given by the path of its file, not by its name."""
    return Path(name).suffix in SITE_SUFFIXES or os.sep in name
