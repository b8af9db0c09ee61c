"""Which addresses are public: what others than the owner name may lead the server nowhere else (CWE-918)."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

UNICAST = IPv6Network("2000::/3")
"""What of IPv6 is given out at all, RFC 4291."""
TUNNELS = (IPv6Network("2001::/32"), IPv6Network("2002::/16"))
"""Teredo and 6to4: an IPv4 address that somebody else sends on to."""
TRANSLATED = IPv6Network("64:ff9b::/96")
"""An IPv4 address as networks without IPv4 write it, RFC 6052."""
EXAMPLES = IPv6Network("3fff::/20")
"""RFC 9637; the standard library knows it not yet."""
RELAYS = IPv4Network("192.88.99.0/24")
PLATFORM = IPv4Address("168.63.129.16")
"""Azure's own services, its metadata among them, in every virtual machine there; public by the registries."""
NUMBER = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)")
"""A name that ends like this is an IPv4 address to some readers (`2130706433`, `0177.1`), not the same one to all."""


def is_public(text: str) -> bool:
    """Whether an IP address is on the public internet: what stands inside of another one counts."""
    found: IPv4Address | IPv6Address = ip_address(text.partition("%")[0])
    if isinstance(found, IPv6Address):
        if found in TRANSLATED:
            return is_public(str(IPv4Address(int(found) & 0xFFFF_FFFF)))
        # Below ::/3 lie loopback, IPv4-mapped and unspecified addresses, above 2000::/3 what is local.
        return found in UNICAST and found.is_global and not any(found in other for other in (*TUNNELS, EXAMPLES))
    return found.is_global and not found.is_multicast and found not in RELAYS and found != PLATFORM


def is_ip(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
