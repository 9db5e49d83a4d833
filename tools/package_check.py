"""Build the wheel, install it in an empty environment elsewhere and run the demo from it.

Run by `make package-check`. Exit code 0 when the wheel holds all that the demo needs.
"""

import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("domain", "application", "infrastructure", "interfaces")
DEMO_SECONDS_MAX = 120
WHERE_FROM = """
import importlib, importlib.metadata, json, sys
from pathlib import Path
ours = {str(Path(str(f.locate())).resolve()) for f in importlib.metadata.files("flowledger")}
print(json.dumps([n for n in sys.argv[1:]
    if str(Path(importlib.import_module(n).__file__).resolve()) not in ours]))
"""


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="flowledger-package-") as name:
        folder = Path(name)
        wheel = build_wheel(folder / "dist")
        python = install(wheel, folder / "environment")
        elsewhere = folder / "elsewhere"
        elsewhere.mkdir()
        foreign = run([python, "-P", "-c", WHERE_FROM, *PACKAGES], elsewhere, capture=True).strip()
        if foreign != "[]":
            print(f"These packages do not come from our wheel: {foreign}", file=sys.stderr)
            return 1
        run([python.with_name("flowledger"), "demo"], elsewhere, seconds=DEMO_SECONDS_MAX)
    print(f"package-check: {wheel.name} installs and its demo runs")
    return 0


def build_wheel(folder: Path) -> Path:
    run([Path(sys.executable), "-m", "hatchling", "build", "-t", "wheel", "-d", folder], ROOT)
    (wheel,) = folder.glob("flowledger-*.whl")
    return wheel


def install(wheel: Path, environment: Path) -> Path:
    """Install the locked run requirements and the wheel; return the environment's Python."""
    venv.create(environment, with_pip=True)
    python = environment / "bin" / "python"
    pip: list[Path | str] = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    run([*pip, "--require-hashes", "-r", ROOT / "requirements" / "run.txt"], environment)
    run([*pip, "--no-deps", wheel], environment)
    return python


def run(
    command: list[Path | str], folder: Path, *, capture: bool = False, seconds: int | None = None
) -> str:
    """Run a program without this project's settings; raise CalledProcessError when it fails."""
    answer = subprocess.run(
        command,
        cwd=folder,
        env={k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "FLOWLEDGER_"))},
        stdout=subprocess.PIPE if capture else None,
        text=True,
        timeout=seconds,
        check=True,
    )
    return answer.stdout or ""


if __name__ == "__main__":
    sys.exit(main())
