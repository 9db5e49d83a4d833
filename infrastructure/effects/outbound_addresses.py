"""Which addresses and ports the product may call for a workflow: the server-side request guard.

Anybody who may publish a workflow chooses URLs, and this process often stands where the inside of
a network trusts it. So only public addresses are called, unless the operator lists others.
`ipaddress.is_global` alone does not do: it calls NAT64, 6to4, multicast, site-local and some
providers' metadata addresses global.
"""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

# IANA special-purpose registry and known metadata services; what `is_global` already refuses is
# repeated where its answer changed between Python releases.
_REFUSED_V4 = tuple(
    IPv4Network(text)
    for text in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",  # carrier NAT; holds the metadata address 100.100.100.200
        "127.0.0.0/8",
        "168.63.129.16/32",  # a provider's host agent
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.31.196.0/24",
        "192.52.193.0/24",
        "192.88.99.0/24",  # 6to4 relay
        "192.168.0.0/16",
        "192.175.48.0/24",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/3",  # multicast and reserved
    )
)
# Everything else in IPv6 (mapped, compatible, NAT64, unique local, link local, site local,
# multicast) lies outside global unicast.
_GLOBAL_UNICAST_V6 = IPv6Network("2000::/3")
_REFUSED_V6 = tuple(
    IPv6Network(text)
    for text in (
        "2001::/23",  # Teredo, ORCHID, benchmarking
        "2001:db8::/32",
        "2002::/16",  # 6to4 carries an IPv4 address
        "2620:4f:8000::/48",
        "3fff::/20",
    )
)

# fmt: off
PORTS_REFUSED = frozenset((
    1, 7, 9, 11, 13, 15, 17, 19, 20, 21, 22, 23, 25, 37, 42, 43, 53, 69, 77, 79, 87, 95,
    101, 102, 103, 104, 109, 110, 111, 113, 115, 117, 119, 123, 135, 137, 139, 143, 161, 179,
    389, 427, 445, 465, 512, 513, 514, 515, 526, 530, 531, 532, 540, 548, 554, 556, 563, 587,
    601, 636, 873, 989, 990, 993, 995, 1433, 1521, 1719, 1720, 1723, 2049, 2181, 2375, 2376,
    2379, 2380, 3306, 3389, 3659, 4045, 4190, 5060, 5061, 5432, 5672, 5900, 6000, 6379, 6566,
    6665, 6666, 6667, 6668, 6669, 6697, 9042, 9092, 10080, 10250, 11211, 27017,
))
# fmt: on
"""Ports of mail, shells, databases, queues and cluster control that speak something else than
HTTP, or HTTP that must not be reached from a workflow. A `host:port` entry allows one."""


@dataclass(frozen=True, slots=True)
class OutboundAllow:
    """What may be called although it is not public: `FLOWLEDGER_OUTBOUND_ALLOW`, parsed.

    `hosts` are names in lower case, `networks` addresses, `ports` pairs of a host or address as
    text and a port that is otherwise refused.
    """

    hosts: frozenset[str] = frozenset()
    networks: tuple[Network, ...] = ()
    ports: frozenset[tuple[str, int]] = frozenset()

    @classmethod
    def parse(cls, text: str) -> "OutboundAllow":
        """Reads `127.0.0.1,10.0.0.0/8,billing.internal,10.0.0.9:6379,[::1]:8080`.

        Raises `ValueError` naming the entry that is none of: host, address, network, each of
        the first two with `:port` if a refused port is meant.
        """
        hosts: set[str] = set()
        networks: list[Network] = []
        ports: set[tuple[str, int]] = set()
        for entry in filter(None, (part.strip().lower() for part in text.split(","))):
            name, port = _split_port(entry)
            network = _network(name)
            if network is not None:
                networks.append(network)
            elif _is_host_name(name):
                hosts.add(name.removesuffix("."))
            else:
                raise ValueError(
                    f"outbound allow-list: {entry!r} is no host, address or network; write for "
                    "example 127.0.0.1, 10.0.0.0/8, billing.internal or 10.0.0.9:6379"
                )
            if port is not None:
                ports.add((name.removesuffix("."), port))
        return cls(frozenset(hosts), tuple(networks), frozenset(ports))

    def permits_address(self, host: str, address: Address) -> bool:
        """Whether `address`, found for `host`, is listed by name or by network."""
        return host in self.hosts or any(
            address.version == network.version and address in network for network in self.networks
        )

    def permits_port(self, host: str, port: int) -> bool:
        return port not in PORTS_REFUSED or (host, port) in self.ports


def refusal_of_address(address: Address) -> str | None:
    """Why an address is not public, in words; None when it is."""
    if isinstance(address, IPv4Address):
        refused = any(address in network for network in _REFUSED_V4)
    else:
        refused = (
            address not in _GLOBAL_UNICAST_V6
            or any(address in network for network in _REFUSED_V6)
            or address.scope_id is not None
        )
    if refused or not address.is_global:
        return f"{address} is not a public address"
    return None


def _split_port(entry: str) -> tuple[str, int | None]:
    if entry.startswith("["):
        name, _, rest = entry[1:].partition("]")
        return name, _port(entry, rest.removeprefix(":")) if rest else None
    if entry.count(":") == 1:
        name, _, port = entry.partition(":")
        return name, _port(entry, port)
    return entry, None


def _port(entry: str, text: str) -> int:
    if text.isascii() and text.isdigit() and 0 < int(text) < 65536:
        return int(text)
    raise ValueError(f"outbound allow-list: {entry!r} has no port between 1 and 65535 at its end")


def _network(text: str) -> Network | None:
    try:
        return ip_network(ip_address(text)) if "/" not in text else ip_network(text, strict=False)
    except ValueError:
        return None


def _is_host_name(text: str) -> bool:
    """Letters, digits, `-`, `_`, `.`; the last label has a letter (`10.0.0` is a slip)."""
    labels = text.removesuffix(".").split(".")
    well_formed = all(
        label
        and len(label) <= 63
        and label.isascii()
        and label.replace("-", "").replace("_", "").isalnum()
        for label in labels
    )
    return well_formed and any(character.isalpha() for character in labels[-1])
