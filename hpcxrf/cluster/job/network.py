"""Which address the processes of a job listen on: never all of them."""

import socket

from hpcxrf.errors import HpcxrfError


def address_options(interface: str | None) -> dict[str, str]:
    """Options of a Dask server that bind it to one address.

    Args:
        interface: of the site, `ib0`; None: the one that the host's name belongs to.

    Raises:
        HpcxrfError: the host's name has no address.
    """
    if interface is not None:
        return {"interface": interface}
    host = socket.gethostname()
    try:
        return {"host": socket.gethostbyname(host)}
    except OSError as error:
        raise HpcxrfError(
            f"{host}: its name has no address ({error}); name the network in the site profile (interface: ib0)"
        ) from error
