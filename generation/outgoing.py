"""The guard of requests to addresses that others name: webhooks, and files of hosted services.

A name is looked up once, every address that it has must be public, and the connection goes to one
of those, so that no second look-up can lead elsewhere. A redirect is a new connection and passes
the guard again. What is reserved stands here, by the registries of the IANA for IPv4 and IPv6
special-purpose addresses and multicast, as Python's own list differs from version to version.
"""

import os
import socket
from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_address
from typing import Any, ClassVar

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError
from urllib3.util.connection import create_connection

TRIED_AT_MOST = 3  # addresses of one name, in turn
RESERVED_IPV4 = tuple(
    IPv4Network(network)
    for network in (
        "0.0.0.0/8",  # this network
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # shared by a provider's customers
        "127.0.0.0/8",  # this machine
        "169.254.0.0/16",  # this link; clouds answer there with keys
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocols; one cloud answers there with keys
        "192.0.2.0/24",  # documentation
        "192.31.196.0/24",  # AS112
        "192.52.193.0/24",  # AMT
        "192.88.99.0/24",  # relays of 6to4
        "192.168.0.0/16",  # private
        "192.175.48.0/24",  # AS112
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and broadcast
    )
)
# All IPv6 addresses that were ever given to networks lie in here (RFC 4291). Outside are this
# machine, links, private networks (fc00::/7), multicast, 64:ff9b:1::/48, 100::/64 and 5f00::/16.
GLOBAL_IPV6 = IPv6Network("2000::/3")
RESERVED_IPV6 = tuple(
    IPv6Network(network)
    for network in (
        "2001::/23",  # protocols: Teredo, benchmarks, ORCHID and others
        "2001:db8::/32",  # documentation
        "2620:4f:8000::/48",  # AS112
        "3fff::/20",  # documentation
    )
)
# An IPv6 address in one of these stands for the IPv4 address in its bits, so far from the right.
EMBEDDING = (
    (IPv6Network("::ffff:0:0/96"), 0),  # mapped (RFC 4291)
    (IPv6Network("64:ff9b::/96"), 0),  # translated (RFC 6052)
    (IPv6Network("2002::/16"), 80),  # 6to4 (RFC 3056)
)


class AddressRefused(Exception):
    """The name leads to an address that is not public; nothing was sent."""


class HostUnknown(Exception):
    """The name leads nowhere; nothing was sent."""


def is_public(address: str) -> bool:
    """Whether anybody may be asked at this IPv4 or IPv6 address."""
    ip = ip_address(address)
    if isinstance(ip, IPv4Address):
        return not any(ip in network for network in RESERVED_IPV4)
    for network, shift in EMBEDDING:
        if ip in network:
            return is_public(str(IPv4Address(int(ip) >> shift & 0xFFFFFFFF)))
    return ip in GLOBAL_IPV6 and not any(ip in network for network in RESERVED_IPV6)


def public_addresses(host: str, port: int) -> list[str]:
    """Look the name up; AddressRefused if any of its addresses is not public."""
    addresses = _look_up(host, port)
    if not all(map(is_public, addresses)):
        raise AddressRefused(f"{host} is not a public address")
    return addresses


def _look_up(host: str, port: int) -> list[str]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError:
        raise HostUnknown(f"The host {host} is no name that can be looked up.") from None
    except OSError as error:
        raise HostUnknown(f"The host {host} is unknown: {error.strerror or error}.") from None
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class _GuardedConnection(HTTPConnection):
    """Connects where the guard lets it; the name stays that of headers and certificates."""

    def _new_conn(self) -> socket.socket:
        assert self.port is not None
        failed: OSError | None = None
        for address in public_addresses(self._dns_host, self.port)[:TRIED_AT_MOST]:
            try:
                return create_connection(
                    (address, self.port),
                    self.timeout,
                    source_address=self.source_address,
                    socket_options=self.socket_options,
                )
            except OSError as error:
                failed = error
        if isinstance(failed, TimeoutError):
            raise ConnectTimeoutError(self, f"No connection to {self.host} in time.") from failed
        raise NewConnectionError(self, f"No connection to {self.host}: {failed}") from failed


class _GuardedTlsConnection(_GuardedConnection, HTTPSConnection):
    pass


class _GuardedPool(HTTPConnectionPool):
    ConnectionCls = _GuardedConnection


class _GuardedTlsPool(HTTPSConnectionPool):
    ConnectionCls = _GuardedTlsConnection


class _GuardedAdapter(HTTPAdapter):
    POOLS: ClassVar = {"http": _GuardedPool, "https": _GuardedTlsPool}

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = self.POOLS


def open_session(private: bool = False) -> requests.Session:
    """A session whose every connection passes the guard; `private` opens it to all addresses.

    It uses no proxy, which would look the name up again, and no key of the machine's .netrc.
    """
    session = requests.Session()
    session.trust_env = False
    session.verify = os.environ.get("REQUESTS_CA_BUNDLE") or True
    if not private:
        for scheme in ("http://", "https://"):
            session.mount(scheme, _GuardedAdapter())
    return session
