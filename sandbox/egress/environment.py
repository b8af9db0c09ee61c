"""What tells programs inside that there is a proxy. Most read the first two; the others are said which by name."""

from __future__ import annotations

GATE_INSIDE = "/run/errand/egress"
"""A folder of the host's, read-only, for the moment in which the socket that listens is lent (`gate.py`)."""
HOST, PORT = "127.0.0.1", 3128
URL = f"http://{HOST}:{PORT}"
NOT_BY_PROXY = "localhost,127.0.0.1,::1"
JVM = " ".join(f"-D{scheme}.proxyHost={HOST} -D{scheme}.proxyPort={PORT}" for scheme in ("http", "https"))


def proxied() -> dict[str, str]:
    """pip, npm, git, curl, wget, Go, cargo, apt, RubyGems and .NET read the variables without a name of their own."""
    everybody = {"http_proxy": URL, "https_proxy": URL, "all_proxy": URL, "no_proxy": NOT_BY_PROXY}
    return {
        **everybody,
        **{name.upper(): value for name, value in everybody.items()},
        "NODE_USE_ENV_PROXY": "1",  # node's own fetch, from node 24
        "YARN_HTTP_PROXY": URL,
        "YARN_HTTPS_PROXY": URL,
        "MAVEN_OPTS": JVM,
        "GRADLE_OPTS": JVM,
    }
