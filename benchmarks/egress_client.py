"""Run inside a sandbox and outside: `PORT PROXY ROUNDS DOWNLOADS BYTES`, PROXY 0 for none. Prints JSON; standard
library only."""

import json
import socket
import statistics
import sys
import time

PORT, PROXY, ROUNDS, DOWNLOADS, BYTES = (int(word) for word in sys.argv[1:])


def get(size: int) -> float:
    """Seconds from nothing to the last byte."""
    began = time.perf_counter()
    with socket.create_connection(("127.0.0.1", PROXY or PORT)) as server:
        if PROXY:
            server.sendall(f"CONNECT server.example.com:{PORT} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            assert server.recv(1000).endswith(b"established\r\n\r\n")
        server.sendall(f"GET /{size} HTTP/1.1\r\n\r\n".encode())
        left = size
        while left:
            left -= len(server.recv(1 << 20))
    return time.perf_counter() - began


answers = [get(10) for _ in range(ROUNDS)]
downloads = [get(BYTES) for _ in range(DOWNLOADS)]
taken = {
    "answer_milliseconds": statistics.median(answers) * 1000,
    "download_seconds": statistics.median(downloads),
}
print(json.dumps(taken))
