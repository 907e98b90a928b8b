"""Open a log folder in TensorBoard with headless Chromium and see that its pages show what they should.

    python scripts/check_tensorboard.py outputs --screenshots shots --scalars train/loss val/loss --hparams-rows 1

Asks TensorBoard for scalars, images and hparams, then renders the three tabs, looks for the names in the text that a
person sees, and leaves a screenshot of each. Exit code 0 if everything is there, 1 if not, 2 if Chromium is missing.
"""

import argparse
import json
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from selenium import webdriver

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1500,1000",
]
# all text of a page, also that in shadow trees
READER = """const read = node => [...node.childNodes].map(child => child.nodeType === 3 ? child.data :
  (child.shadowRoot ? read(child.shadowRoot) : "") + read(child)).join(" "); return read(document.body)"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("logdir")
    parser.add_argument("--screenshots", default="screenshots", help="folder for the pictures")
    parser.add_argument("--scalars", nargs="+", default=["train/loss", "val/loss"], help="tags that must be there")
    parser.add_argument("--hparams-rows", type=int, default=1, help="rows that the HPARAMS table must have")
    options = parser.parse_args()
    driver = shutil.which("chromedriver")
    if driver is None:
        print("Chromium is missing: apt-get install chromium chromium-driver", file=sys.stderr)
        return 2
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", options.logdir, "--port", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        address = f"http://127.0.0.1:{port}"
        failed = served(address, options) + rendered(driver, address, options)
    finally:
        server.terminate()
        server.wait()
    print(f"{failed} of the checks failed" if failed else "everything is there")
    return 1 if failed else 0


def check(what: str, holds: bool) -> int:
    print(f"{'ok     ' if holds else 'MISSING'}  {what}", flush=True)
    return 0 if holds else 1


def ask(address: str, path: str, body: dict | None = None) -> dict:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{address}/{path}", data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=20) as answer:
        return json.load(answer)


def served(address: str, options: argparse.Namespace) -> int:
    """What TensorBoard's own interface says; it needs a while to read the files."""
    tags: set[str] = set()
    images, rows = 0, 0
    for _ in range(60):
        try:
            tags = {tag for run in ask(address, "data/plugin/scalars/tags").values() for tag in run}
            images = sum(map(len, ask(address, "data/plugin/images/tags").values()))
            asked = {"experimentName": "", "allowedStatuses": [0, 1, 2, 3], "colParams": [], "sliceSize": 999}
            rows = len(ask(address, "data/plugin/hparams/session_groups", asked).get("sessionGroups", []))
        except OSError:
            pass
        if set(options.scalars) <= tags and images and rows == options.hparams_rows:
            break
        time.sleep(0.5)
    failed = sum(check(f"scalar {tag}", tag in tags) for tag in options.scalars)
    failed += check(f"pictures: {images}", images > 0)
    return failed + check(f"HPARAMS rows: {rows} of {options.hparams_rows}", rows == options.hparams_rows)


def rendered(driver: str, address: str, options: argparse.Namespace) -> int:
    """What a person sees: the page's text, and a screenshot of each tab."""
    folder = Path(options.screenshots).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    only = "|".join(options.scalars)
    pages = {
        "scalars": (f"?darkMode=false&tagFilter={only}#timeseries", options.scalars),
        "images": ("?darkMode=false#images", ["tag: test/picture"]),
        "hparams": ("?darkMode=false#hparams", ["Trial ID", "optimizer.lr", "test/loss"]),
    }
    chrome = webdriver.ChromeOptions()
    for flag in FLAGS:
        chrome.add_argument(flag)
    failed = 0
    with webdriver.Chrome(chrome, webdriver.ChromeService(driver)) as browser:
        for name, (page, expected) in pages.items():
            text = ""
            for attempt in range(160):  # up to 80 seconds, for a machine with other work to do
                if attempt % 40 == 0:
                    browser.get("about:blank")
                    browser.get(f"{address}/{page}")
                text = " ".join(browser.execute_script(READER).split())
                if all(word in text for word in expected):
                    break
                time.sleep(0.5)
            time.sleep(1)  # for the curves to be drawn
            shot = folder / f"{name}.png"
            failed += sum(check(f"page {name} shows {word}", word in text) for word in expected)
            failed += check(f"screenshot {shot}", browser.save_screenshot(str(shot)))
    return failed


if __name__ == "__main__":
    sys.exit(main())
