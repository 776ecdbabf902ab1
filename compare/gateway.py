"""`hone serve` and LiteLLM's proxy before the same upstream, which answers at once: same load, alternately.

    cargo build --release -p hone-cli -p hone-server --bins --examples
    pip install 'litellm[proxy]'
    python compare/gateway.py [--rounds 3] [--clients 64] [--seconds 5] [--litellm PATH]

Hone stores every exchange in SQLite; LiteLLM stores nothing. First each client asks one call after the other: calls per
second. Then 1,000 calls a second for what an answer takes, with and without Hone. Medians over rounds; the ratio is the
median of the rounds' ratios.
"""

import argparse
import json
import os
import pathlib
import shutil
import socket
import statistics
import subprocess
import tempfile
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[1]


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def wait_for(url, seconds=90):
    until = time.time() + seconds
    while time.time() < until:
        try:
            urllib.request.urlopen(url, timeout=2).read()
            return
        except OSError:
            time.sleep(0.2)
    raise SystemExit(f"nothing answers at {url}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--litellm", default=shutil.which("litellm"))
    parser.add_argument("--release", default=str(ROOT / "target/release"))
    args = parser.parse_args()
    load_program = f"{args.release}/examples/gateway_load"
    environment = {k: v for k, v in os.environ.items() if "proxy" not in k.lower()}
    environment["LITELLM_MASTER_KEY"] = "sk-1"  # it does not start without one; the load sends it
    running, folder = [], tempfile.TemporaryDirectory()

    def start(*command, **more):
        running.append(subprocess.Popen(command, env=environment, cwd=folder.name, stderr=subprocess.DEVNULL, **more))
        return running[-1]

    def load(url, rate=None):
        command = [load_program, url, str(args.clients), str(args.seconds)] + ([str(rate)] if rate else [])
        return json.loads(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)

    try:
        mock = start(load_program, "mock", stdout=subprocess.PIPE, text=True).stdout.readline().strip()
        ports = {"hone": free_port(), "litellm": free_port()}
        start(f"{args.release}/hone", "serve", "--upstream", mock, "--listen", f"127.0.0.1:{ports['hone']}",
              "--store", "load.db", stdout=subprocess.DEVNULL)
        wait_for(f"http://127.0.0.1:{ports['hone']}/healthz")
        if args.litellm:
            settings = pathlib.Path(folder.name) / "litellm.yaml"
            settings.write_text(
                "model_list:\n  - model_name: m\n    litellm_params:\n      model: openai/m\n"
                f"      api_base: {mock}\n      api_key: sk-1\nlitellm_settings:\n  telemetry: false\n"
            )
            start(args.litellm, "--config", str(settings), "--host", "127.0.0.1", "--port", str(ports["litellm"]),
                  stdout=subprocess.DEVNULL)
            wait_for(f"http://127.0.0.1:{ports['litellm']}/health/liveliness")
        urls = {name: f"http://127.0.0.1:{port}/v1" for name, port in ports.items()}
        names = ["hone"] + (["litellm"] if args.litellm else [])
        figures = {name: [] for name in names}
        for _ in range(args.rounds):
            for name in names:
                figures[name].append(load(urls[name]))
        print("| gateway | calls/s | p50, ms | p99, ms | failed |\n|---|---|---|---|---|")
        for name, found in figures.items():
            middle = lambda key: statistics.median(figure[key] for figure in found)
            print(f"| {name} | {middle('per_second'):.0f} | {middle('p50_ms'):.2f} | {middle('p99_ms'):.2f} | "
                  f"{sum(figure['failed'] for figure in found)} |")
        if args.litellm:
            ratios = [a["per_second"] / b["per_second"] for a, b in zip(figures["hone"], figures["litellm"])]
            print(f"\nratio {statistics.median(ratios):.1f} x")
        print("\n| 1,000 calls/s | p50, ms | p99, ms | failed |\n|---|---|---|---|")
        for name, url in (("upstream alone", mock), ("through hone", urls["hone"])):
            found = [load(url, 1000) for _ in range(args.rounds)]
            middle = lambda key: statistics.median(figure[key] for figure in found)
            print(f"| {name} | {middle('p50_ms'):.2f} | {middle('p99_ms'):.2f} | {sum(f['failed'] for f in found)} |")
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.wait()
        folder.cleanup()


if __name__ == "__main__":
    main()
