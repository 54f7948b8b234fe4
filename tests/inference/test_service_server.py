import socket

import pytest

from inference.service_limits import own_hosts
from inference.service_server import address_of, is_shared, listen
from tasks.stage import PawlineError


@pytest.mark.parametrize(
    ("host", "address", "hosts"),
    [
        ("127.0.0.1", "http://127.0.0.1:{}", {"localhost", "127.0.0.1", "::1"}),
        ("localhost", "http://127.0.0.1:{}", {"localhost", "127.0.0.1", "::1"}),
        ("127.0.0.2", "http://127.0.0.2:{}", {"localhost", "127.0.0.1", "::1", "127.0.0.2"}),
        ("::1", "http://[::1]:{}", {"localhost", "127.0.0.1", "::1"}),
        ("0.0.0.0", "http://127.0.0.1:{}", None),  # noqa: S104 - what a user may ask for
        ("::", "http://[::1]:{}", None),
    ],
)
def test_a_free_port_and_the_names_that_go_with_its_address(host: str, address: str, hosts: set[str] | None) -> None:
    if ":" in host and not has_ipv6():
        pytest.skip("no IPv6 on this machine")
    with listen(host, 0) as listening:
        if address_of(listening).startswith("http://[") and host == "localhost":
            address = "http://[::1]:{}"
        assert address_of(listening) == address.format(listening.getsockname()[1])
        assert own_hosts(host, listening.getsockname()[0]) == hosts
        assert is_shared(listening) == (hosts is None)


@pytest.mark.parametrize(
    ("host", "advice"),
    [
        ("192.0.2.1", "choose an address of this machine, such as 127.0.0.1"),  # RFC 5737: for documentation
        ("no.such.host.invalid", "choose an address of this machine, such as 127.0.0.1"),  # RFC 6761: never exists
    ],
)
def test_an_address_that_is_not_of_this_machine_is_one_line(host: str, advice: str) -> None:
    with pytest.raises(PawlineError, match=rf"^--host {host} --port 0: [^\n]+; {advice}$"):
        listen(host, 0)


def has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True
