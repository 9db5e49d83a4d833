"""Markup and drawing languages where a name is wanted."""
# ruff: noqa: E501 - an input stays on one line

from typing import Any
from urllib.parse import quote

from tests.interfaces.http.corpus.case import API, Case, published, query, value

_MARKUP = (
    "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "<svg/onload=alert(1)>", "\"><script>",
    "javascript:alert(1)", "<<TABLE HREF=\"javascript:alert(1)\"><TR><TD>x</TD></TR></TABLE>>",
    "<b>x</b>", "click x \"javascript:alert(1)\"", "%%{init: {'securityLevel': 'loose'}}%%", "\"]-->[*]",
    "a --> b", "state x {", "x\\n[*] --> y", "x\n[*] --> y", "=cmd|' /C calc'!A0", "@SUM(1+1)", "&lt;script&gt;",
    "&#x3C;script&#x3E;", "<!--", "]]>", "<?xml version='1.0'?>", "<!DOCTYPE x [<!ENTITY a SYSTEM 'file:///etc/passwd'>]>",
    "<a href='data:text/html,x'>", "';alert(1);//", "`${alert(1)}`", "\u202egnp.exe", "\u2028", "a\tb", "\x1b[31mred",
    "{{constructor.constructor('alert(1)')()}}", "<iframe srcdoc=x>", "digraph { a -> b }", "\\\"; URL=\"javascript:1",
)  # fmt: skip


def _named(name: str, step: str = "a") -> dict[str, Any]:
    work = {"type": "action", "action": "set_variables", "config": {"variables": {"x": 1}}}
    return {"name": name, "start_step": step, "steps": {step: work}}


CASES: tuple[Case, ...] = (
    tuple(case for text in _MARKUP for case in published(f"name {text[:40]}", _named(text)))
    + tuple(case for text in _MARKUP for case in published(f"step {text[:40]}", _named("x", text)))
    + tuple(value(f"label {text[:40]}", {"labels": {text: "x"}}) for text in _MARKUP)
    + tuple(query("/workflows", f"name={quote(text)}") for text in _MARKUP)
    + tuple(
        Case(f"address {text[:40]}", "GET", f"{API}/workflows/{quote(text, safe='')}")
        for text in _MARKUP
    )
)
