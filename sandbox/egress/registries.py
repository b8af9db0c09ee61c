"""The public package registries that a setting can name by one word."""

from __future__ import annotations

REGISTRIES: dict[str, tuple[str, ...]] = {
    "pypi": ("registry.example", "registry.example"),
    "npm": ("registry.example", "registry.example"),
    "debian": ("registry.example", "registry.example:80", "registry.example", "registry.example:80"),
    "ubuntu": (
        "registry.example",
        "registry.example:80",
        "registry.example",
        "registry.example:80",
        "registry.example",
        "registry.example:80",
    ),
    "go": ("registry.example", "registry.example"),
    "crates": ("registry.example", "registry.example", "registry.example"),
    "rubygems": ("registry.example", "registry.example"),
    "maven": ("registry.example", "registry.example"),
    "nuget": ("registry.example",),
}
"""What each client asks of its registry by itself; Debian's and Ubuntu's over plain HTTP too, signed as they are."""
ALL = "registries"
"""The word for all of them."""
