"""Opening a page in a headless Chromium: its final DOM and what it wrote to the console."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

CHROMIUM = next((path for path in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if path), None)


@dataclass(frozen=True)
class Opened:
    """A page after its scripts have run."""

    dom: str
    console: list[str]
    requests: list[str]


def open_page(page: Path, profile: Path, *, width: int = 1280, dark: bool = False) -> Opened:
    """Load a file without network and return what became of it."""
    command = [
        str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
        "--disable-background-networking", "--disable-component-update", "--no-first-run", "--enable-logging=stderr",
        "--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={profile}", f"--window-size={width},1000",
        "--virtual-time-budget=5000", *(["--blink-settings=preferredColorScheme=0"] if dark else []),
        "--dump-dom", page.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, timeout=120, check=True)
    log = done.stderr.decode(errors="replace")
    return Opened(
        dom=done.stdout.decode("utf-8", errors="replace"),
        console=[line for line in log.splitlines() if "CONSOLE" in line],
        requests=re.findall(r"https?://[^\s\"']+", "\n".join(line for line in log.splitlines() if "net_error" in line)),
    )
