"""URLs that try to reach the inside of the network, and URLs that must not be blocked."""

from tests.infrastructure.effects.test_outbound_addresses import NOT_PUBLIC

PUBLIC_URLS_TEXT = """
http://example.org https://example.org/ https://example.org:8443/a/b?c=d#e http://1.1.1.1/
http://1.1.1.1:8080 http://[2606:4700:4700::1111]/ HTTPS://EXAMPLE.ORG/
https://xn--bcher-kva.example/ https://bücher.example/ https://example.org./
http://a.b.c.d.example https://example.org/%20 https://example.org/?q=a%26b
https://example.org/a;b=c https://example.org/a@b https://example.org/~u https://a-b_c.example/
https://example.org/ü https://example.org:443/ http://example.org:80/x/../y
"""

# Full-width and circled digits and letters, and the ideographic full stop: resolvers and name
# preparation fold them to plain ones.
_IN_OTHER_DIGITS = [
    "\N{FULLWIDTH DIGIT TWO}130706433",
    "\N{FULLWIDTH DIGIT ONE}\N{FULLWIDTH DIGIT TWO}\N{FULLWIDTH DIGIT SEVEN}.0.0.1",
    "127\N{IDEOGRAPHIC FULL STOP}0\N{IDEOGRAPHIC FULL STOP}0\N{IDEOGRAPHIC FULL STOP}1",
    "\N{CIRCLED DIGIT ONE}\N{CIRCLED DIGIT TWO}\N{CIRCLED DIGIT SEVEN}.0.0.1",
    "\N{CIRCLED LATIN SMALL LETTER L}ocalhost",
]


def inside_urls(port: int) -> list[str]:
    hosts = [f"[{text}]" if ":" in text else text for text in NOT_PUBLIC]
    hosts += ["localhost", "localhost.", "LOCALHOST", "127.1", "127.0.1", "0x7f.1", "0x7f000001"]
    hosts += ["2130706433", "0177.0.0.1", "017700000001", "0", "0x0", "127.0.0.1."]
    hosts += _IN_OTHER_DIGITS
    hosts += ["[::ffff:7f00:1]", "[0:0:0:0:0:0:0:1]", "[::ffff:127.0.0.1]", "[::1%25lo]", "[::]"]
    urls = [f"http://{host}:{port}/" for host in hosts]
    urls += [f"https://{host}:{port}/" for host in hosts[-30:]]
    urls += [
        f"http://a@127.0.0.1:{port}/",
        f"http://a:b@127.0.0.1:{port}/",
        f"http://example.org@127.0.0.1:{port}/",
        f"http://example.org\\@127.0.0.1:{port}/",
        f"http://127.0.0.1:{port}\\@example.org/",
        f"http://127.0.0.1\t:{port}/",
        f"http://127.0.0.1\r\n:{port}/",
        f"http://127.0.0.1:{port}/\r\nX-Injected: 1",
        f"http://127.0.0.1 :{port}/",
        f" http://127.0.0.1:{port}/",
        f"http://127.0.0.1:{port}/\x00",
        f"http:127.0.0.1:{port}/",
        f"http:/127.0.0.1:{port}/",
        f"http:///127.0.0.1:{port}/",
        f"//127.0.0.1:{port}/",
        f"127.0.0.1:{port}",
        f"ftp://127.0.0.1:{port}/",
        f"gopher://127.0.0.1:{port}/_x",
        f"ws://127.0.0.1:{port}/",
        f"unix://127.0.0.1:{port}/",
        f"http+unix://127.0.0.1:{port}/",
        f"dict://127.0.0.1:{port}/",
        f"jar:http://127.0.0.1:{port}/!/",
        "file:///etc/passwd",
        "file://localhost/etc/passwd",
        "data:text/plain,x",
        "javascript:1",
        "",
        "http://",
        "http://:80/",
        "http://127.0.0.1:0/",
        "http://127.0.0.1:99999/",
        "http://127.0.0.1:-1/",
        "http://[::1/",
        "http://[not-an-address]/",
        "http://" + "a" * 10_000,
    ]
    return urls
