"""Requests to addresses that others name reach public addresses alone.

Nothing here leaves the machine: names are looked up in a table, and connections are recorded.
"""

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests

from generation.hosted.http import MessageNotSent, download
from generation.hosted.messages import UnreadableAnswer
from generation.outgoing import AddressRefused, HostUnknown, is_public, open_session

# Right values by the registries of the IANA: "globally reachable", and multicast.
ADDRESSES = {
    # IPv4
    "93.184.215.14": True, "8.8.8.8": True, "1.1.1.1": True, "100.63.255.255": True,
    "100.128.0.0": True, "172.15.255.255": True, "172.32.0.0": True, "192.0.1.0": True,
    "198.17.255.255": True, "198.20.0.0": True, "223.255.255.255": True, "192.167.255.255": True,
    "0.0.0.1": False, "0.1.2.3": False, "10.0.0.1": False, "10.255.255.255": False,
    "100.64.0.0": False, "100.127.255.255": False, "127.0.0.1": False, "127.255.255.254": False,
    "169.254.169.254": False, "172.16.0.0": False, "172.31.255.255": False,
    "192.0.0.1": False, "192.0.0.9": False, "192.0.0.170": False, "192.0.0.192": False,
    "192.0.2.1": False, "192.88.99.1": False, "192.168.0.1": False, "198.18.0.1": False,
    "198.19.255.255": False, "198.51.100.1": False, "203.0.113.1": False, "224.0.0.1": False,
    "239.255.255.255": False, "240.0.0.1": False, "255.255.255.255": False,
    # IPv6
    "2606:4700::1111": True, "2a00:1450::1": True, "2001:4860:4860::8888": True,
    "2001:200::1": True, "2003::1": True, "3ffe::1": True,
    "::": False, "::1": False, "::2": False, "::127.0.0.1": False, "fe80::1": False,
    "fe80::1%eth0": False, "fec0::1": False, "fc00::1": False, "fd00:ec2::254": False,
    "ff02::1": False, "ff0e::1": False, "100::1": False, "100:0:0:1::1": False, "5f00::1": False,
    "4000::1": False, "2001::1": False, "2001:0:7f00:1::": False, "2001:2::1": False,
    "2001:10::1": False, "2001:1ff:ffff::1": False, "2001:db8::1": False,
    "2620:4f:8000::1": False, "3fff::1": False, "3fff:fff:ffff::1": False, "3fff:1000::1": True,
    # IPv6 that stands for IPv4
    "::ffff:8.8.8.8": True, "::ffff:10.0.0.1": False, "::ffff:127.0.0.1": False,
    "::ffff:192.0.0.192": False, "::ffff:0:7f00:1": False,
    "64:ff9b::8.8.8.8": True, "64:ff9b::7f00:1": False, "64:ff9b::a9fe:a9fe": False,
    "64:ff9b:1::8.8.8.8": False, "64:ff9b:1:ffff::1": False,
    "2002:808:808::1": True, "2002:7f00:1::": False, "2002:a9fe:a9fe::": False,
    "2002:c0a8:1::1": False,
}  # fmt: skip


@pytest.mark.parametrize(("address", "public"), ADDRESSES.items())
def test_what_is_public(address: str, public: bool) -> None:
    assert is_public(address) is public


class Network:
    """A table of names for the resolver, and where connections went."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.names: dict[str, list[str]] = {}
        self.looked_up: list[str] = []
        self.connections: list[Any] = []
        known = socket.getaddrinfo

        def look_up(host: str, port: Any, *args: Any, **kwargs: Any) -> list[Any]:
            if host not in self.names:
                return known(host, port, *args, flags=socket.AI_NUMERICHOST)
            self.looked_up.append(host)
            return [entry for one in self.names[host] for entry in known(one, port, type=1)]

        def connect(sock: socket.socket, address: Any) -> None:
            self.connections.append(address[:2])
            raise OSError("this test leaves no machine")

        monkeypatch.setattr(socket, "getaddrinfo", look_up)
        monkeypatch.setattr(socket.socket, "connect", connect)


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Network:
    return Network(monkeypatch)


@pytest.mark.parametrize("scheme", ["http", "https"])
class TestTheGuard:
    @pytest.mark.parametrize("address", [a for a, public in ADDRESSES.items() if not public])
    def test_refuses_before_it_connects(self, network: Network, scheme: str, address: str) -> None:
        network.names["hook.example"] = [address]
        with open_session() as session, pytest.raises(AddressRefused, match="is not a public"):
            session.get(f"{scheme}://hook.example/")
        assert network.connections == []

    def test_refuses_a_name_with_one_private_address(self, network: Network, scheme: str) -> None:
        network.names["hook.example"] = ["8.8.8.8", "10.0.0.1"]
        with open_session() as session, pytest.raises(AddressRefused):
            session.get(f"{scheme}://hook.example/")
        assert network.connections == []

    @pytest.mark.parametrize(
        "host", ["127.0.0.1", "[::1]", "[::ffff:169.254.169.254]", "192.0.0.192", "localhost"]
    )
    def test_looks_at_addresses_that_are_written_out(
        self, network: Network, scheme: str, host: str
    ) -> None:
        network.names["localhost"] = ["127.0.0.1", "::1"]
        with open_session() as session, pytest.raises(AddressRefused):
            session.post(f"{scheme}://{host}:8000/", data=b"x")
        assert network.connections == []

    def test_connects_to_what_it_looked_at(self, network: Network, scheme: str) -> None:
        """One look-up, and each address of it in turn, three at most."""
        network.names["hook.example"] = ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "9.9.9.9"]
        with open_session() as session, pytest.raises(requests.ConnectionError):
            session.get(f"{scheme}://hook.example:99/")
        assert network.looked_up == ["hook.example"]
        assert network.connections == [("8.8.8.8", 99), ("1.1.1.1", 99), ("2606:4700::1111", 99)]

    def test_an_unknown_name_is_a_sentence(self, network: Network, scheme: str) -> None:
        with (
            open_session() as session,
            pytest.raises(HostUnknown, match=r"nowhere\.example is unkn"),
        ):
            session.get(f"{scheme}://nowhere.example/")

    def test_uses_no_proxy(
        self, network: Network, scheme: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.setenv(name, "http://127.0.0.1:9")
        network.names["hook.example"] = ["8.8.8.8"]
        with open_session() as session, pytest.raises(requests.ConnectionError):
            session.get(f"{scheme}://hook.example:99/")
        assert network.connections == [("8.8.8.8", 99)]


class Elsewhere(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(302)
        self.send_header("Location", f"http://inside.example:{self.server.server_address[1]}/")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def port() -> Iterator[int]:
    """Of a server on this machine that sends everybody on to another name."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Elsewhere)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


@pytest.fixture
def through(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """outside.example has a public address, and what goes there arrives on this machine; returns
    the addresses that were asked for."""
    known, connect, asked = socket.getaddrinfo, socket.socket.connect, []
    names = {"outside.example": "8.8.8.8", "inside.example": "10.0.0.1"}

    def look_up(host: str, *args: Any, **kwargs: Any) -> list[Any]:
        return known(names.get(host, host), *args, **kwargs)

    def to_this_machine(sock: socket.socket, address: Any) -> None:
        asked.append(address[0])
        connect(sock, ("127.0.0.1", address[1]))

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    monkeypatch.setattr(socket.socket, "connect", to_this_machine)
    return asked


def test_a_redirect_passes_the_guard_again(port: int, through: list[str]) -> None:
    with open_session() as session, pytest.raises(AddressRefused, match=r"inside\.example"):
        session.get(f"http://outside.example:{port}/")
    assert through == ["8.8.8.8"]


class TestFilesOfHostedServices:
    @pytest.fixture(autouse=True)
    def guarded(self, settings: Any) -> None:
        settings.HOSTED_PRIVATE = False

    @pytest.mark.parametrize(
        "url",
        [
            "http://169.254.169.254/latest/meta-data/",
            "http://127.0.0.1:8000/clip.mp4",
            "https://[::ffff:10.0.0.1]/clip.mp4",
            "http://192.0.0.192/opc/v2/",
            "https://cdn.example/clip.mp4",
        ],
    )
    def test_come_from_public_addresses(self, network: Network, tmp_path: Path, url: str) -> None:
        network.names["cdn.example"] = ["8.8.8.8", "192.168.1.1"]
        with pytest.raises(UnreadableAnswer, match="its address is not public"):
            download(url, tmp_path, {"Authorization": "key"}, "https://api.example/")
        assert network.connections == []

    def test_follow_no_redirect_inside(self, port: int, through: list[str], tmp_path: Path) -> None:
        with pytest.raises(UnreadableAnswer, match="its address is not public"):
            download(f"http://outside.example:{port}/", tmp_path, {}, "https://api.example/")
        assert through == ["8.8.8.8"]

    def test_are_tried_again_where_nobody_answers(self, network: Network, tmp_path: Path) -> None:
        network.names["cdn.example"] = ["8.8.8.8"]
        with pytest.raises(MessageNotSent, match="no connection"):
            download("https://cdn.example/clip.mp4", tmp_path, {}, "https://api.example/")
        with pytest.raises(MessageNotSent, match="its host is unknown"):
            download("https://gone.example/clip.mp4", tmp_path, {}, "https://api.example/")
