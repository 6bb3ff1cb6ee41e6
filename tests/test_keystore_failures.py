"""Every way in which a native keystore can fail: told apart within three seconds, by one line and
a hint. A locked keystore is never a missing item, and asks for no MFA code."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import time

import pytest

from tests.desktop import Desktop, GoSecretService, make_gpg_key
from tests.fake_aws import KEY_ID, MFA_SERIAL, SECRET
from tests.fakes import Fakes
from tests.needs import need

KEYS = {"AWS_ACCESS_KEY_ID": KEY_ID, "AWS_SECRET_ACCESS_KEY": SECRET}
CONFIG = f"[profile prod]\nregion = eu-west-1\nmfa_serial = {MFA_SERIAL}\n"


@pytest.fixture
def desktop():
    made = Desktop()
    yield made
    made.close()


@pytest.fixture
def native(cli, desktop):
    """The product in the desktop's home and on its bus."""

    def on(backend):
        cli.home = desktop.home
        cli.environ.update(desktop.environ)
        cli.environ["AWS_VAULT_BACKEND"] = backend
        cli.config(CONFIG)
        return cli

    return on


@pytest.fixture
def secret_service(desktop, native):
    desktop.start_bus()
    desktop.gnome_keyring()
    return native("secret-service")


def fails(cli, *arguments, code=1, says, env=None, seconds=3.0):
    """Run it: one line of error and one of hint, in time, and AWS was not asked."""
    started = time.monotonic()
    result = cli.run(*arguments, env=env)
    took = time.monotonic() - started
    assert result.code == code, str(result)
    assert re.search(says, result.err), str(result)
    lines = result.err.splitlines()
    assert [line.split()[1] for line in lines] == ["error:", "hint:"], str(result)
    if took >= seconds:  # on a busy machine the start of Python is a part of it
        started = time.monotonic()
        cli.run("version")
        took -= time.monotonic() - started
    assert took < seconds, f"{took:.1f} s: {result}"
    return result


EVERYTHING = (("list",), ("exec", "prod", "--", "true"), ("add", "prod", "--env"))
commands = pytest.mark.parametrize("command", EVERYTHING, ids=lambda command: command[0])


class TestBus:
    @commands
    def test_no_bus(self, native, command):
        cli = native("secret-service")
        fails(cli, *command, env=KEYS, says="no D-Bus session bus here")

    @commands
    def test_dead_bus(self, desktop, native, command):
        desktop.environ["DBUS_SESSION_BUS_ADDRESS"] = desktop.address
        cli = native("secret-service")
        fails(cli, *command, env=KEYS, says=r"nobody answers at \S+/bus \(no such file")

    @commands
    def test_no_provider(self, desktop, native, command):
        need("secret-tool", "busctl")
        desktop.start_bus()
        cli = native("secret-service")
        fails(cli, *command, env=KEYS, says="the Secret Service is not there: no program offers")
        cli = native("kwallet")
        need("kwallet-query")
        fails(cli, *command, env=KEYS, says="KWallet is not there: no program offers")

    def test_a_bus_of_another_protocol(self, desktop, native):
        desktop.environ["DBUS_SESSION_BUS_ADDRESS"] = "tcp:host=127.0.0.1,port=1"
        fails(native("secret-service"), "list", says="is no Unix socket's address")

    @commands
    def test_hung_bus(self, desktop, native, command):
        need("secret-tool", "busctl")
        bus = desktop.start_bus()
        cli = native("secret-service")
        os.kill(bus.pid, signal.SIGSTOP)
        fails(cli, *command, env=KEYS, says="the D-Bus session bus does not answer")

    def test_the_addresses_are_tried_until_one_is_ours(self, secret_service, desktop):
        cli = secret_service
        dead = f"unix:path={desktop.folder}/dead"
        env = {"DBUS_SESSION_BUS_ADDRESS": f"{dead};{desktop.address}", **KEYS}
        cli.run("add", "prod", "--env", env=env, check=0)
        assert cli.run("list", "--credentials", env=env, check=0).out == "prod\n"


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be another user")
class TestForeignBus:
    @commands
    def test_it_is_refused_and_receives_nothing(self, desktop, native, command):
        path = f"{desktop.folder}/foreign"
        with socket.socket(socket.AF_UNIX) as foreign:
            foreign.bind(path)
            os.seteuid(65534)  # whoever listens is whom the kernel names
            try:
                foreign.listen()
            finally:
                os.seteuid(0)
            desktop.environ["DBUS_SESSION_BUS_ADDRESS"] = f"unix:path={path}"
            cli = native("secret-service")
            fails(cli, *command, env=KEYS, says="foreign belongs to user 65534")
            connection, _ = foreign.accept()
            with connection:
                assert connection.recv(65536) == b""
            foreign.setblocking(False)
            with pytest.raises(BlockingIOError):
                foreign.accept()

    def test_only_the_checked_address_is_handed_on(self, desktop, cli):
        """A foreign address in front of ours: the tools see ours alone."""
        fakes = (
            Fakes(desktop.folder / "fakes") if (desktop.folder / "fakes").mkdir() is None else None
        )
        try:
            fakes.install("secret-tool", "busctl", "gdbus")
            fakes.listen()
            fakes.set_state(
                {"default": "login", "collections": {"login": {"locked": False, "items": {}}}}
            )
            own = fakes.environ["DBUS_SESSION_BUS_ADDRESS"]
            dead = f"unix:abstract=awsvault-test-{os.getpid()}"
            cli.environ.update(fakes.environ)
            cli.environ.update(
                DBUS_SESSION_BUS_ADDRESS=f"{dead};{own}",
                AWS_VAULT_BACKEND="secret-service",
                SECRET_BACKEND="file",
            )
            cli.run("add", "prod", "--env", env=KEYS, check=0)
            calls = fakes.calls()
            assert calls
            for call in calls:
                assert call["environ"]["DBUS_SESSION_BUS_ADDRESS"] == own
                assert "SECRET_BACKEND" not in call["environ"]
                assert call["environ"]["LC_ALL"] == "C.UTF-8"
        finally:
            fakes.close()


class TestTools:
    @pytest.mark.parametrize(
        ("backend", "says", "hint"),
        [
            ("secret-service", "secret-tool is not installed", "libsecret-tools"),
            (
                "kwallet",
                "kwallet-query is not installed|busctl is not installed",
                "libkf5wallet-bin|systemd",
            ),
            ("pass", "pass is not installed", "install pass"),
            ("passage", "passage is not installed", "install passage"),
            ("keychain", "security is not installed", "awsvault backends"),
        ],
    )
    def test_missing(self, cli, home, backend, says, hint):
        runtime = socket.socket(socket.AF_UNIX)
        folder = Desktop()
        try:
            runtime.bind(f"{folder.folder}/bus")
            runtime.listen()
            cli.environ["DBUS_SESSION_BUS_ADDRESS"] = folder.address
            cli.environ["AWS_VAULT_BACKEND"] = backend
            cli.environ["PATH"] = "/nowhere"
            (home / ".password-store").mkdir()
            keychains = home / "Library" / "Keychains"
            keychains.mkdir(parents=True)
            (keychains / "aws-vault.keychain-db").touch()
            result = fails(cli, "add", "prod", "--env", env=KEYS, says=says)
            assert re.search(hint, result.err)
        finally:
            runtime.close()
            folder.close()


class TestSecretService:
    @commands
    def test_hung(self, desktop, native, command):
        desktop.start_bus()
        daemon = desktop.gnome_keyring()
        cli = native("secret-service")
        cli.run("add", "prod", "--env", env=KEYS, check=0)
        os.kill(daemon.pid, signal.SIGSTOP)
        fails(cli, *command, env=KEYS, says="the Secret Service does not answer")

    def test_locked_in_this_login(self, secret_service, desktop, fake_aws):
        cli = secret_service
        cli.run("add", "prod", "--env", env=KEYS, check=0)
        go = GoSecretService(desktop)
        go.lock(go.path)
        locked = "the keyring 'awsvault' is locked, and nobody can be asked"
        assert cli.run("list", "--credentials", check=0).out == "prod\n"
        fails(cli, "exec", "prod", "--", "true", code=3, says=locked)
        fails(cli, "add", "prod", "--env", env=KEYS, code=3, says=locked)
        fails(cli, "remove", "prod", "--force", code=3, says=locked)
        assert fake_aws.count() == 0

    @commands
    def test_locked_since_the_daemon_started(self, desktop, native, fake_aws, command):
        desktop.start_bus()
        daemon = desktop.gnome_keyring()
        cli = native("secret-service")
        cli.run("add", "prod", "--env", env=KEYS, check=0)
        desktop.restart_locked(daemon)
        fails(cli, *command, env=KEYS, code=3, says="the keyring 'awsvault' is locked, and nobody")
        assert fake_aws.count() == 0

    def test_locked_with_an_item_of_that_name_elsewhere(self, desktop, native, fake_aws):
        desktop.start_bus()
        daemon = desktop.gnome_keyring()
        cli = native("secret-service")
        cli.run("add", "prod", "--env", env=KEYS, check=0)
        cli.run("--secret-service-collection=login", "add", "prod", "--env", env=KEYS, check=0)
        desktop.restart_locked(daemon)
        says = "the keyring 'awsvault' is locked, and nobody"
        fails(cli, "exec", "prod", "--", "true", code=3, says=says)

    @commands
    def test_the_first_run_takes_a_locked_keyring_for_no_empty_one(self, desktop, native, command):
        desktop.start_bus()
        daemon = desktop.gnome_keyring()
        cli = native("secret-service")
        cli.run("add", "prod", "--env", env=KEYS, check=0)
        desktop.restart_locked(daemon)
        cli.environ["AWS_VAULT_BACKEND"] = None
        fails(cli, *command, env=KEYS, code=3, says="the keyring 'awsvault' is locked, and nobody")
        assert not (desktop.home / ".awsvault" / "state.json").exists()

    def test_a_locked_keyring_without_anything_of_ours_is_passed_over(self, desktop, native):
        desktop.start_bus()
        daemon = desktop.gnome_keyring(collection=False)
        desktop.restart_locked(daemon)
        cli = native(None)
        assert "using the keystore file" in cli.run("list", check=0).err

    @pytest.mark.parametrize("who", ["daemon", "bus"])
    def test_the_first_run_takes_silence_for_no_empty_one(self, desktop, native, who):
        bus = desktop.start_bus()
        daemon = desktop.gnome_keyring()
        cli = native(None)
        os.kill({"daemon": daemon, "bus": bus}[who].pid, signal.SIGSTOP)
        fails(cli, "list", says="does not answer")
        assert not (desktop.home / ".awsvault" / "state.json").exists()

    def test_a_signal_while_a_keystore_is_looked_at_chooses_no_other(self, desktop, native):
        bus = desktop.start_bus()
        cli = native(None)
        told = desktop.folder / "told"
        os.mkfifo(told)
        tool = desktop.folder / "bin" / "busctl"
        tool.parent.mkdir(exist_ok=True)
        tool.write_text(f"#!/bin/sh\necho > {told}\nexec sleep 1000\n")
        tool.chmod(0o755)
        cli.environ["PATH"] = f"{tool.parent}:{cli.environ['PATH']}"
        process = cli.popen("add", "prod", "--env", env=KEYS)
        told.read_text()
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 128 + signal.SIGTERM
        assert not (desktop.home / ".awsvault").exists()
        assert bus.poll() is None

    def test_the_table_waits_for_a_silent_bus_once(self, desktop, native):
        bus = desktop.start_bus()
        os.kill(bus.pid, signal.SIGSTOP)
        cli = native(None)
        started = time.monotonic()
        result = cli.run("backends", "-v", check=0)
        assert time.monotonic() - started < 5  # waiting twice for each of two would be nine
        assert result.out.count("the D-Bus session bus does not answer") == 2

    def test_a_dismissed_prompt(self, secret_service, desktop, fake_aws):
        cli = secret_service
        cli.run("add", "prod", "--env", env=KEYS, check=0)
        go = GoSecretService(desktop)
        go.lock(go.path)
        # A display, and nothing that could show a prompt on it.
        env = {"DISPLAY": ":99"}
        fails(cli, "exec", "prod", "--", "true", env=env, says="its password was not given")
        assert fake_aws.count() == 0
        fails(
            cli,
            "--no-input",
            "exec",
            "prod",
            "--",
            "true",
            env=env,
            code=3,
            says="is locked, and nobody",
        )

    def test_a_keyring_without_a_password_opens_by_itself(self, desktop, native):
        desktop.start_bus()
        desktop.clear_keyring()
        desktop.gnome_keyring(collection=False, unlock=False)
        cli = native("secret-service")
        cli.run("add", "prod", "--env", env=KEYS, check=0)
        assert cli.run("list", "--credentials", check=0).out == "prod\n"
        assert cli.exec_environ("prod", "-n")["AWS_ACCESS_KEY_ID"] == KEY_ID

    def test_no_keyring_at_all(self, desktop, native):
        desktop.start_bus()
        desktop.gnome_keyring(collection=False, unlock=False)
        cli = native("secret-service")
        says = "no keyring 'awsvault' and no default one"
        fails(cli, "add", "prod", "--env", env=KEYS, says=says)
        assert cli.run("list", "--credentials", check=0).out == ""

    def test_an_item_that_is_too_large(self, secret_service):
        cli = secret_service
        env = {**KEYS, "AWS_SECRET_ACCESS_KEY": "x" * 9000}
        # Before the error a line warns of a secret of this length.
        result = cli.run("add", "prod", "--env", env=env, check=1)
        assert re.search("error: .*too large for secret-tool: .* 8191", result.err)
        assert cli.run("list", "--credentials", check=0).out == ""


class TestKWallet:
    def test_disabled(self, desktop, native):
        need("kwalletd5", "kwallet-query", "busctl")
        desktop.start_bus(services={"org.kde.kwalletd5": "kwalletd5"})
        desktop.configure_kwallet(enabled=False)
        cli = native("kwallet")
        fails(cli, "list", says="KWallet is disabled")

    @commands
    def test_hung(self, desktop, native, command):
        desktop.start_bus()
        daemon = desktop.kwalletd()
        cli = native("kwallet")
        cli.run("add", "prod", "--env", env=KEYS, check=0)
        os.kill(daemon.pid, signal.SIGSTOP)
        fails(cli, *command, env=KEYS, says="KWallet does not answer")

    @commands
    def test_closed(self, desktop, native, fake_aws, command):
        desktop.start_bus()
        desktop.kwalletd(password="wallet password")
        cli = native("kwallet")
        cli.run("add", "prod", "--env", env=KEYS, check=0)
        desktop.kwallet("close", "sb", "aws-vault", True)
        fails(cli, *command, env=KEYS, code=3, says="the wallet 'aws-vault' is locked, and nobody")
        assert fake_aws.count() == 0

    def test_no_wallet(self, desktop, native):
        desktop.start_bus()
        desktop.kwalletd(wallet="")
        cli = native("kwallet")
        fails(cli, "add", "prod", "--env", env=KEYS, says="there is no wallet 'aws-vault'")
        assert cli.run("list", "--credentials", check=0).out == ""


class TestKeychain:
    @pytest.fixture
    def keychain(self, cli, desktop):
        folder = desktop.folder / "fakes"
        folder.mkdir()
        fakes = Fakes(folder)
        fakes.install("security", source="fake_security.py")
        cli.home = fakes.home
        cli.environ.update(fakes.environ)
        cli.environ["AWS_VAULT_BACKEND"] = "keychain"
        cli.config(CONFIG)
        cli.fakes = fakes
        yield cli
        fakes.close()

    def security(self, cli, *arguments):
        path = str(cli.home / "Library" / "Keychains" / "aws-vault.keychain")
        argv = [str(cli.fakes.bin / "security"), *arguments, path]
        subprocess.run(argv, env=cli.environment(), check=True, timeout=30)

    def create(self, cli):
        self.security(cli, "create-keychain", "-p", "password")

    @pytest.mark.parametrize(
        ("ui", "code", "says"),
        [
            ("none", 3, "is locked, or its question can't be shown here"),
            ("cancel", 1, "its question was dismissed"),
            ("hang", 3, "waits for an answer to its question"),
        ],
    )
    def test_locked(self, keychain, fake_aws, ui, code, says):
        cli = keychain
        self.create(cli)
        cli.run("add", "prod", "--env", env=KEYS, check=0)
        self.security(cli, "lock-keychain")
        env = {"FAKE_SECURITY_UI": ui, **KEYS}
        result = fails(cli, "exec", "prod", "--", "/bin/true", env=env, code=code, says=says)
        if code == 3:
            assert "hint: security unlock-keychain" in result.err
        assert cli.run("list", "--credentials", env=env, check=0).out == "prod\n"
        assert fake_aws.count() == 0

    @pytest.mark.parametrize(
        ("status", "code", "says"),
        [
            (36, 3, "is locked, or its question can't be shown"),
            (51, 1, "wrong password"),
            (128, 1, "its question was dismissed"),
            (50, 1, "does not exist"),
            (1, 1, "can't be used"),
        ],
    )
    def test_refused(self, keychain, fake_aws, status, code, says):
        cli = keychain
        self.create(cli)
        cli.run("add", "prod", "--env", env=KEYS, check=0)
        cli.fakes.script("security", f"exit {status}")
        fails(cli, "exec", "prod", "--", "/bin/true", code=code, says=says)
        fails(cli, "add", "prod", "--env", env=KEYS, code=code, says=says)
        assert fake_aws.count() == 0

    def test_what_security_echoes_is_not_shown(self, keychain):
        cli = keychain
        self.create(cli)
        cli.fakes.script(
            "security",
            'case "$1" in -i) echo "unknown command $(/bin/cat)" >&2; exit 1;; '
            "find-generic-password) exit 44;; esac",
        )
        result = cli.run("add", "prod", "--env", env=KEYS, check=1)
        assert SECRET not in result.err
        assert "can't be used" in result.err

    def test_a_new_keychain_needs_a_person(self, keychain):
        cli = keychain
        fails(cli, "add", "prod", "--env", env=KEYS, code=3, says="Password for the new keychain")
        terminal = cli.terminal("add", "prod", "--env", env=KEYS)
        terminal.expect("Password for the new keychain aws-vault.keychain-db: ")
        terminal.send("it's a password\n")
        terminal.expect("The same password again: ")
        terminal.send("it's a password\n")
        assert terminal.wait() == 0
        assert cli.run("list", "--credentials", check=0).out == "prod\n"
        assert "it's a password" not in json.dumps(cli.fakes.calls())


class TestPass:
    @pytest.fixture
    def store(self, native, desktop):
        need("pass", "gpg")
        folder = desktop.folder / "gpg"
        desktop.environ["GNUPGHOME"] = str(folder)
        yield native("pass")
        environ = {**desktop.environ}
        subprocess.run(["gpgconf", "--kill", "all"], env=environ, check=False, timeout=30)

    def test_no_store(self, store):
        fails(store, "add", "prod", "--env", env=KEYS, says="there is no password store in")

    def test_no_pinentry(self, store, desktop, fake_aws):
        folder = desktop.folder / "gpg"
        key = make_gpg_key(folder, desktop.environ, passphrase="gpg passphrase")
        (folder / "gpg-agent.conf").write_text("pinentry-program /nowhere/pinentry\n")
        environ = desktop.environ
        subprocess.run(["pass", "init", key], env=environ, check=True, capture_output=True)
        store.run("add", "prod", "--env", env=KEYS, check=0)
        subprocess.run(["gpgconf", "--kill", "all"], env=environ, check=True, timeout=30)
        says = "pass can't ask for its key's passphrase here"
        fails(store, "exec", "prod", "--", "true", code=3, says=says)
        assert store.run("list", "--credentials", check=0).out == "prod\n"
        assert fake_aws.count() == 0

    @pytest.mark.parametrize("damage", [b"", b"junk", None], ids=["empty", "junk", "cut"])
    def test_damaged_items_are_named_and_a_damaged_session_is_made_again(
        self, store, desktop, damage
    ):
        key = make_gpg_key(desktop.folder / "gpg", desktop.environ)
        subprocess.run(["pass", "init", key], env=desktop.environ, check=True, capture_output=True)
        store.config("[profile prod]\n")
        store.run("add", "prod", "--env", env=KEYS, check=0)
        store.run("exec", "prod", "--", "true", check=0)
        folder = desktop.home / ".password-store"
        (session,) = [path for path in folder.glob("*.gpg") if path.name != "prod.gpg"]
        for path in (session, folder / "prod.gpg"):
            path.write_bytes(path.read_bytes()[:-20] if damage is None else damage)
        says = "stored item 'prod' is damaged: gpg"
        result = store.run("exec", "prod", "--", "true", check=1)
        assert re.search(says, result.err), str(result)
        store.run("add", "prod", "--env", env=KEYS, check=0)
        session.write_bytes(b"junk" if damage is None else damage)
        result = store.run("exec", "prod", "--", "true", check=0)

    def test_an_item_that_can_t_be_read_is_not_called_damaged(self, store, desktop, tmp_path):
        key = make_gpg_key(desktop.folder / "gpg", desktop.environ)
        subprocess.run(["pass", "init", key], env=desktop.environ, check=True, capture_output=True)
        store.run("add", "prod", "--env", env=KEYS, check=0)
        tool = tmp_path / "pass"
        tool.write_text(
            "#!/bin/sh\necho \"gpg: can't open 'prod.gpg': Permission denied\" >&2\n"
            "echo 'gpg: decrypt_message failed: Permission denied' >&2\nexit 2\n"
        )
        tool.chmod(0o755)
        fails(store, f"--pass-cmd={tool}", "exec", "prod", "-n", "--", "true",
              says="can't be read or written")  # fmt: skip

    def test_somebody_elses_key(self, store, desktop):
        folder = desktop.folder / "gpg"
        key = make_gpg_key(folder, desktop.environ)
        environ = desktop.environ
        subprocess.run(["pass", "init", key], env=environ, check=True, capture_output=True)
        store.run("add", "prod", "--env", env=KEYS, check=0)
        (desktop.folder / "other").mkdir(mode=0o700)
        env = {"GNUPGHOME": str(desktop.folder / "other")}
        try:
            fails(store, "exec", "prod", "--", "true", env=env, says="none of your keys opens it")
        finally:
            subprocess.run(["gpgconf", "--kill", "all"], env={**environ, **env}, check=False)
