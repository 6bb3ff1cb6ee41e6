"""What each platform gets, and what a Python that can't run us is told.

`make test-platforms` runs the main job on platforms that are not this machine's.
"""

from __future__ import annotations

import posixpath
import re
import runpy
import subprocess
import sys
import types

import pytest

import awsvault
import build_zipapp
from tests.elf import Elf, macho_libraries
from tests.fake_aws import KEY_ID, SECRET
from tests.fake_world import FakeWorld
from tests.pyz import BUILT, ROOT, build_once

# What a Linux system has by itself; all else must be in the file.
SYSTEM = {
    "glibc": r"lib(c|pthread|dl|rt|m|gcc_s|util)\.so\.\d|ld-linux.*\.so\.\d",
    "musl": r"libc\.musl-(x86_64|aarch64)\.so\.1",
}
PARTS = runpy.run_path(str(ROOT / "__main__.py"), run_name="start")["PARTS"]


@pytest.fixture(scope="module")
def everywhere(probe):
    """A .pyz with the native modules of every target."""
    return build_once(BUILT / "probe.py", target="")


@pytest.mark.parametrize("target", build_zipapp.TARGETS)
@pytest.mark.parametrize("python", build_zipapp.PYTHONS)
def test_every_native_module_finds_what_it_needs(everywhere, monkeypatch, target, python):
    main = runpy.run_path(str(everywhere), run_name="start")
    version = tuple(map(int, python.split(".")))
    minor = f"cpython-3{version[1]}"
    bundle = types.SimpleNamespace(
        path=str(everywhere),
        pins=dict(line.split() for line in main["PINS"].splitlines()),
        tag=f"{target}-{minor}-abcd",
    )
    python = types.SimpleNamespace(version_info=(3, version[1], 5), abiflags="")
    monkeypatch.setattr(build_zipapp, "sys", python)
    files = dict(build_zipapp.library_files(bundle))
    assert not [path for path in files if path.endswith("/")]
    native = {path: data for path, data in files.items() if build_zipapp.is_native(path)}
    assert {"_cffi_backend.so", "cryptography/hazmat/bindings/_rust.abi3.so"} <= {*native}
    for path, data in native.items():
        if target.startswith("darwin"):
            outside = ("/usr/lib/", "/System/Library/")
            assert all(name.startswith(outside) for name in macho_libraries(data)), path
            continue
        elf, (_, machine, libc) = Elf(data), target.split("-")
        assert elf.machine == machine
        # The libgcc that musl's wheels bring has such names of its own.
        assert libc == "musl" or () < elf.glibc() <= (2, 17)
        for needed in elf.needed:
            places = [p.replace("$ORIGIN", posixpath.dirname(path)) for p in elf.paths]
            found = {posixpath.normpath(f"{place}/{needed}") for place in places} & {*files}
            assert found or re.fullmatch(SYSTEM[libc], needed), (path, needed)


def test_the_file_for_all_targets_is_small_enough(everywhere):
    # The real module in place of the probe adds what it takes deflated, some 100 kB.
    room = build_zipapp.MAX_BYTES - everywhere.stat().st_size
    assert room > (ROOT / "awsvault.py").stat().st_size


def test_on_musl_no_native_code_goes_to_memory():
    natives = build_zipapp.MemoryNatives()
    natives.musl = True
    assert not natives.add("_cffi_backend.so", b"\x7fELF")
    assert natives.paths == {}


# ---- a Python that lacks something -------------------------------------------------------------

# Every finder of modules but for one name.
HIDE = """
import sys
class Without:
    def __init__(self, finder): self.finder = finder
    def find_spec(self, name, *rest):
        return None if name == "%s" else self.finder.find_spec(name, *rest)
    def __getattr__(self, name): return getattr(self.finder, name)
sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
"""


def run_without(module, pyz, home, *args):
    """Run it on a Python that seems to lack a module; return (exit status, stdout, stderr)."""
    site = home / f"without-{module}"
    site.mkdir(exist_ok=True)
    (site / "sitecustomize.py").write_text(HIDE % module)
    environ = {"HOME": str(home), "PATH": "/usr/bin:/bin", "PYTHONPATH": str(site)}
    done = subprocess.run(
        [sys.executable, str(pyz), *args], env=environ, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("module", PARTS)
def test_a_python_without_a_module_is_told_which_and_what_has_it(probe, tmp_path, module):
    status, out, err = run_without(module, probe, tmp_path, "print('ran')")
    error, hint = err.splitlines()
    assert (status, out) == (1, "")
    assert error.startswith("awsvault: error: ")
    assert error.endswith(f"has no module {module.lstrip('_')}")
    assert hint.startswith("awsvault: hint: install ")
    assert (PARTS[module] or "apt-get install python3") in hint


def test_a_module_that_went_missing_later_is_no_bug(pyz, tmp_path):
    assert run_without("none", pyz, tmp_path, "version", "--json")[0] == 0
    status, out, err = run_without("json", pyz, tmp_path, "version", "--json")
    assert (status, out, len(err.splitlines())) == (1, "", 2)
    assert "json" in err.splitlines()[0] and "Traceback" not in err


def test_the_packed_modules_have_the_spec_that_python_3_15_wants(probe, tmp_path):
    code = "for m in ('awsvault', 'build_zipapp'): m = sys.modules[m]; assert m.__spec__.loader is m.__loader__"
    for _ in range(2):
        argv = [sys.executable, "-W", "error", str(probe), code]
        done = subprocess.run(argv, env={"HOME": str(tmp_path)}, capture_output=True, check=False)
        assert (done.returncode, done.stderr) == (0, b"")


# ---- a library that can't be loaded ------------------------------------------------------------


class BrokenBundle:
    """A packed file that is whole, on a machine where its libraries can't be loaded."""

    path, note = "/opt/awsvault.pyz", ""

    def load_libraries(self):
        raise ImportError("Error loading shared library libgcc_s-1a2b.so.1")

    def verify(self):
        return []

    def sha256(self):
        return "0" * 64

    def cleanup(self):
        pass


@pytest.fixture
def broken(tmp_path):
    world = FakeWorld(tmp_path)
    world.bundle = BrokenBundle()
    return world


def test_verify_does_not_say_intact_of_what_cannot_be_loaded(broken):
    assert awsvault.main(["version", "--verify"], broken) == 1
    assert "libgcc_s-1a2b" in broken.said[0] and "intact" not in broken.written


def test_backends_does_not_say_yes_of_what_cannot_be_loaded(broken):
    settings = awsvault.StoreSettings()
    refusal = awsvault.probe_backend(broken, settings, "file").refusal
    assert "libgcc_s-1a2b" in refusal.message


def test_verify_may_be_the_first_run_and_the_second(pyz, tmp_path):
    for _ in range(2):
        status, out, err = run_without("none", pyz, tmp_path, "version", "--verify")
        assert (status, err) == (0, "") and "intact" in out


# ---- a FIPS host -------------------------------------------------------------------------------

FIPS_CONFIG = """\
openssl_conf = openssl_init
[openssl_init]
providers = providers
alg_section = algorithms
[providers]
fips = fips
base = base
[fips]
activate = 1
[base]
activate = 1
[algorithms]
default_properties = fips=yes
"""


def test_the_openssl_of_cryptography_takes_no_configuration_from_the_host(cli, tmp_path):
    path = tmp_path / "openssl.cnf"
    path.write_text(FIPS_CONFIG)
    cli.environ["OPENSSL_CONF"] = str(path)
    cli.add("prod", KEY_ID, SECRET)
    # The command's environment is the person's.
    assert cli.exec_environ("prod", "--no-session")["OPENSSL_CONF"] == str(path)
