"""Run inside a sandbox with a way out: tries to reach what is not allowed, and prints what the proxy said to each, as
JSON. Standard library only.

Its argument is JSON: the proxy's port; the heads of requests to send to it, by name; addresses to try without it.
"""

import ipaddress
import json
import socket
import sys

GIVEN = json.loads(sys.argv[1])
SECONDS = 5


def ask(head: str) -> str:
    """The first line that comes back, and then the end."""
    with socket.create_connection(("127.0.0.1", GIVEN["port"]), timeout=SECONDS) as proxy:
        proxy.sendall(head.encode("latin-1"))
        answer = b""
        while piece := proxy.recv(65536):
            answer += piece
    return answer.partition(b"\r\n")[0].decode("latin-1")


def reach(family: int, kind: int, address: str, port: int) -> str:
    """Without the proxy: nothing of it may leave."""
    with socket.socket(family, kind) as outside:
        outside.settimeout(SECONDS)
        outside.connect((address, port))
        outside.send(b"anybody there?")
    return "sent"


def look_up(name: str) -> str:
    return str(socket.getaddrinfo(name, 443))


def attempt(what, *arguments):
    try:
        return what(*arguments)
    except OSError as error:
        return f"refused: {error}"


said = {name: attempt(ask, head) for name, head in GIVEN["heads"].items()}
for address, port in GIVEN["addresses"]:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    # Its own loopback takes what nobody asked for.
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM)[: 1 if ipaddress.ip_address(address).is_loopback else 2]:
        said[f"{kind.name} {address}"] = attempt(reach, family, kind, address, port)
said["DNS"] = attempt(look_up, "open.example.com")
print(json.dumps(said))
