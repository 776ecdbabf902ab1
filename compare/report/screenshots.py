#!/usr/bin/env python3
"""Opens a report in headless Chromium, checks what only a browser can tell, and takes pictures.

    cargo run -p hone-methods --example report_demo -- report.html
    python3 compare/report/screenshots.py report.html pictures/

Checked in light and dark, at 1280, 390 and 360 pixels: the page asks for nothing but itself and logs nothing; it does
not scroll sideways; every text has the contrast of WCAG AA against what lies behind it; every heading, table and
drawing that the file holds is laid out. Then pictures of the whole page in parts of one screen each, and the print
as PDF. Exit status 1 if a check fails. Needs Python 3.9 or later and Chromium, nothing else.
"""
import argparse
import base64
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

SCHEMES = ["light", "dark"]
WIDTHS = {1280: 1000, 390: 844, 360: 740}
CHROMIUMS = ["chromium", "chromium-browser", "google-chrome", "chrome"]

# Every element that holds text of its own: its contrast with the first opaque ground behind it. 24 px, or 18.66 px
# bold, is large text and needs 3; the rest needs 4.5.
CONTRAST = """(() => {
  const parse = c => { const m = c.match(/[\\d.]+/g).map(Number); return m.length < 4 ? [...m, 1] : m; };
  const light = ([r, g, b]) => { const f = v => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
    return 0.2126 * f(r) + 0.7152 * f(g) + 0.0722 * f(b); };
  const ground = e => { for (; e; e = e.parentElement) { const c = parse(getComputedStyle(e).backgroundColor);
    if (c[3] === 1) return c; } return [255, 255, 255, 1]; };
  const bad = new Map();
  let seen = 0, lowest = 99;
  for (const e of document.querySelectorAll('body, body *')) {
    if (![...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()) || !e.getClientRects().length) continue;
    const style = getComputedStyle(e), svg = e.closest('svg');
    if (['TITLE', 'DESC'].includes(e.tagName.toUpperCase())) continue;
    const [a, b] = [light(parse(svg ? style.fill : style.color)), light(ground(e))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05), size = parseFloat(style.fontSize);
    const need = size >= 24 || (size >= 18.66 && style.fontWeight >= 700) ? 3 : 4.5;
    seen += 1; lowest = Math.min(lowest, ratio);
    if (ratio < need) bad.set(e.tagName + '.' + e.getAttribute('class'), ratio.toFixed(2));
  }
  return {seen, lowest: lowest.toFixed(2), bad: [...bad]};
})()"""

# The widest element that sticks out names the culprit; boxes that scroll by themselves may be wide inside.
SIDEWAYS = """(() => {
  const root = document.documentElement, out = [];
  for (const e of document.querySelectorAll('body *'))
    if (!e.closest('.scroll') && !e.closest('svg') && e.getBoundingClientRect().right > root.clientWidth + 1
        && getComputedStyle(e).clipPath === 'none') out.push(e.tagName + '.' + e.className);
  return {page: root.scrollWidth, window: root.clientWidth, out: out.slice(0, 5)};
})()"""

LAID_OUT = """['h1', 'h2', 'h3', 'table', 'svg'].map(tag => [tag, document.querySelectorAll(tag).length,
  [...document.querySelectorAll(tag)].filter(e => !e.closest('details:not([open])') && !e.getClientRects().length).length])"""


class Browser:
    """Chromium, driven over a pair of pipes: messages of JSON, each ended by a zero byte."""

    def __init__(self, path, profile):
        to_read, self.write_end = os.pipe()
        self.read_end, to_write = os.pipe()
        flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run",
                 "--disable-component-update", "--disable-background-networking", "--disable-extensions",
                 f"--user-data-dir={profile}", "--remote-debugging-pipe", "about:blank"]
        # Chromium reads commands from descriptor 3 and answers on 4.
        shell = f'exec "$0" "$@" 3<&{to_read} 4>&{to_write}'
        self.process = subprocess.Popen(["bash", "-c", shell, path, *flags], pass_fds=[to_read, to_write],
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(to_read)
        os.close(to_write)
        self.buffer, self.events, self.sent, self.session = b"", [], 0, None

    def message(self):
        while b"\0" not in self.buffer:
            piece = os.read(self.read_end, 1 << 20)
            if not piece:
                raise SystemExit("chromium ended")
            self.buffer += piece
        text, self.buffer = self.buffer.split(b"\0", 1)
        return json.loads(text)

    def call(self, method, **params):
        self.sent += 1
        wanted = {"id": self.sent, "method": method, "params": params}
        if self.session:
            wanted["sessionId"] = self.session
        text = json.dumps(wanted).encode() + b"\0"
        while text:
            text = text[os.write(self.write_end, text):]
        while True:
            got = self.message()
            if got.get("id") == self.sent:
                if "error" in got:
                    raise SystemExit(f"{method}: {got['error']['message']}")
                return got["result"]
            self.events.append(got)

    def wait(self, method):
        while not any(event.get("method") == method for event in self.events):
            self.events.append(self.message())

    def value(self, script):
        got = self.call("Runtime.evaluate", expression=script, returnByValue=True)
        if "exceptionDetails" in got:
            raise SystemExit(got["exceptionDetails"])
        return got["result"]["value"]


def look(browser, address, scheme, width, height):
    """Opens the page as `scheme` at `width` and returns what is wrong."""
    browser.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1,
                 mobile=width < 600)
    browser.call("Emulation.setEmulatedMedia", media="screen",
                 features=[{"name": "prefers-color-scheme", "value": scheme}])
    browser.events.clear()
    browser.call("Page.navigate", url=address)
    browser.wait("Page.loadEventFired")
    wrong = []
    for event in browser.events:
        params = event.get("params", {})
        if event.get("method") == "Network.requestWillBeSent" and params["request"]["url"] != address:
            wrong.append(f"asks for {params['request']['url'][:100]}")
        if event.get("method") in ("Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled"):
            wrong.append(f"logs {json.dumps(params)[:200]}")
    wide = browser.value(SIDEWAYS)
    if wide["page"] > wide["window"]:
        wrong.append(f"scrolls sideways: {wide}")
    contrast = browser.value(CONTRAST)
    if contrast["bad"] or not contrast["seen"]:
        wrong.append(f"contrast: {contrast}")
    for tag, there, unseen in browser.value(LAID_OUT):
        if not there or unseen:
            wrong.append(f"{tag}: {there} in the file, {unseen} not laid out")
    print(f"{scheme:5} {width:4} px: {contrast['seen']} texts, lowest contrast {contrast['lowest']}, "
          f"page {wide['page']} px wide: {'; '.join(wrong) or 'right'}")
    return wrong


def pictures(browser, folder, name, width, screen=1400):
    """The whole page, in parts of one screen each."""
    browser.call("Emulation.setDeviceMetricsOverride", width=width, height=screen, deviceScaleFactor=1,
                 mobile=width < 600)
    full = browser.value("document.documentElement.scrollHeight")
    for part, top in enumerate(range(0, full, screen)):
        # Two frames later the new part is drawn; pictures from beyond the window have holes.
        browser.call("Runtime.evaluate", awaitPromise=True, expression=f"window.scrollTo(0, {top});"
                     "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
        shot = browser.call("Page.captureScreenshot", format="png")
        (folder / f"{name}-{part:02}.png").write_bytes(base64.b64decode(shot["data"]))


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("report", type=Path)
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("--chromium", help="the browser; found on the path if left out")
    given = arguments.parse_args()
    path = given.chromium or next(filter(None, map(shutil.which, CHROMIUMS)), None)
    if not path:
        raise SystemExit("no Chromium on the path; name one with --chromium")
    given.folder.mkdir(parents=True, exist_ok=True)
    address = given.report.resolve(strict=True).as_uri()
    wrong = []
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        browser = Browser(path, profile)
        try:
            target = browser.call("Target.createTarget", url="about:blank")["targetId"]
            browser.session = browser.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
            for domain in ["Page", "Network", "Log", "Runtime"]:
                browser.call(f"{domain}.enable")
            for scheme in SCHEMES:
                for width, height in WIDTHS.items():
                    wrong += look(browser, address, scheme, width, height)
                    if width != 360:
                        pictures(browser, given.folder, f"{scheme}-{width}", width)
            browser.call("Emulation.setEmulatedMedia", media="print")
            pictures(browser, given.folder, "print", 800)
            pdf = browser.call("Page.printToPDF", printBackground=True, preferCSSPageSize=True)
            (given.folder / "print.pdf").write_bytes(base64.b64decode(pdf["data"]))
        finally:
            browser.process.terminate()
            browser.process.wait()
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
