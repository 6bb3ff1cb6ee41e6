"""The speed and size of dist/awsvault.pyz, as ratios in one run: what `make bench` prints.

A Markdown table for docs/performance.md. Of the yardsticks, "floor" is the bare start of the same
interpreter, R is that interpreter importing only argparse, json and cryptography's AESGCM from a
folder of their own. Times are medians of runs that take turns, in an environment of a few
variables, against a local STS that speaks plain HTTP. Other benchmarks add their rows: a module
here with `rows()`, which returns (what, measured, ratio, goal) as texts.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.timing import (  # noqa: E402
    BenchmarkFailed,
    medians,
    peak_bytes,
    seconds,
    seconds_at_once,
)
from tests.fake_aws import ACCOUNT, KEY_ID, SECRET  # noqa: E402

CONFIG = f"""\
[profile prod]
region = eu-west-1

[profile admin]
region = eu-west-1
source_profile = prod
role_arn = arn:aws:iam::{ACCOUNT}:role/admin
"""
PROFILE_OF_MANY = """
[profile team-{number:04d}]
region = eu-west-1
role_arn = arn:aws:iam::222222222222:role/a-role-of-team-{number:04d}-with-a-long-name
source_profile = prod
role_session_name = someone-in-team-{number:04d}
# what this account is for and whom to ask
"""
YARDSTICK = """
import sys
sys.path.insert(0, {folder!r})
import argparse, json
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
"""
OTHERS = ("benchmarks.keystores", "benchmarks.servers")
HEADER = ("what", "measured", "ratio", "goal")
PROCESSES = 50


class Sts:
    """The fake STS in a process of its own, so that it shares no interpreter with what is timed."""

    def __init__(self):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.fake_aws"],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.url = self.process.stdout.readline().strip()

    def count(self):
        """How many requests have come."""
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"{self.url}/_admin") as answer:
            return len(json.load(answer)["calls"])

    def close(self):
        self.process.stdin.close()
        self.process.wait(30)


class User:
    """A home with a vault and a config, and the program as this person runs it."""

    def __init__(self, home, pyz, url, *, iterations=8192, config=CONFIG):
        self.home, self.pyz = home, str(pyz)
        self.environ = {
            "HOME": str(home),
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "AWS_VAULT_BACKEND": "file",
            "AWS_VAULT_FILE_ITERATIONS": str(iterations),
            "AWS_VAULT_FILE_PASSPHRASE": "a passphrase for the benchmark only",
            "AWS_ENDPOINT_URL_STS": url,
        }
        (home / ".aws").mkdir(mode=0o700, parents=True)
        (home / ".aws" / "config").write_text(config, encoding="utf-8")
        home.chmod(0o700)
        self.run("add", "prod", "--env", AWS_ACCESS_KEY_ID=KEY_ID, AWS_SECRET_ACCESS_KEY=SECRET)

    def line(self, *args):
        return [sys.executable, self.pyz, *args]

    def run(self, *args, **variables):
        """Seconds of one run."""
        return seconds(self.line(*args), {**self.environ, **variables})

    def cached(self):
        """Seconds of an exec whose session is in the vault."""
        return self.run("exec", "admin", "--", "true")

    def cold(self):
        """Seconds of an exec which makes its session: one AssumeRole."""
        self.forget()
        return self.run("exec", "admin", "--", "true")

    def cold_at_once(self):
        """Seconds of many such execs started together."""
        self.forget()
        return seconds_at_once(self.line("exec", "admin", "--", "true"), self.environ, PROCESSES)

    def forget(self):
        """Remove the stored sessions."""
        for path in (self.home / ".awsvault" / "keys").glob("*,*"):
            path.unlink()

    def first_at_once(self):
        """Seconds of many first runs of the file, started together: one of them unpacks it."""
        shutil.rmtree(self.home / ".cache" / "awsvault", ignore_errors=True)
        return seconds_at_once(self.line("version"), self.environ, PROCESSES)

    def peak(self):
        """Peak memory of a cached exec, in bytes."""
        return peak_bytes(self.line("exec", "admin", "--", "true"), self.environ)


class AwsumeUser:
    """The same profiles and keys for awsume, which keeps its keys in plain text."""

    def __init__(self, home, url):
        (home / ".aws").mkdir(mode=0o700, parents=True)
        (home / ".aws" / "config").write_text(CONFIG, encoding="utf-8")
        (home / ".aws" / "credentials").write_text(
            f"[prod]\naws_access_key_id = {KEY_ID}\naws_secret_access_key = {SECRET}\n",
            encoding="utf-8",
        )
        self.home = home
        folder = ROOT / ".venv-awsume" / "bin"
        self.argv = [str(folder / "python"), str(folder / "awsumepy"), "admin"]
        self.environ = {
            "HOME": str(home), "PATH": "/usr/local/bin:/usr/bin:/bin", "AWS_ENDPOINT_URL_STS": url,
        }  # fmt: skip

    def cold(self):
        """Seconds of one run; it makes one AssumeRole each time."""
        shutil.rmtree(self.home / ".awsume" / "cache", ignore_errors=True)
        return seconds(self.argv, self.environ)


def yardstick(folder):
    """The command line of R: cryptography as it was installed, alone in a folder."""
    import cryptography

    installed = Path(cryptography.__file__).parent.parent
    shutil.copytree(installed / "cryptography", folder / "cryptography")
    for path in installed.glob("_cffi_backend*"):
        shutil.copy2(path, folder)
    return [sys.executable, "-I", "-S", "-c", YARDSTICK.format(folder=str(folder))]


def start_up(scratch, pyz, url, rounds):
    """Rows of the cached exec against the bare interpreter and R."""
    small = User(scratch / "small", pyz, url)
    strong = User(scratch / "strong", pyz, url, iterations=600_000)
    many = "".join(PROFILE_OF_MANY.format(number=number) for number in range(5000))
    large = User(scratch / "large", pyz, url, config=CONFIG + many)
    measure = yardstick(scratch / "unpacked")
    found = medians(
        {
            "floor": lambda: seconds([sys.executable, "-I", "-S", "-c", "pass"], small.environ),
            "r": lambda: seconds(measure, small.environ),
            "small": small.cached,
            "strong": strong.cached,
            "large": large.cached,
            "list": lambda: small.run("list"),
            "export": lambda: small.run("export", "admin"),
        },
        rounds,
    )
    peak = medians({"peak": small.peak}, 3)["peak"]

    def against(name, *yardsticks):
        return ", ".join(f"{found[name] / found[of]:.2f} {shown}" for of, shown in yardsticks)

    floor, r = ("floor", "floors"), ("r", "R")
    size = len(CONFIG + many) / 1e6
    return [
        ("floor: `python3 -I -S -c pass`", ms(found["floor"]), "", ""),
        ("R: argparse, json, AESGCM", ms(found["r"]), against("r", floor), ""),
        ("cached `exec ROLE -- true`, 8192 iterations", ms(found["small"]),
         against("small", r, floor), "1.5 R, reach for 1.1"),
        ("the same, 600,000 iterations (default)", ms(found["strong"]),
         against("strong", r, floor), ""),
        (f"the same, config of {size:.1f} MB with 5,000 profiles", ms(found["large"]),
         against("large", ("small", "of the small one")), "1.5"),
        ("`list`", ms(found["list"]), against("list", ("small", "of a cached exec")), "0.75"),
        ("cached `export ROLE`", ms(found["export"]),
         against("export", ("small", "of a cached exec")), "1.1"),
        ("peak memory of a cached exec", f"{peak / 1e6:.1f} MB", "", "30 MB"),
        ("size of the file", f"{pyz.stat().st_size:,} bytes", "", "30,000,000 bytes"),
    ]  # fmt: skip


def against_awsume(scratch, pyz, url, rounds):
    """The row of a cold exec against awsume's."""
    if not (ROOT / ".venv-awsume" / "bin" / "awsumepy").exists():
        return [("cold `exec ROLE -- true`, one AssumeRole", "no .venv-awsume", "", "0.65")]
    ours, theirs = User(scratch / "cold", pyz, url), AwsumeUser(scratch / "awsume", url)
    found = medians({"ours": ours.cold, "theirs": theirs.cold}, rounds)
    ratio = f"{found['ours'] / found['theirs']:.2f} of awsumepy"
    return [
        ("`awsumepy ROLE`, one AssumeRole", ms(found["theirs"]), "", ""),
        ("cold `exec ROLE -- true`, one AssumeRole", ms(found["ours"]), ratio,
         "0.65, reach for 0.4"),
    ]  # fmt: skip


def at_once(scratch, pyz, sts, rounds):
    """Rows of many processes started together."""
    user = User(scratch / "crowd", pyz, sts.url)
    alone = medians({"cold": user.cold, "cached": user.cached}, rounds)
    before, crowds = sts.count(), 3
    crowd = medians({"crowd": user.cold_at_once}, crowds - 1)["crowd"]
    calls = (sts.count() - before) / crowds
    first = medians({"first": user.first_at_once}, 2)["first"]
    whole = alone["cold"] + PROCESSES * alone["cached"]
    return [
        (f"{PROCESSES} execs at once, cold cache: {calls:g} STS call", ms(crowd),
         f"{crowd / whole:.2f} of (one cold + {PROCESSES} cached)", "3, one STS call"),
        (f"{PROCESSES} first runs of the file at once", ms(first), "", ""),
    ]  # fmt: skip


def other_rows():
    """Rows of the other benchmarks, as far as they are there."""
    for name in OTHERS:
        if importlib.util.find_spec(name) is not None:
            yield from importlib.import_module(name).rows()


def ms(figure):
    return f"{figure * 1000:.1f} ms"


def machine():
    """The kind of machine, and the date."""
    model = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    return (
        f"{model}, {os.cpu_count()} CPUs, {platform.system()} {platform.machine()}, "
        f"Python {platform.python_version()}, {time.strftime('%Y-%m-%d', time.gmtime())}"
    )


def table(rows):
    """A Markdown table."""
    lines = [HEADER, ("---", "---", "---", "---"), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def measure(scratch, pyz, rounds):
    """All rows."""
    sts = Sts()
    try:
        return [
            *start_up(scratch, pyz, sts.url, rounds),
            *against_awsume(scratch, pyz, sts.url, max(3, rounds // 3)),
            *at_once(scratch, pyz, sts, max(3, rounds // 3)),
            *other_rows(),
        ]
    finally:
        sts.close()


def main():
    parser = argparse.ArgumentParser(prog="bench", description=__doc__.splitlines()[0])
    parser.add_argument("--pyz", type=Path, default=ROOT / "dist" / "awsvault.pyz")
    parser.add_argument("--rounds", type=int, default=41, help="runs of each program")
    options = parser.parse_args()
    if not options.pyz.exists():
        print(f"bench failed: no {options.pyz}; make pyz makes it", file=sys.stderr)
        return 1
    scratch = Path(tempfile.mkdtemp(prefix="awsvault-bench-"))
    try:
        rows = measure(scratch, options.pyz.resolve(), options.rounds)
    except BenchmarkFailed as error:
        print(f"bench failed: {error}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    print(f"{machine()}; medians of {options.rounds} runs or a third of that\n")
    print(table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
