"""A page as a browser has it after a script has used it; tests that need one are skipped where there is none."""

import base64
import hashlib
import re
import shutil
import subprocess
import textwrap
from pathlib import Path

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here")
_NOTE = """
const note = (id, textContent) =>
  document.body.append(Object.assign(document.createElement("pre"), { id, textContent }));
"""


def noted(page: Path, probe: str, folder: Path, window: str = "1400,1000") -> dict[str, str]:
    """What a script, which runs after the page's own, says by `note(id, text)`; the page's policy stays in force."""
    assert CHROMIUM is not None
    script = f"{{{_NOTE}{textwrap.dedent(probe)}}}"
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    text = page.read_text().replace("script-src ", f"script-src 'sha256-{digest}' ")
    assert digest in text
    (folder / "page.html").write_text(text.replace("</body>", f"<script>{script}</script></body>"))
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=3000"]
    command += [f"--user-data-dir={folder / 'profile'}", f"--window-size={window}", "--dump-dom"]
    ran = subprocess.run(
        [*command, (folder / "page.html").as_uri()], capture_output=True, text=True, timeout=120, check=False
    )
    result = dict(re.findall(r'<pre id="(\w+)">(.*?)</pre>', ran.stdout, re.DOTALL))
    assert result, ran.stderr[-500:]
    return result
