"""Real keystore daemons on a bus and in a home of their own, as children that end with the test."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import jeepney
from jeepney.io.blocking import open_dbus_connection

from tests.needs import need

SECRETS = "org.freedesktop.secrets"
ROOT = "/org/freedesktop/secrets"
BUS_CONFIG = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>session</type>
  <listen>unix:path={folder}/bus</listen>
  <auth>EXTERNAL</auth>
  <servicedir>{folder}/services</servicedir>
  <policy context="default">
    <allow send_destination="*" eavesdrop="true"/>
    <allow eavesdrop="true"/>
    <allow own="*"/>
    <allow user="*"/>
  </policy>
</busconfig>
"""
KWALLETRC = """[Wallet]
Enabled={enabled}
First Use=false
Leave Open=true
Prompt on Open=false

[org.freedesktop.secrets]
apiEnabled=false
"""


class Desktop:
    """A home, a session bus and the daemons that a test starts on it.

    The home's path is short, because a socket's path may have 107 bytes only.
    """

    def __init__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="ks-"))
        self.home = self.folder / "home"
        self.runtime = self.folder / "run"
        for path in (self.home, self.runtime):
            path.mkdir(mode=0o700)
        self.children = []
        self.connections = []
        self.environ = {
            "HOME": str(self.home),
            "XDG_RUNTIME_DIR": str(self.runtime),
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
        }

    @property
    def address(self):
        return f"unix:path={self.folder}/bus"

    def start(self, argv, **popen):
        child = subprocess.Popen(
            argv, env=self.environ, stderr=subprocess.DEVNULL, start_new_session=True, **popen
        )
        self.children.append(child)
        return child

    def start_bus(self, services=None):
        """A bus that starts nothing by itself but `services` (name -> command): a prompt fails at
        once."""
        need("dbus-daemon")
        folder = self.folder / "services"
        folder.mkdir()
        for name, command in (services or {}).items():
            path = shutil.which(command)
            text = f"[D-BUS Service]\nName={name}\nExec={path}\n"
            (folder / f"{name}.service").write_text(text)
        self.environ["QT_QPA_PLATFORM"] = "offscreen"
        config = self.folder / "bus.conf"
        config.write_text(BUS_CONFIG.format(folder=self.folder))
        argv = ["dbus-daemon", "--nofork", f"--config-file={config}", "--print-address=1"]
        bus = self.start(argv, stdout=subprocess.PIPE)
        assert bus.stdout.readline().startswith(b"unix:"), "the bus did not start"
        bus.stdout.close()
        self.environ["DBUS_SESSION_BUS_ADDRESS"] = self.address
        return bus

    def connect(self):
        connection = open_dbus_connection(bus=self.address)
        self.connections.append(connection)
        return connection

    def start_named(self, name, argv, password=b""):
        """Start a daemon and wait until it owns its bus name."""
        connection = self.connect()
        rule = jeepney.MatchRule(
            type="signal", interface="org.freedesktop.DBus", member="NameOwnerChanged"
        )
        rule.add_arg_condition(0, name)
        bus = jeepney.message_bus
        with connection.filter(rule) as changes:
            connection.send_and_get_reply(bus.AddMatch(rule))
            daemon = self.start(argv, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
            daemon.stdin.write(password)
            daemon.stdin.close()
            while not connection.send_and_get_reply(bus.NameHasOwner(name)).body[0]:
                connection.recv_until_filtered(changes, timeout=20)
        return daemon

    def gnome_keyring(self, *, collection=True, unlock=True):
        """gnome-keyring with an unlocked default keyring and, if wanted, one named awsvault."""
        need("gnome-keyring-daemon", "secret-tool", "busctl")
        argv = ["gnome-keyring-daemon", "--foreground", "--components=secrets"]
        argv += [f"--control-directory={self.runtime}", *(["--unlock"] if unlock else [])]
        daemon = self.start_named(SECRETS, argv, b"login password" if unlock else b"")
        if collection:
            GoSecretService(self).create_collection("awsvault", "keyring password")
        return daemon

    def restart_locked(self, daemon):
        """The same keyrings in another daemon, as after a login without a password."""
        daemon.terminate()
        daemon.wait(30)
        self.gnome_keyring(collection=False, unlock=False)

    def clear_keyring(self):
        """Put down a keyring named awsvault that has no password, in clear text."""
        keyrings = self.home / ".local" / "share" / "keyrings"
        keyrings.mkdir(parents=True, exist_ok=True)
        (keyrings / "awsvault.keyring").write_text("[keyring]\ndisplay-name=awsvault\n")

    def kwalletd(self, *, password="", wallet="aws-vault"):
        """kwalletd5 with an open wallet, made as PAM makes one; none if `wallet` is empty."""
        need("kwalletd5", "kwallet-query", "busctl")
        self.configure_kwallet(enabled=True)
        daemon = self.start_named("org.kde.kwalletd5", ["kwalletd5"])
        if wallet:
            self.open_wallet(wallet, password)
        return daemon

    def configure_kwallet(self, *, enabled):
        config = self.home / ".config"
        config.mkdir(exist_ok=True)
        (config / "kwalletrc").write_text(KWALLETRC.format(enabled=str(enabled).lower()))

    def open_wallet(self, wallet, password):
        folder = self.home / ".local" / "share" / "kwalletd"
        folder.mkdir(parents=True, exist_ok=True)
        salt = folder / f"{wallet}.salt"
        if not salt.exists():
            salt.write_bytes(os.urandom(56))
        key = hashlib.pbkdf2_hmac("sha512", password.encode(), salt.read_bytes(), 50000, 56)
        self.kwallet("pamOpen", "sayi", wallet, key, 0)

    def kwallet(self, method, signature="", *arguments):
        """Call one of kwalletd5's methods."""
        address = jeepney.DBusAddress("/modules/kwalletd5", "org.kde.kwalletd5", "org.kde.KWallet")
        return self._call(address, method, signature, arguments)

    def secrets(self, path, method, signature="", *arguments, connection=None):
        """Call `interface.method` of an object of the Secret Service."""
        interface, _, member = method.rpartition(".")
        address = jeepney.DBusAddress(path, SECRETS, interface)
        return self._call(address, member, signature, arguments, connection)

    def _call(self, address, method, signature, arguments, connection=None):
        connection = connection or self.connect()
        message = jeepney.new_method_call(address, method, signature or None, arguments)
        reply = connection.send_and_get_reply(message, timeout=20)
        if reply.header.message_type is jeepney.MessageType.error:
            raise RuntimeError(f"{method}: {reply.body}")
        return reply.body[0] if reply.body else None

    def close(self):
        for connection in self.connections:
            with contextlib.suppress(OSError):
                connection.close()
        for child in reversed(self.children):
            for number in (signal.SIGCONT, signal.SIGKILL):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child.pid, number)
            child.wait(30)
        shutil.rmtree(self.folder, ignore_errors=True)


class GoSecretService:
    """The Secret Service as aws-vault uses it, over D-Bus."""

    def __init__(self, desktop, collection="awsvault"):
        self.desktop = desktop
        self.path = f"{ROOT}/collection/{collection}"
        self.connection = desktop.connect()
        self.session = self._open_session()

    def _open_session(self):
        address = jeepney.DBusAddress(ROOT, SECRETS, "org.freedesktop.Secret.Service")
        arguments = ("plain", ("s", ""))
        message = jeepney.new_method_call(address, "OpenSession", "sv", arguments)
        return self.connection.send_and_get_reply(message).body[1]

    def call(self, path, method, signature="", *arguments):
        return self.desktop.secrets(path, method, signature, *arguments, connection=self.connection)

    def set(self, key, wrapper, *, attributes=None, content_type="application/json"):
        """CreateItem as aws-vault calls it: the label is the key, one attribute."""
        properties = {
            "org.freedesktop.Secret.Item.Label": ("s", key),
            "org.freedesktop.Secret.Item.Attributes": ("a{ss}", attributes or {"profile": key}),
        }
        secret = (self.session, b"", wrapper.encode(), content_type)
        method = "org.freedesktop.Secret.Collection.CreateItem"
        return self.call(self.path, method, "a{sv}(oayays)b", properties, secret, True)

    def get(self, key):
        """The wrapper that aws-vault would read: the first item of that profile."""
        method = "org.freedesktop.Secret.Collection.SearchItems"
        found = self.call(self.path, method, "a{ss}", {"profile": key})
        if not found:
            return None
        method = "org.freedesktop.Secret.Item.GetSecret"
        return self.call(found[0], method, "o", self.session)[2].decode()

    def keys(self):
        """The labels of the collection's items, as aws-vault lists them."""
        items = self.property(self.path, "Collection", "Items")
        return sorted(self.property(item, "Item", "Label") for item in items)

    def property(self, path, interface, name):
        method = "org.freedesktop.DBus.Properties.Get"
        return self.call(path, method, "ss", f"org.freedesktop.Secret.{interface}", name)[1]

    def attributes(self, key):
        method = "org.freedesktop.Secret.Collection.SearchItems"
        found = self.call(self.path, method, "a{ss}", {"profile": key})
        return [self.property(path, "Item", "Attributes") for path in found]

    def create_collection(self, label, password):
        """A collection behind a password, without a prompt."""
        interface = "org.gnome.keyring.InternalUnsupportedGuiltRiddenInterface"
        properties = {"org.freedesktop.Secret.Collection.Label": ("s", label)}
        secret = (self.session, b"", password.encode(), "text/plain")
        method = f"{interface}.CreateWithMasterPassword"
        return self.call(ROOT, method, "a{sv}(oayays)", properties, secret)

    def lock(self, path):
        self.call(ROOT, "org.freedesktop.Secret.Service.Lock", "ao", [path])


class GoKWallet:
    """KWallet as aws-vault uses it: stream entries in one folder."""

    def __init__(self, desktop, wallet="aws-vault"):
        self.desktop = desktop
        self.connection = desktop.connect()
        self.handle = self.call("open", "sxs", wallet, 0, "aws-vault")

    def call(self, method, signature, *arguments):
        return self.desktop.kwallet(method, signature, *arguments)

    def set(self, key, wrapper):
        arguments = (self.handle, "aws-vault", key, wrapper.encode(), "aws-vault")
        self.call("writeEntry", "issays", *arguments)

    def get(self, key):
        return bytes(self.call("readEntry", "isss", self.handle, "aws-vault", key, "aws-vault"))

    def type(self, key):
        return self.call("entryType", "isss", self.handle, "aws-vault", key, "aws-vault")

    def keys(self):
        return sorted(self.call("entryList", "iss", self.handle, "aws-vault", "aws-vault"))


def make_gpg_key(folder, environ, passphrase=""):
    """A gpg key, without a passphrase if none is given, in a home of its own; returns its id."""
    need("gpg", "gpgconf")
    folder.mkdir(mode=0o700)
    argv = ["gpg", "--batch", "--quiet", "--pinentry-mode", "loopback", "--passphrase", passphrase]
    argv += ["--quick-generate-key", "awsvault-test@example.com", "future-default", "default", "0"]
    environ = {**environ, "GNUPGHOME": str(folder)}
    subprocess.run(argv, env=environ, check=True, capture_output=True, timeout=60)
    return "awsvault-test@example.com"
