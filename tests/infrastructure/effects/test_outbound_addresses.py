"""Which addresses and ports may be called."""

from ipaddress import ip_address

import pytest

from infrastructure.effects.outbound_addresses import OutboundAllow, refusal_of_address

_NOT_PUBLIC_TEXT = """
0.0.0.0 0.1.2.3 10.0.0.1 10.255.255.255 100.64.0.1 100.100.100.200 100.127.255.255 127.0.0.1
127.1.2.3 127.255.255.254 168.63.129.16 169.254.0.1 169.254.169.254 169.254.170.2 172.16.0.1
172.31.255.255 192.0.0.1 192.0.0.192 192.0.2.1 192.31.196.1 192.52.193.1 192.88.99.1 192.168.0.1
192.168.255.255 192.175.48.1 198.18.0.1 198.19.255.255 198.51.100.1 203.0.113.1 224.0.0.1
239.255.255.255 240.0.0.1 255.255.255.255 :: ::1 ::127.0.0.1 ::8.8.8.8 ::ffff:127.0.0.1
::ffff:169.254.169.254 ::ffff:10.0.0.1 ::ffff:8.8.8.8 ::ffff:0:127.0.0.1 64:ff9b::7f00:1
64:ff9b::808:808 64:ff9b:1::7f00:1 100::1 2001::1 2001:0:4136:e378:8000:63bf:3fff:fdd2 2001:2::1
2001:10::1 2001:20::1 2001:db8::1 2002:7f00:1:: 2002:a9fe:a9fe:: 2002:c0a8:101::1 2620:4f:8000::1
3fff::1 4000::1 5f00::1 fc00::1 fd00::1 fd00:ec2::254 fe80::1 fe80::1%1 febf::1 fec0::1 feff::1
ff02::1 ff05::2 ff0e::1
"""
NOT_PUBLIC = _NOT_PUBLIC_TEXT.split()

_PUBLIC_TEXT = """
1.1.1.1 8.8.8.8 9.9.9.9 11.0.0.1 100.63.255.255 100.128.0.1 126.255.255.255 128.0.0.1
168.63.129.17 169.253.255.255 172.15.255.255 172.32.0.1 192.0.1.1 192.167.255.255 192.169.0.1
198.17.255.255 198.20.0.1 203.0.114.1 223.255.255.255 2001:200::1 2001:4860:4860::8888 2003::1
2400:cb00::1 2606:4700:4700::1111 2a00:1450:4001::1
"""
PUBLIC = _PUBLIC_TEXT.split()


@pytest.mark.parametrize("text", NOT_PUBLIC)
def test_an_address_that_is_not_public_is_refused(text: str) -> None:
    assert refusal_of_address(ip_address(text)) is not None


@pytest.mark.parametrize("text", PUBLIC)
def test_a_public_address_is_called(text: str) -> None:
    assert refusal_of_address(ip_address(text)) is None


def test_the_allow_list_holds_hosts_addresses_networks_and_ports() -> None:
    allow = OutboundAllow.parse(
        " 127.0.0.1, 10.0.0.0/8,Billing.Internal.,fd00::/8,[::1]:6379,10.0.0.9:5432,localhost "
    )
    assert allow.permits_address("any.example", ip_address("127.0.0.1"))
    assert allow.permits_address("any.example", ip_address("10.200.3.4"))
    assert allow.permits_address("any.example", ip_address("fd00::9"))
    assert allow.permits_address("billing.internal", ip_address("192.168.7.7"))
    assert not allow.permits_address("any.example", ip_address("192.168.7.7"))
    assert not allow.permits_address("any.example", ip_address("127.0.0.2"))
    assert allow.permits_port("::1", 6379)
    assert allow.permits_port("10.0.0.9", 5432)
    assert not allow.permits_port("10.0.0.8", 5432)
    assert allow.permits_port("localhost", 8080)
    assert not allow.permits_port("localhost", 22)


def test_an_empty_allow_list_allows_nothing_private() -> None:
    assert OutboundAllow.parse("") == OutboundAllow()


@pytest.mark.parametrize(
    "text", ["10.0.0", "a b", "http://x", "x:y", "x:0", "x:99999", "10.0.0.0/99", "-"]
)
def test_a_bad_entry_of_the_allow_list_is_named(text: str) -> None:
    with pytest.raises(ValueError, match="outbound allow-list: "):
        OutboundAllow.parse(f"localhost,{text}")
