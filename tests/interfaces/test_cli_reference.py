"""`docs/reference/cli.md` is what the commands say."""

from tools.cli_reference import PAGE, page


def test_the_page_is_current() -> None:
    assert PAGE.read_text("utf-8") == page(), "run `python -m tools.cli_reference`"
