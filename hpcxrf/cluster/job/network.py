"""Which address the processes of a job listen on: never all of them."""

import socket

from hpcxrf.errors import ConfigError

_REMEDY = "name the network in the site profile (interface: ib0)"


def address_options(interface: str | None, *, several_nodes: bool = False) -> dict[str, str]:
    """Options of a Dask server that bind it to one address.

    Args:
        interface: network of the site profile, `ib0`; None: the one that the host's name belongs to.
        several_nodes: whether processes on other nodes must reach it.

    Raises:
        ConfigError: the host's name has no address, or one that other nodes cannot reach.
    """
    if interface is not None:
        return {"interface": interface}
    host = socket.gethostname()
    try:
        address = socket.gethostbyname(host)
    except OSError as error:
        raise ConfigError(f"{host}: its name has no address ({error}); {_REMEDY}") from error
    if several_nodes and address.startswith("127."):
        raise ConfigError(f"{host}: its name means {address}, which other nodes cannot reach; {_REMEDY}")
    return {"host": address}
