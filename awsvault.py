#!/usr/bin/env python3
"""awsvault: keep AWS keys in a keystore, hand out only short-lived credentials.

One module, read from top to bottom; a room uses only names of its own or of a room above it:

    Basics        limits, errors, text that is safe to show
    Values        the words: Secret, Credentials, SessionKey, durations and times
    World         the only doors out: tools, files, terminal, clock, locks, replacing the process
    Keystores     named blobs at rest: Keystore.get/set/delete/keys, one class per backend
    Vault         what the blobs mean: credentials and sessions over a keystore
    Config        ~/.aws/config, environment, flags -> ProfileConfig; SETTINGS is a table
    Prompts       how an MFA code is asked for; PROMPTERS is a table
    AWS           one call(service, operation, ...); the only place that imports botocore
    Providers     one class per way to get credentials: Provider.retrieve() -> Credentials
    Chain         which providers, in what order; pure: opens no door
    Servers       credentials over HTTP: container endpoint, instance metadata
    Child         environment in, process out
    Key life      rotate, import, rekey: how stored keys are renewed and moved
    Commands      one function per subcommand, returns an exit status
    Command line  COMMANDS table, argv -> command, errors -> one line and an exit code
"""

from __future__ import annotations

import errno
import gc
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    import ast
    import binascii
    import configparser
    import csv
    import ctypes
    import datetime
    import difflib
    import fcntl
    import hmac
    import json
    import pwd
    import re
    import resource
    import select
    import shlex
    import signal
    import socket
    import struct
    import subprocess
    import termios
    import threading
    import time
    import traceback
    import warnings
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from types import TracebackType
    from typing import Any, NoReturn, Protocol, TypeVar

    from typing_extensions import Self, dataclass_transform

    class Bundle(Protocol):
        """What the packed program knows of its own file (made by __main__.py)."""

        path: str
        build_id: str

        def load_libraries(self) -> None: ...
        def manifest(self) -> dict[str, str]: ...
        def cleanup(self) -> None: ...
        def verify(self) -> list[str]: ...
        def sha256(self) -> str: ...

    T = TypeVar("T")
    V = TypeVar("V", bound="Value")
else:
    try:
        # Before Python 3.12 datetime loads another implementation first, for a millisecond.
        import _datetime as datetime
    except ImportError:
        import datetime

    def dataclass_transform(**_options):
        """Stand in for the type checker's decorator: at run time it does nothing."""
        return lambda cls: cls

    # Modules that many starts do without: together they would take 40 ms of each.
    LAZY = (
        "argparse ast binascii configparser ctypes difflib fcntl hmac json pwd re resource select"
        " shlex signal socket struct subprocess termios threading time traceback warnings csv"
    )

    class LazyModule:
        """Stands for a module until something of it is used, and then leaves its place to it."""

        def __init__(self, name):
            self.__dict__["name"] = name

        def __getattr__(self, attribute):
            name = self.__dict__["name"]
            module = globals()[name] = __import__(name)
            return getattr(module, attribute)

    globals().update({name: LazyModule(name) for name in LAZY.split()})


__version__ = "1.0.0"

# ======================================================================
# Basics
# ======================================================================
# Limits, errors, text that is safe to show. Knows nothing of AWS or of keystores.

MAX_CONFIG_BYTES = 16 * 1024 * 1024
MAX_SECTION_BYTES = 128 * 1024
MAX_SECTIONS = 50_000
MAX_ENVIRONMENT_BYTES = 16 * 1024 * 1024
MAX_ITEM_BYTES = 1024 * 1024
MAX_TOOL_OUTPUT = 16 * MAX_ITEM_BYTES
MAX_TOOL_ERRORS = 16384
MAX_PASSPHRASE_BYTES = 64 * 1024
MAX_FILE_NAME_BYTES = 255
LOCK_WAIT_SECONDS = 120.0
QUIET_WAIT_SECONDS = 1.0
MAX_SHARED_TEXT = 1000
MAX_QUOTED = 200
MAX_CHAIN = 200
PROMPT_WAIT_SECONDS = 90.0
TOOL_WAIT_SECONDS = 30.0
BUS_WAIT_SECONDS = 1.8
BUS_PROBE_SECONDS = 0.3
BUS_ATTEMPTS = 5

EXIT_USAGE = 2
EXIT_NEEDS_USER = 3
EXIT_BUG = 70
EXIT_NOT_EXECUTABLE = 126
EXIT_NOT_FOUND = 127
EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141


class AwsVaultError(Exception):
    """What went wrong, for the user: one line, at most one hint, and an exit code."""

    exit_code = 1

    def __init__(self, message: str, hint: str = "", exit_code: int | None = None) -> None:
        self.message = without_url_secrets(message)
        super().__init__(self.message)
        self.hint = without_url_secrets(hint)
        if exit_code is not None:
            self.exit_code = exit_code


class UsageError(AwsVaultError):
    """The command line, a variable or the configuration asks for what can't be."""

    exit_code = EXIT_USAGE


class ConfigError(UsageError):
    """The AWS config file can't be read, or says what can't be."""


class NeedsUser(AwsVaultError):
    """This process would have to ask the user, and can't."""

    exit_code = EXIT_NEEDS_USER


class BadText(ValueError):
    """What a setting says can't be read: the message completes "'TEXT' is ...", ``hint`` helps."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class KeystoreError(AwsVaultError):
    """A keystore is locked, broken or refuses; never the same as a missing item."""


class ItemNotFound(KeystoreError):
    """There is no item of that name: the only error that means "not there"."""


class LockedKeystore(KeystoreError):
    """A keystore is locked, and only the user, who can't be asked here, can unlock it."""

    exit_code = EXIT_NEEDS_USER


class WrongPassphrase(KeystoreError):
    """A passphrase opens nothing: typed again it may."""


class DamagedItem(KeystoreError):
    """One item can't be read though the keystore works."""


class EndedCredentials(KeystoreError):
    """Stored credentials that had an end are past it."""


class ForeignEntry(DamagedItem):
    """What stands under an item's name is not in aws-vault's form: another program's, or damaged
    beyond telling. It is never replaced or removed."""


class ToolError(AwsVaultError):
    """A program that was started to help is missing, failed, or took too long."""


class ToolMissing(ToolError):
    """The program is not installed."""


class ToolTimeout(ToolError):
    """The program did not end in time, and was killed."""


class AwsError(AwsVaultError):
    """AWS could not be reached, or refused; ``code`` is AWS's word for it, if it gave one."""

    def __init__(self, message: str, hint: str = "", code: str = "") -> None:
        super().__init__(message, hint)
        self.code = code


BIDI_CONTROLS = frozenset(
    "\u061c\u200e\u200f\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
)


def is_control(character: str) -> bool:
    """Return True if a character moves the cursor, hides text or turns its direction."""
    return (
        character < " "
        or "\x7f" <= character <= "\x9f"
        or character in BIDI_CONTROLS
        or "\ud800" <= character <= "\udfff"
    )


class Printable(str):
    """Text that is safe to show; its repr (``!r`` in a message) only puts it in quotes."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"'{self}'"


def printable(text: object) -> Printable:
    r"""Make foreign text safe for a terminal: control and bidi characters become ``\xNN``."""
    return Printable(
        "".join(
            f"\\x{ord(character):02x}" if is_control(character) else character
            for character in str(text)
        )
    )


def shortened(text: str) -> Printable:
    """Make a setting's bad value safe to quote in one line: of a long one, the beginning."""
    return printable(text if len(text) <= MAX_QUOTED else f"{text[:MAX_QUOTED]}...")


def shown_url(url: str) -> str:
    """Return scheme, host and port of a URL: the rest of it may hold a password or an API key.

    Of what is no URL (a bad port, a password with a slash in it) the scheme stays.
    """
    host = r"(?:\[[0-9A-Fa-f:.%]*\]|[^][/?#@:\s]*)(?::[0-9]{1,5})?"
    # With an @ behind the host, that may be a user's name, and its port a password.
    pattern = rf"(?s)((?:{SCHEME})?)(?:(?:[^/?#]*@)?({host})(?:[/?#][^@]*)?\Z)?"
    scheme, rest = re.findall(pattern, url)[0]
    return printable(f"{scheme}{rest or '...'}")


SCHEME = r"[A-Za-z][A-Za-z0-9+.-]*://"


def without_url_secrets(text: str) -> str:
    """Return a text with each URL in it as ``shown_url`` shows it."""
    if "://" not in text:
        return text
    return re.sub(rf"{SCHEME}\S*[^\s'\"<>(),.:;]", lambda url: shown_url(url[0]), text)


def last_line(text: str) -> str:
    """Return the last line that says something, fit to be shown."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return printable(lines[-1][:300]) if lines else ""


def closest(name: str, names: Iterable[str], cutoff: float = 0.65) -> str:
    """Return a hint that names the few most similar of ``names``, or nothing. At a ``cutoff`` of 1
    they are the same."""
    similar = difflib.get_close_matches(name, sorted(names), n=3, cutoff=cutoff)
    return f"did you mean {' or '.join(map(printable, similar))}?" if similar else ""


def decode_percent(text: str) -> str:
    """Turn the ``%HH`` of a path back into bytes; malformed sequences stay."""
    if "%" not in text:
        return text
    decoded = re.sub(
        rb"%([0-9A-Fa-f]{2})", lambda match: bytes([int(match[1], 16)]), os.fsencode(text)
    )
    return os.fsdecode(decoded)


def counted(number: int, what: str) -> str:
    """Return a number with its noun, in the plural but for one."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def os_reason(error: OSError) -> str:
    """Say an operating system's error in its own lower-case words."""
    return (error.strerror or str(error)).lower()


# ======================================================================
# Values
# ======================================================================
# The words of the program. A value never changes; the next one is made from it.


@dataclass_transform(frozen_default=True, kw_only_default=False)
class Value:
    """A frozen record: annotated class attributes are its fields, in order.

    Stands in for a frozen dataclass, whose import alone would double the start-up time.
    """

    _fields: tuple[str, ...] = ()
    _kinds: dict[str, str] = {}  # noqa: RUF012
    _classes: dict[str, type[Value]] = {}  # noqa: RUF012

    def __init_subclass__(cls) -> None:
        own = {name: kind for name, kind in cls.__annotations__.items() if name[0] != "_"}
        cls._kinds = {**cls._kinds, **own}
        cls._fields = tuple(cls._kinds)
        Value._classes[cls.__name__] = cls

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if len(args) > len(self._fields):
            raise TypeError(f"{type(self).__name__} takes {len(self._fields)} values")
        values = dict(zip(self._fields, args))
        for name, value in kwargs.items():
            if name in values or name not in self._fields:
                raise TypeError(f"{type(self).__name__}: unexpected {name}")
            values[name] = value
        for name in self._fields:
            if name not in values and not hasattr(type(self), name):
                raise TypeError(f"{type(self).__name__}: {name} is missing")
        self.__dict__.update(values)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"{type(self).__name__} is frozen")

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self._values() == other._values()  # type: ignore[attr-defined]

    def __hash__(self) -> int:
        return hash((type(self), self._values()))

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={getattr(self, name)!r}" for name in self._fields)
        return f"{type(self).__name__}({shown})"

    def _values(self) -> tuple[object, ...]:
        return tuple(getattr(self, name) for name in self._fields)

    def replace(self, **changes: Any) -> Self:
        """Return a copy with some fields changed."""
        return type(self)(**{**{name: getattr(self, name) for name in self._fields}, **changes})

    def members(self, names: Mapping[str, str] | None = None) -> dict[str, Any]:
        """Return its fields as members of a JSON object, secrets revealed; a default is left out.

        ``names`` says which fields, in which order, and the name of each one's member.
        """
        return {
            name: encode_member(getattr(self, field))
            for field, name in (names or dict(zip(self._fields, self._fields))).items()
            if not hasattr(type(self), field) or getattr(self, field) != getattr(type(self), field)
        }

    @classmethod
    def from_members(cls, members: object, names: Mapping[str, str] | None = None) -> Self:
        """Read what ``members`` wrote; anything else, whatever it is, is a ValueError.

        A null is a missing member; members of other names are ignored.
        """
        if not isinstance(members, dict):
            raise ValueError("not a JSON object")
        values: dict[str, Any] = {}
        for field, name in (names or dict(zip(cls._fields, cls._fields))).items():
            kind, member = cls._kinds[field], members.get(name)
            if member is None:
                if not hasattr(cls, field):
                    if not kind.endswith(" | None"):
                        raise ValueError(f"{name} is missing")
                    values[field] = None
                continue
            try:
                values[field] = decode_member(kind.removesuffix(" | None"), member)
            except (ValueError, OverflowError):
                # What could not be read may be a secret: it is not quoted.
                raise ValueError(f"{name} can't be read") from None
        return cls(**values)


def encode_member(value: object) -> Any:
    """Return a field's value as JSON has it."""
    if isinstance(value, Value):
        return value.members()
    if isinstance(value, Secret):
        return value.reveal()
    if isinstance(value, tuple):
        return [encode_member(part) for part in value]
    if isinstance(value, datetime.datetime):
        return format_time(value)
    return int(value.total_seconds()) if isinstance(value, datetime.timedelta) else value


def decode_member(kind: str, member: Any) -> Any:
    """Read a field of this annotation from its JSON (ValueError, OverflowError)."""
    if kind in Value._classes:
        return Value._classes[kind].from_members(member)
    if kind.startswith("tuple["):
        each = kind[6:-1].removesuffix(", ...")
        count = len(member) if isinstance(member, list) else -1
        kinds = [each] * count if kind.endswith(", ...]") else each.split(", ")
        if len(kinds) != count:
            raise ValueError(f"no {kind}")
        return tuple(map(decode_member, kinds, member))
    json_type, read = MEMBER_KINDS[kind]
    if type(member) is not json_type:
        raise ValueError(f"no {kind}")
    return read(member)


def check_text(text: str) -> str:
    """Return a text that the system can take; ValueError for a NUL, or half a character.

    The surrogates that stand for single bytes (PEP 383) are texts of this system.
    """
    if "\0" in text:
        raise ValueError("a NUL")
    text.encode("utf-8", "surrogateescape")
    return text


def parse_int(text: str, least: int, most: int) -> int:
    """Read a whole number of ASCII digits within bounds; ValueError otherwise."""
    # The length first: Python needs quadratic time, or refuses, for thousands of digits.
    if not (text.isascii() and text.isdigit() and len(text) < 20 and least <= int(text) <= most):
        raise ValueError(f"no number from {least} to {most}")
    return int(text)


class Secret:
    """Text that must not be shown: no repr, format, JSON or pickle of it tells what it is."""

    __slots__ = ("_data",)

    def __init__(self, value: str | bytes) -> None:
        self._data = (
            value.encode("utf-8", "surrogateescape") if isinstance(value, str) else bytes(value)
        )

    def reveal(self) -> str:
        """Return the text itself."""
        return self._data.decode("utf-8", "surrogateescape")

    def reveal_bytes(self) -> bytes:
        """Return the text as UTF-8."""
        return self._data

    def stripped(self) -> Secret:
        """Return it without white space around it."""
        return Secret(self._data.strip())

    def without_newline(self) -> Secret:
        """Return it without one newline at its end, as programs print one."""
        for ending in (b"\r\n", b"\n"):
            if self._data.endswith(ending):
                return Secret(self._data[: -len(ending)])
        return self

    def __bool__(self) -> bool:
        return bool(self._data)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(self._data, other._data)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return "Secret(...)"

    def __format__(self, spec: str) -> str:
        return repr(self)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is not pickled")


class Credentials(Value):
    """What signs a request. Only temporary ones have a token; ``expiration`` is UTC, or None."""

    access_key_id: str
    secret_access_key: Secret
    session_token: Secret | None = None
    expiration: datetime.datetime | None = None
    account_id: str = ""

    @classmethod
    def from_members(cls, members: object, names: Mapping[str, str] | None = None) -> Self:
        """Read credentials; ValueError also for an empty key, or for one that no request can
        carry."""
        if isinstance(members, dict):
            # aws-vault writes an empty token for none.
            members = {name: member for name, member in members.items() if member != ""}
        found = super().from_members(members, names)
        named = f"{found.access_key_id}{found.account_id}"
        token = found.session_token.reveal_bytes() if found.session_token else b""
        text = named + token.decode()
        if not named.isascii() or any(
            ord(character) < 32 or character == "\x7f" for character in text
        ):
            raise ValueError("no header can carry it")
        return found


UTC = datetime.timezone.utc
# What STS calls them, and a stored session too; a stored long-lived key has other names.
SESSION_MEMBERS = {
    "access_key_id": "AccessKeyId",
    "expiration": "Expiration",
    "secret_access_key": "SecretAccessKey",
    "session_token": "SessionToken",
    "account_id": "AccountId",
}
KEY_MEMBERS = {
    "access_key_id": "AccessKeyID",
    "secret_access_key": "SecretAccessKey",
    "session_token": "SessionToken",
    "expiration": "Expires",
}


def session_credentials(members: object) -> Credentials:
    """Read temporary credentials as STS and stored sessions have them (ValueError)."""
    found = Credentials.from_members(members, SESSION_MEMBERS)
    if not found.session_token or not found.expiration:
        raise ValueError("no session")
    return found


SESSION_TYPES = {
    "session": "sts.GetSessionToken",
    "role": "sts.AssumeRole",
    "web identity": "sts.AssumeRoleWithWebIdentity",
    "process": "credential_process",
}
TOKEN_PREFIX = "oidc:"


def b64url(data: bytes) -> str:
    """Encode as URL-safe base64 without padding."""
    return binascii.b2a_base64(data, newline=False).decode().translate({43: 45, 47: 95, 61: None})


def unb64url(text: str) -> bytes:
    """Decode URL-safe base64 without padding; anything else raises ValueError."""
    if not set(text) <= B64URL_ALPHABET or len(text) % 4 == 1:
        raise ValueError("not base64url")
    return binascii.a2b_base64(text.translate({45: 43, 95: 47}) + "=" * (-len(text) % 4))


B64URL_ALPHABET = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")


class SessionKey(Value):
    """The name a session is stored under, in aws-vault's form:
    ``TYPE,b64(PROFILE),b64(THIRD),UNIXTIME``."""

    type: str
    profile: str
    third: str
    expires: int

    def __str__(self) -> str:
        return f"{self.prefix()}{self.expires}"

    def prefix(self) -> str:
        """Return the name up to its time: what all sessions of one kind share."""
        profile, third = (
            b64url(text.encode("utf-8", "surrogateescape")) for text in (self.profile, self.third)
        )
        return f"{self.type},{profile},{third},"

    @classmethod
    def parse(cls, name: str) -> SessionKey | None:
        """Read a stored name; None if it is no session's."""
        fields = name.split(",")
        if len(fields) != 4 or not fields[0] or not fields[1]:
            return None
        try:
            profile, third = (
                unb64url(field).decode("utf-8", "surrogateescape") for field in fields[1:3]
            )
            return cls(fields[0], profile, third, parse_int(fields[3], 0, 2**63 - 1))
        except ValueError:
            return None


def is_old_session(name: str) -> bool:
    """Return True if a name is one of aws-vault's older session forms, which its newer versions
    delete."""
    if "session" not in name:
        return False  # without three patterns, which are to be compiled at each start
    return bool(
        re.search(r"(?s)^.+ session \([0-9]+\)$", name)
        or re.search(r"^session,[A-Za-z0-9_=+/-]*,[A-Za-z0-9_=+/-]*,[0-9]{2,}$", name)
        or re.search(r"^session:[^ :]*:[^ ]*:[0-9]+$", name)
    )


JOURNAL_TYPE = "awsvault.rotate"  # to aws-vault a session that it never uses
JOURNAL_PLACE = "awsvault-journal"
JOURNAL_PROFILE = "awsvault rotate "


def journal_name(profile: str) -> str:
    """Return the name of the item that keeps the journal of a profile's rotation."""
    return str(SessionKey(JOURNAL_TYPE, JOURNAL_PROFILE + profile, "", 2**31 - 1))


def journal_profile(name: str) -> str:
    """Return the profile whose rotation an item is the journal of, or nothing if it is none."""
    session = SessionKey.parse(name)
    is_journal = session is not None and session.type == JOURNAL_TYPE
    return session.profile.partition(JOURNAL_PROFILE)[2] if session and is_journal else ""


def is_credential_name(name: str) -> bool:
    """Return True if a stored name is a profile's, not a session's or an SSO token's."""
    return not (name.startswith(TOKEN_PREFIX) or SessionKey.parse(name) or is_old_session(name))


def check_profile_name(name: str) -> None:
    """Refuse a name that no keystore, or not aws-vault, would keep (UsageError)."""
    reason = ""
    if not name:
        reason = "it is empty"
    elif any(is_control(character) for character in name):
        reason = "it has a control character"
    elif name in (".", ".."):
        reason = "it names a folder"
    elif len(name) > 1 and name[0] == name[-1] and name[0] in "\"'":
        reason = "the AWS config file would drop its quotes"
    elif not is_credential_name(name):
        reason = "aws-vault would take it for a session or a token, and delete it"
    if reason:
        raise UsageError(f"{printable(name)!r} can't be a profile's name: {reason}")


DURATION_UNITS = {
    "ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3,
    "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800,
}  # fmt: skip
MIN_SESSION = datetime.timedelta(minutes=15)
MAX_SESSION = datetime.timedelta(hours=36)
MAX_ROLE = datetime.timedelta(hours=12)
MAX_CHAINED_ROLE = datetime.timedelta(hours=1)
# botocore asks for new credentials when its own have less than 15 minutes left.
RENEW_AHEAD = datetime.timedelta(minutes=16)


def parse_duration(text: str, *, bare_seconds: bool = False) -> datetime.timedelta:
    """Read Go's duration syntax with ``d`` and ``w`` added, in any order: ``90m``, ``1h30m``,
    ``2d``.

    A bare number is seconds if ``bare_seconds``, else BadText. Anything else is a ValueError.
    """
    if len(text) > 40:
        raise ValueError("too long for a duration")
    if text.isascii() and text.isdigit() and len(text) < 10:
        if bare_seconds or int(text) == 0:
            return datetime.timedelta(seconds=int(text))
        raise BadText("a number without a unit", f"write {text}s for seconds")
    part = r"([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h|d|w)"
    if not re.fullmatch(f"[+]?(?:{part})+", text):
        raise ValueError("not a duration such as 90m, 1h30m or 2d")
    seconds = sum(float(number) * DURATION_UNITS[unit] for number, unit in re.findall(part, text))
    if seconds >= 1e9:
        raise ValueError("longer than any session")
    return datetime.timedelta(seconds=seconds)


def is_zero_duration(text: str) -> bool:
    """Return True if a text is a duration of nothing, such as ``0`` or ``0s``."""
    try:
        return not parse_duration(text)
    except ValueError:
        return False


def format_duration(duration: datetime.timedelta | int) -> str:
    """Write a duration, or whole seconds, as Go does: ``59m59s``, ``1h0m0s``, ``-5m3s``."""
    total = duration if isinstance(duration, int) else int(duration.total_seconds())
    sign, (minutes, seconds) = "-" if total < 0 else "", divmod(abs(total), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{sign}{hours}h{minutes}m{seconds}s"
    return f"{sign}{minutes}m{seconds}s" if minutes else f"{sign}{seconds}s"


def parse_time(text: str) -> datetime.datetime:
    """Read RFC 3339 with up to nine fraction digits (cut to six); ValueError otherwise."""
    match = re.fullmatch(
        r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:[.,](\d{1,9}))?(?:Z|([+-])(\d\d):(\d\d))",
        text,
        re.ASCII,
    )
    if not match:
        raise ValueError(f"not an RFC 3339 time: {printable(text)}")
    fraction = (match[7] or "").ljust(6, "0")[:6]
    year, month, day, hour, minute, second = (int(match[i]) for i in range(1, 7))
    moment = datetime.datetime(year, month, day, hour, minute, second, int(fraction), UTC)
    if not match[8]:
        return moment
    offset = datetime.timedelta(hours=int(match[9]), minutes=int(match[10]))
    try:
        return moment - offset if match[8] == "+" else moment + offset
    except OverflowError:
        raise ValueError(f"no time of this calendar: {printable(text)}") from None


def unix_time(seconds: int) -> datetime.datetime:
    """Return the moment so many seconds after the beginning of 1970 (UTC)."""
    return datetime.datetime.fromtimestamp(seconds, UTC)


def format_time(moment: datetime.datetime) -> str:
    """Write a time as ``YYYY-MM-DDTHH:MM:SSZ``, rounded down."""
    return f"{moment.astimezone(UTC).replace(microsecond=0, tzinfo=None).isoformat()}Z"


GO_ESCAPES = {
    ord("<"): "\\u003c",
    ord(">"): "\\u003e",
    ord("&"): "\\u0026",
    0x2028: "\\u2028",
    0x2029: "\\u2029",
}


def go_json(value: object) -> str:
    """Write compact JSON with the escapes of Go's encoder, as aws-vault's items have them."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).translate(GO_ESCAPES)


def parse_json_object(text: str) -> dict[str, Any]:
    """Read a JSON object (RFC 8259: no NaN, no Infinity); ValueError for anything else, without
    quoting what may be a secret."""
    try:
        value = json.loads(text, parse_int=_json_int, parse_constant=_no_json)
    except (ValueError, RecursionError):
        raise ValueError("not JSON") from None
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    return value


def _json_int(text: str) -> int:
    if len(text) > 20:  # more than 64 bits, as far as any of our readers needs to know
        raise ValueError("too long a number")
    return int(text)


def _no_json(_text: str) -> NoReturn:
    raise ValueError("no JSON")


# How a field's annotation is read: the type that JSON has for it, and what makes the value of that.
MEMBER_KINDS: dict[str, tuple[type, Callable[[Any], Any]]] = {
    "str": (str, check_text),
    "int": (int, int),
    "bool": (bool, bool),
    "dict[str, str]": (
        dict,
        lambda members: {check_text(name): decode_member("str", members[name]) for name in members},
    ),
    "Secret": (str, lambda text: Secret(check_text(text))),
    "datetime.datetime": (str, lambda text: parse_time(check_text(text))),
    "datetime.timedelta": (int, lambda seconds: datetime.timedelta(seconds=seconds)),
}


def to_bytes(text: str) -> bytes:
    """Write a text for another process of ours, whatever its locale; bytes of names that are not
    UTF-8 go as they are."""
    return text.encode("utf-8", "surrogateescape")


def to_text(data: bytes | bytearray) -> str:
    """Read what to_bytes() wrote."""
    return data.decode("utf-8", "surrogateescape")


def digest(*parts: str) -> str:
    """Return the hex SHA-256 of some texts, each told apart from the next."""
    sized = "".join(f"{len(part)}:{part}" for part in parts)
    return str(_sha256()(sized.encode("utf-8", "surrogateescape")).hexdigest())


def _sha256() -> Callable[[bytes], Any]:
    # The interpreter's own, where it has one: hashlib loads OpenSSL, which is 2 ms of every start.
    for name in ("_sha2", "_sha256"):
        try:
            found: Callable[[bytes], Any] = __import__(name).sha256
        except ImportError:
            continue
        return found
    from hashlib import sha256

    return sha256


# ======================================================================
# World
# ======================================================================
# The only doors out: tools, files, terminal, clock, locks, replacing the process. Nothing below
# this room touches them by itself, so a test can watch every door, make it fail, or die at it.

# What neither the command nor any program that helps us may see of our own environment. Removed,
# not emptied: several SDKs fail on an empty name.
REMOVED_VARIABLES = frozenset(
    """
    AWS_ACCESS_KEY_ID AWS_ACCESS_KEY AWS_SECRET_ACCESS_KEY AWS_SECRET_KEY AWS_SESSION_TOKEN
    AWS_SECURITY_TOKEN AWS_DELEGATION_TOKEN EC2_ACCESS_KEY EC2_SECRET_KEY AWS_CREDENTIAL_EXPIRATION
    AWS_SESSION_EXPIRATION AWS_CREDENTIAL_FILE AWS_PROFILE AWS_DEFAULT_PROFILE AWS_ROLE_ARN
    AWS_ROLE_SESSION_NAME AWS_WEB_IDENTITY_TOKEN_FILE AWS_CONTAINER_CREDENTIALS_RELATIVE_URI
    AWS_CONTAINER_CREDENTIALS_FULL_URI AWS_CONTAINER_AUTHORIZATION_TOKEN
    AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE AWS_EC2_METADATA_SERVICE_ENDPOINT
    AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE AWS_METADATA_URL AWS_IMDS_USE_IPV6 AWS_ACCOUNT_ID
    AWS_SDK_LOAD_CONFIG AWS_MFA_SERIAL AWS_EXTERNAL_ID AWS_SESSION_TAGS AWS_TRANSITIVE_TAGS
    AWS_SOURCE_IDENTITY AWS_MIN_TTL AWS_SESSION_TTL AWS_ASSUME_ROLE_TTL AWS_SESSION_TOKEN_TTL
    AWS_CHAINED_SESSION_TOKEN_TTL AWS_FEDERATION_TOKEN_TTL _AWS_CLI_PROFILE_CHAIN
    AWS_VAULT_FILE_PASSPHRASE AWS_VAULT_FILE_PASSPHRASE_FD AWS_VAULT_OP_CONNECT_TOKEN
    AWS_VAULT_OP_SERVICE_ACCOUNT_TOKEN
    """.split()
)
REMOVED_PREFIX = "AWS_BEARER_TOKEN_"


def scrubbed(environ: Mapping[str, str]) -> dict[str, str]:
    """Return an environment without anybody's credentials and without our own settings' secrets."""
    return {
        name: value
        for name, value in environ.items()
        if name not in REMOVED_VARIABLES and not name.startswith(REMOVED_PREFIX)
    }


class ToolResult(Value):
    """How a program that helped ended: its exit status (negative: a signal) and what it printed."""

    status: int
    output: Secret
    errors: str


SOCKET_SECONDS = 2.0
FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# To pass through, where O_RDONLY needs the right to list: a /home of mode 0711 has none for users.
PASS_FLAGS = FOLDER_FLAGS | getattr(os, "O_PATH", 0)
MAX_LINKS = 16
MAX_OPEN_FOLDERS = 2  # a file is renamed from one to the other


class HolderInfo(Value):
    """What a lock file says of its holder, and of the last attempt that AWS or the user refused."""

    pid: int = 0
    terminal: str = ""
    refusals: int = 0
    message: str = ""
    hint: str = ""
    exit_code: int = 1

    @classmethod
    def parse(cls, text: str) -> HolderInfo:
        """Read a lock file's text; of an odd one nothing is known, so no refusal counts as new."""
        try:
            info = cls.from_members(parse_json_object(text or "{}"))
        except ValueError:
            info = cls(exit_code=0)
        return info if 0 < info.exit_code < 256 else cls(refusals=sys.maxsize)


class ProcessIdentity(Value):
    """A process: its id, and its start time, which tells it from a later one with this id."""

    pid: int
    started: str

    @classmethod
    def parse(cls, text: str) -> ProcessIdentity:
        """Read ``PID-START``; ValueError otherwise."""
        pid, _, started = text.partition("-")
        if not (started.isascii() and started.isalnum() and len(started) < 40):
            raise ValueError("no process's id and start time")
        return cls(parse_int(pid, 0, 2**31), started)

    def __str__(self) -> str:
        return f"{self.pid}-{self.started}"

    def is_alive(self, world: World) -> bool:
        """Return True if it has not ended."""
        return world.process_started(self.pid) in (self.started, HIDDEN)


# The start time of a process of ours whose memory is guarded, where /proc has hidepid=2.
HIDDEN = "hidden"


class Ended(BaseException):
    """A signal ends this process: no handler of errors may take it for one and go on."""

    def __init__(self, number: int) -> None:
        super().__init__(f"ended by signal {number}")
        self.exit_code = 128 + number


class LockTimeout(Exception):
    """Raised by the alarm that ends a wait."""


class Alarm:
    """A time limit, in seconds, on a wait of the kernel's; raises LockTimeout inside the block."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __enter__(self) -> None:
        def ring(_signal: int, _frame: object) -> NoReturn:
            raise LockTimeout

        self.previous = signal.signal(signal.SIGALRM, ring)
        signal.setitimer(signal.ITIMER_REAL, self.seconds)

    def __exit__(self, *_exception: object) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, self.previous)


def handle_signals(handler: Callable[[int, Any], object] | signal.Handlers) -> dict[int, Any]:
    """Have the signals that end a process handled, but for those that are ignored, as nohup has it;
    return what handled them before. Only a process's first thread can: in others nothing is
    handled."""
    numbers = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGINT)
    heeded = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
    try:
        return {number: signal.signal(number, handler) for number in heeded}
    except ValueError:
        return {}


def drops_exceptions(frame: Any) -> bool:
    """Return True in code whose exceptions Python prints and forgets: a __del__, and the callback
    (``cb``) by which its import system forgets a module's lock."""
    while frame and frame.f_code.co_name not in ("__del__", "cb"):
        frame = frame.f_back
    return frame is not None


class RaisedSignals:
    """A block in which a signal that ends this process does so by raising Ended, so that what is
    open is closed, and what was started ends too.

    With ``held`` it waits for release(), so that nothing is started that is not known yet. Ctrl-C
    raises KeyboardInterrupt.
    """

    def __init__(self, *, held: bool = False) -> None:
        self.held = held
        self.pending = 0

    def __enter__(self) -> Self:
        self.previous = handle_signals(self._end)
        return self

    def _end(self, number: int, frame: Any) -> None:
        if drops_exceptions(frame):
            again = threading.Timer(0.01, os.kill, (os.getpid(), number))
            again.daemon = True
            again.start()
            return
        self.pending = number
        if not self.held:
            self.release()

    def release(self) -> None:
        """Raise Ended for a signal that has come, and for each that comes from now on."""
        self.held = False
        if self.pending:
            number, self.pending = self.pending, 0
            raise KeyboardInterrupt if number == signal.SIGINT else Ended(number)

    def __exit__(self, *_exception: object) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)
        self.release()


class Lock:
    """A flock that the kernel releases when the holder dies, whatever kills it.

    As a context manager: entering waits for the lock (AwsVaultError after ``wait`` seconds) and, if
    a holder whom this process waited for was refused meanwhile, raises that refusal instead of
    trying it again. A holder that a signal ended was not refused. ``doing`` says what its holder
    does: on a terminal, a wait of over a second says so.
    """

    def __init__(
        self,
        world: World,
        name: str,
        doing: str,
        wait: float = LOCK_WAIT_SECONDS,
        shared_refusals: bool = False,
    ) -> None:
        self.world = world
        self.name = name
        self.doing = doing
        self.wait = wait
        self.shared_refusals = shared_refusals
        self.fd = -1
        self.info = HolderInfo()

    def __enter__(self) -> Self:
        folder = self.world.lock_folder()
        if folder is None:
            return self
        path = os.path.join(folder, self.name)
        waited, refusals_before = False, 0
        while self.fd < 0:
            fd = self.world.open_own(path, os.O_RDWR | os.O_CREAT)
            if not self._try(fd):
                if not waited:
                    waited, refusals_before = True, self._read(fd).refusals
                self._wait(fd)
            if self._is_current(fd, path):
                self.fd = fd
            else:
                os.close(fd)
        self.info = self._read(self.fd)
        if self.shared_refusals and waited and self.info.refusals > refusals_before:
            self.__exit__(None, None, None)
            raise AwsVaultError(self.info.message, self.info.hint, self.info.exit_code)
        self._write(self.info.replace(pid=os.getpid(), terminal=self.world.terminal_name()))
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        if self.fd < 0:
            return
        if (
            self.shared_refusals
            and isinstance(error, AwsVaultError)
            and not isinstance(error, NeedsUser)
        ):
            self._write(
                self.info.replace(
                    refusals=self.info.refusals + 1,
                    message=error.message[:MAX_SHARED_TEXT],
                    hint=error.hint[:MAX_SHARED_TEXT],
                    exit_code=error.exit_code,
                )
            )
        os.close(self.fd)
        self.fd = -1

    def _try(self, fd: int) -> bool:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _wait(self, fd: int) -> None:
        quiet = min(self.wait, QUIET_WAIT_SECONDS)
        if self._flock(fd, quiet):
            return
        if self.world.is_terminal(2):
            self.world.say(f"waiting for {self._holder(fd)}")
        if self.wait > quiet and self._flock(fd, self.wait - quiet):
            return
        holder = self._holder(fd)
        os.close(fd)
        raise AwsVaultError(
            f"gave up after {self.wait:.0f} seconds waiting for {holder}",
            "answer its prompt or end it",
        )

    def _flock(self, fd: int, seconds: float) -> bool:
        try:
            with Alarm(seconds):
                fcntl.flock(fd, fcntl.LOCK_EX)
        except LockTimeout:
            return False
        return True

    def _holder(self, fd: int) -> str:
        info = self._read(fd)
        process = f"process {info.pid}" if info.pid else "another process"
        where = f" on {printable(info.terminal)}" if info.terminal else ""
        return f"{process}{where}, which is {printable(self.doing)}"

    def _is_current(self, fd: int, path: str) -> bool:
        # A cleaner may have removed the file meanwhile: then the lock is on a file nobody else will
        # open.
        held = os.fstat(fd)
        if held.st_uid != self.world.uid():
            os.close(fd)
            raise AwsVaultError(f"{printable(path)} belongs to another user", "remove it")
        try:
            named = self.world.stat_own(path)
        except FileNotFoundError:
            return False
        return (held.st_dev, held.st_ino) == (named.st_dev, named.st_ino)

    def _read(self, fd: int) -> HolderInfo:
        # Only the first line: a shorter text may just be written over a longer one.
        text = os.pread(fd, 16 * MAX_SHARED_TEXT, 0).decode("utf-8", "replace")
        return HolderInfo.parse(text.partition("\n")[0])

    def _write(self, info: HolderInfo) -> None:
        self.info = info
        text = json.dumps(info.members()).encode() + b"\n"
        try:
            os.pwrite(self.fd, text, 0)
            os.ftruncate(self.fd, len(text))
        except OSError:
            # On a full disk the lock itself still holds; only the note about its holder is lost.
            return


class OwnFolders:
    """Opens this user's folders by walking to them from / by descriptors, and keeps the last
    two open.

    On a shared host another user can exchange a folder, or one above it, between a check of its
    path and its use. So no folder on the way may be another user's or writable by others (in a
    sticky one, such as /tmp, nobody can rename what is ours), no link is followed that others can
    have made, and all that is done in a folder goes by its descriptor.
    """

    def __init__(self) -> None:
        # Nothing of the World here: a cycle would keep the descriptors open until it is collected.
        self._open: dict[str, int] = {}

    def open(self, path: str, *, make: bool = False) -> int:
        """Return the descriptor of a folder that is this user's alone; ``make`` makes what is
        missing, 0700. FileNotFoundError where it is missing, AwsVaultError for any other reason."""
        if not path:
            # What abspath() takes for the working folder, whose files are not ours to sweep.
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        path = os.path.abspath(path)
        fd = self._open.pop(path, -1)
        if fd >= 0 and not os.fstat(fd).st_nlink:  # removed meanwhile
            os.close(fd)
            fd = -1
        if fd < 0:
            fd = self._walk(path, make)
        self._open[path] = fd
        if len(self._open) > MAX_OPEN_FOLDERS:
            os.close(self._open.pop(next(iter(self._open))))
        return fd

    def __del__(self) -> None:
        for fd in self._open.values():
            os.close(fd)

    def parent(self, path: str) -> tuple[int, str]:
        """Return the descriptor of the folder of a file, and the file's name (as open())."""
        folder, name = os.path.split(path and os.path.abspath(path))
        return self.open(folder), name

    def drop(self, path: str) -> None:
        """Close a folder, whose name leads to another one from now on."""
        fd = self._open.pop(os.path.abspath(path), -1)
        if fd >= 0:
            os.close(fd)

    def forget(self) -> None:
        """Take all descriptors for closed, as in a child that has closed them."""
        self._open = {}

    def _walk(self, path: str, make: bool) -> int:
        place, links, shared = "/", 0, 0
        fd = os.open("/", PASS_FLAGS)
        uid = os.geteuid()
        # In a user namespace root has another uid, and so has every other user: only where others
        # can make nothing does it stand for root.
        trusted = {0, uid, os.fstat(fd).st_uid}
        pending = path.split("/")[::-1]
        try:
            while pending:
                name = pending.pop()
                if name in ("", "."):
                    continue
                place = os.path.normpath(os.path.join(place, name))
                inner = self._enter(fd, name, place, make)
                if inner < 0:
                    target, links = self._read_link(fd, name, place, trusted), links + 1
                    if links > MAX_LINKS:
                        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
                    pending += target.split("/")[::-1]
                    place = os.path.dirname(place)
                    inner = os.open("/" if target.startswith("/") else ".", PASS_FLAGS, dir_fd=fd)
                    place = "/" if target.startswith("/") else place
                os.close(fd)
                fd = inner
                shared = self._check(fd, place, {0, uid} if shared else trusted)
            state = os.fstat(fd)
            if state.st_uid != uid or shared:
                raise self._refusal(place, state)
            inner = os.open(".", FOLDER_FLAGS, dir_fd=fd)
            os.close(fd)
            fd = inner
        except FileNotFoundError:
            os.close(fd)
            raise
        except OSError as error:
            os.close(fd)
            what = "can't make folder" if make else "folder"
            raise AwsVaultError(f"{what} {printable(place)}: {os_reason(error)}") from None
        except AwsVaultError:
            os.close(fd)
            raise
        return fd

    def _enter(self, parent: int, name: str, place: str, make: bool) -> int:
        """Open a folder, -1 if it is a link or no folder."""
        for attempt in (0, 1):
            try:
                return os.open(name, PASS_FLAGS, dir_fd=parent)
            except FileNotFoundError:
                if not make or attempt:
                    raise
                try:
                    os.mkdir(name, 0o700, dir_fd=parent)
                except FileExistsError:
                    continue
            except OSError as error:
                if error.errno not in (errno.ENOTDIR, errno.ELOOP, errno.EMLINK):
                    raise
                return -1
        raise AwsVaultError(f"folder {printable(place)} was removed meanwhile", "try again")

    def _read_link(self, parent: int, name: str, place: str, trusted: set[int]) -> str:
        link = os.stat(name, dir_fd=parent, follow_symlinks=False)
        if link.st_mode & 0o170000 != 0o120000:
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        if link.st_uid not in trusted or os.fstat(parent).st_mode & 0o022:
            raise AwsVaultError(
                f"{printable(place)} is a link that others can have made", "remove it"
            )
        return os.readlink(name, dir_fd=parent)

    def _check(self, fd: int, place: str, trusted: set[int]) -> int:
        """Return how others can write to a folder that may be on the way; 0 if they can't."""
        state = os.fstat(fd)
        shared, sticky = state.st_mode & 0o022, state.st_mode & 0o1000
        if state.st_uid not in trusted or (shared and not sticky):
            raise self._refusal(place, state)
        return shared

    def _refusal(self, place: str, state: os.stat_result) -> AwsVaultError:
        shown, uid = printable(place), os.geteuid()
        if state.st_uid != uid and (state.st_uid or not state.st_mode & 0o022):
            return AwsVaultError(
                f"folder {shown} belongs to user {state.st_uid}, not to user {uid}",
                "run as its owner, or name another folder",
            )
        return AwsVaultError(f"folder {shown} can be written to by others", f"chmod go-w {shown}")


SOCKET_NAME = "socket"  # in a command's own folder
# What Python 3.7 to 3.15 sets LC_CTYPE to.
COERCED_LOCALES = ("C.UTF-8", "C.utf8", "UTF-8")
SHELLS = ("sh", "bash", "dash", "ash", "ksh", "mksh", "zsh")


class World:
    """Every door to the outside: environment, clock, files, locks, tools, terminal, and the next
    process.

    ``bundle`` is the packed program's knowledge of its own file; None when run from source.
    """

    def __init__(self, bundle: Bundle | None = None) -> None:
        self.environ = self._environment_at_start()
        self.bundle = bundle
        self.may_ask = True
        self.debugging = False
        self.quiet = False  # the terminal shows no typing
        self.core_limit: tuple[int, int] | None = None
        self.closed: set[int] = set()  # of the standard descriptors
        self._said: set[str] = set()
        self._lock_folder: str | None = None
        self._locking_possible = True
        self._queue: object = None
        self.folders = OwnFolders()
        self._session_bus: str | KeystoreError | None = None

    def _environment_at_start(self) -> dict[str, str]:
        """Return the environment without what Python put into it: where the locale is C, it sets
        LC_CTYPE (PEP 538), which would change how the command's own grep or sort reads text."""
        environ = dict(os.environ)
        if environ.get("LC_CTYPE") in COERCED_LOCALES:
            try:
                given = self.read_file("/proc/self/environ", MAX_ENVIRONMENT_BYTES).split(b"\0")
            except OSError:
                return environ
            del environ["LC_CTYPE"]
            name = b"LC_CTYPE="
            environ.update(("LC_CTYPE", os.fsdecode(e[9:])) for e in given if e.startswith(name))
        return environ

    # -- what is said ---------------------------------------------------

    def out(self, text: str) -> None:
        """Write a result to standard output."""
        self._write_all(1, text.encode("utf-8", "surrogateescape"))

    def say(self, text: str) -> None:
        """Write one line for the user to standard error; where it can't be read, work goes on."""
        try:
            self._write_all(2, f"awsvault: {text}\n".encode("utf-8", "surrogateescape"))
        except OSError:
            return

    def say_once(self, text: str) -> None:
        """Say a line the first time only."""
        if text not in self._said:
            self._said.add(text)
            self.say(text)

    def debug(self, text: str) -> None:
        """Say a line if --debug asked for it. Never give it a secret."""
        if self.debugging:
            self.say(f"debug: {text}")

    def _write_all(self, fd: int, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[os.write(fd, rest) :]
            except BlockingIOError:
                # Who shares this pipe or terminal with us, as Node.js does, made it non-blocking.
                select.select((), (fd,), ())

    # -- clock and identity ---------------------------------------------

    def now(self) -> datetime.datetime:
        """Return the time of this machine's clock, in UTC."""
        return datetime.datetime.now(UTC)

    def monotonic(self) -> float:
        """Return seconds of a clock that nobody sets."""
        return time.monotonic()

    def uid(self) -> int:
        """Return the effective user id, whose files and processes are ours."""
        return os.geteuid()

    def random(self, size: int) -> bytes:
        """Return unpredictable bytes."""
        return os.urandom(size)

    # -- folders ----------------------------------------------------------

    def home(self) -> str:
        """Return the user's home folder, which may be another user's (sudo): read there, don't
        write."""
        home = self.environ.get("HOME", "")
        if home:
            return home
        try:
            return pwd.getpwuid(self.uid()).pw_dir
        except KeyError:
            raise AwsVaultError(
                "HOME is not set, and this user has no entry that names one", "set HOME"
            ) from None

    def own_home(self) -> str:
        """Return the home folder if it is this user's own; otherwise AwsVaultError says why nothing
        is kept there."""
        home = self.home()
        try:
            owner = os.stat(home).st_uid
        except OSError as error:
            raise AwsVaultError(
                f"home folder {printable(home)}: {os_reason(error)}",
                "set HOME, or name a folder with --file-dir",
            ) from None
        if owner != self.uid() or os.getuid() != self.uid():
            raise AwsVaultError(
                f"home folder {printable(home)} belongs to another user than this process",
                # What a container's runtime sets for a uid without an entry in /etc/passwd.
                "set HOME to a folder of this user's, such as an empty volume"
                if home == "/"
                else "use sudo -H or sudo -i, or name a folder with --file-dir",
            )
        return home

    def expand(self, path: str) -> str:
        """Replace a leading ``~/`` by the home folder."""
        return os.path.join(self.home(), path[2:]) if path.startswith("~/") else path

    def private_folder(self, path: str) -> str:
        """Make a folder, and what is missing above it, for this user alone; refuse another user's
        (AwsVaultError)."""
        self.folders.open(path, make=True)
        return path

    def make_folder(self, path: str) -> None:
        """Make a folder, and what is missing above it, 0700 from birth."""
        if os.path.isdir(path):
            return
        parent = os.path.dirname(os.path.abspath(path))
        if not os.path.isdir(parent):
            self.make_folder(parent)
        try:
            os.mkdir(path, 0o700)
        except FileExistsError:
            return
        except OSError as error:
            raise AwsVaultError(
                f"can't make folder {printable(path)}: {os_reason(error)}"
            ) from None

    def lock_folder(self) -> str | None:
        """Return the folder of the lock files; None, said once, where locking is impossible."""
        if self._lock_folder is None and self._locking_possible:
            for candidate in self._lock_folder_candidates():
                try:
                    self._lock_folder = self.private_folder(candidate)
                    if os.access(".", os.W_OK, dir_fd=self.folders.open(candidate)):
                        return self._lock_folder
                except (AwsVaultError, OSError):
                    continue
            self._lock_folder, self._locking_possible = None, False
            self.say_once(
                "warning: no folder for lock files can be written to; processes at once may ask "
                "twice"
            )
        return self._lock_folder

    def _lock_folder_candidates(self) -> Iterator[str]:
        try:
            yield os.path.join(self.own_home(), ".awsvault", "locks")
        except AwsVaultError:
            pass
        if os.path.isdir(f"/run/user/{self.uid()}"):
            yield f"/run/user/{self.uid()}/awsvault"
        yield f"/tmp/awsvault-{self.uid()}"

    def lock(
        self,
        *what: str,
        doing: str = "making this session",
        wait: float = LOCK_WAIT_SECONDS,
        shared_refusals: bool = False,
    ) -> Lock:
        """Return the lock for what the words name, the same in every process of this user."""
        return Lock(self, digest(*what)[:32], doing, wait, shared_refusals)

    def lock_at_once(self, path: str) -> tuple[int, bytes]:
        """Lock a file in a folder of root's; return its descriptor, or -1 if another process holds
        it, and what stands in it."""
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(path, flags, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return fd, os.pread(fd, MAX_ITEM_BYTES, 0)
        except BlockingIOError:
            text = os.pread(fd, MAX_ITEM_BYTES, 0)
            os.close(fd)
            return -1, text

    def write_note(self, fd: int, data: bytes) -> None:
        """Replace what stands in a file that is locked."""
        os.pwrite(fd, data, 0)
        os.ftruncate(fd, len(data))

    # -- files ------------------------------------------------------------

    def read_file(self, path: str, limit: int) -> bytes:
        """Return a whole file of at most ``limit`` bytes. OSError as the system says; EFBIG if it
        is larger."""
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            return self._read_to_end(fd, limit)
        finally:
            os.close(fd)

    def exists(self, path: str) -> bool:
        """Return True if something of that name is there, or where a link leads."""
        return os.path.exists(path)

    def is_folder(self, path: str) -> bool:
        """Return True for a folder, or a link to one."""
        return os.path.isdir(path)

    def real_path(self, path: str) -> str:
        """Return a path without links."""
        return os.path.realpath(path)

    def may(self, what: int, path: str) -> bool:
        """Return True if this process may read (os.R_OK) or run (os.X_OK) a file."""
        return os.access(path, what)

    def read_descriptor(self, fd: int, limit: int) -> bytes:
        """Read an inherited descriptor to its end and close it, so that no later process can read
        it again."""
        try:
            return self._read_to_end(fd, limit)
        finally:
            os.close(fd)
            self.fill_standard_descriptors()

    def read_line(self, fd: int) -> Secret:
        """Read one line of a descriptor and not a byte more: the rest is the command's."""
        line = b""
        while (byte := os.read(fd, 1)) not in (b"", b"\n") and len(line) < MAX_PASSPHRASE_BYTES:
            line += byte
        return Secret(line)

    def _read_to_end(self, fd: int, limit: int) -> bytes:
        chunks, size = [], 0
        while chunk := self._read_some(fd, min(limit + 1 - size, 1 << 20)):
            chunks.append(chunk)
            size += len(chunk)
            if size > limit:
                raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
        return b"".join(chunks)

    def _read_some(self, fd: int, size: int) -> bytes:
        while True:
            try:
                return os.read(fd, size)
            except BlockingIOError:  # a pipe, as of <(command), that has nothing yet
                if not self.wait_readable([fd], TOOL_WAIT_SECONDS):
                    raise OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT)) from None

    def read_trusted(self, path: str, limit: int) -> tuple[bytes, bool]:
        """Return a whole file as read_file(), and if only this user or root can have written what
        was read."""
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            # Of the descriptor: the path may lead to another file by now.
            state = os.fstat(fd)
            safe = state.st_uid in (self.uid(), 0) and not state.st_mode & 0o002
            return self._read_to_end(fd, limit), safe
        finally:
            os.close(fd)

    def open_own(self, path: str, flags: int) -> int:
        """Open a file in a folder of ours, 0600 if it is made, and never a link (OSError,
        AwsVaultError)."""
        folder, name = self.folders.parent(path)
        return os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=folder)

    def stat_own(self, path: str) -> os.stat_result:
        """Return the state of a file, or of a link itself, in a folder of ours (OSError)."""
        folder, name = self.folders.parent(path)
        return os.stat(name, dir_fd=folder, follow_symlinks=False)

    def folder_number(self, path: str) -> int:
        """Return the inode number of a folder of ours (OSError, AwsVaultError)."""
        return os.fstat(self.folders.open(path)).st_ino

    def read_own(self, path: str, limit: int) -> bytes:
        """Return a whole file of a folder of ours (OSError, AwsVaultError)."""
        fd = self.open_own(path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            return self._read_to_end(fd, limit)
        finally:
            os.close(fd)

    def list_folder(self, path: str) -> list[str]:
        """Return the names of the plain files in a folder of ours, sorted; none if there is no
        folder."""
        try:
            with os.scandir(self.folders.open(path)) as entries:
                return sorted(
                    entry.name for entry in entries if entry.is_file(follow_symlinks=False)
                )
        except FileNotFoundError:
            return []

    def same_device(self, *paths: str) -> bool:
        """Return True if folders of ours are on one device, so that a file can be renamed from one
        to the other."""
        return len({os.fstat(self.folders.open(path)).st_dev for path in paths}) == 1

    def write_atomic(
        self, path: str, data: bytes, scratch: str, *, keep_mode: bool = False
    ) -> None:
        """Replace a file whole: readers, also those after a crash, see the old or the new one.

        ``scratch`` is a folder on the same device; its leftovers of earlier crashes are swept. The
        new one is private, or with ``keep_mode`` as the old one was.
        """
        self._sweep(scratch)
        temporary = os.path.join(scratch, f"{TEMPORARY_PREFIX}{self.random(8).hex()}")
        fd = self.create_file(temporary)
        try:
            try:
                self.write_file(fd, data)
                if keep_mode:
                    os.fchmod(fd, os.stat(path).st_mode & 0o7777)
                self.sync_file(fd)
            finally:
                os.close(fd)
            self.rename(temporary, path)
        except BaseException:
            self.remove_leftovers([temporary])
            raise
        self.sync_folder(os.path.dirname(path))

    def create_file(self, path: str) -> int:
        """Make a new file, 0600 from birth, in a folder of ours, and return its descriptor."""
        return self.open_own(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)

    def write_new(self, path: str, data: bytes, mode: int = 0o600) -> None:
        """Make a new file, 0600 from birth, with some content; ``mode`` is for when it is whole."""
        fd = self.create_file(path)
        try:
            self.write_file(fd, data)
            os.fchmod(fd, mode)
        finally:
            os.close(fd)

    def write_file(self, fd: int, data: bytes) -> None:
        """Write all of the data to a descriptor."""
        self._write_all(fd, data)

    def sync_file(self, fd: int) -> None:
        """Wait until a file's content is on the disk."""
        os.fsync(fd)

    def rename(self, old: str, new: str) -> None:
        """Give a file of a folder of ours its final name."""
        old_folder, old_name = self.folders.parent(old)
        new_folder, new_name = self.folders.parent(new)
        os.rename(old_name, new_name, src_dir_fd=old_folder, dst_dir_fd=new_folder)

    def exchange_folders(self, one: str, other: str) -> None:
        """Give each of two folders of ours the other's name in one step (OSError where the file
        system can't; AwsVaultError)."""
        # Linux 3.15, glibc 2.28, musl 1.2.4; macOS 10.12 has it by another name. 2: exchange.
        call = "renameatx_np" if sys.platform == "darwin" else "renameat2"
        library = ctypes.CDLL(None, use_errno=True)
        (fd, name), (other_fd, other_name) = map(self.folders.parent, (one, other))
        if not hasattr(library, call):
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
        if getattr(library, call)(fd, os.fsencode(name), other_fd, os.fsencode(other_name), 2):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        self.renamed_folders(one, other)

    def rename_folder(self, old: str, new: str) -> None:
        """Give a folder of ours another name (OSError, AwsVaultError)."""
        self.rename(old, new)
        self.renamed_folders(old, new)

    def renamed_folders(self, *paths: str) -> None:
        """See that folders' new names are on the disk, and reach the folders by them."""
        for path in paths:
            self.folders.drop(path)
            self.sync_folder(os.path.dirname(path))

    def sync_folder(self, path: str) -> None:
        """Wait until the names in a folder of ours are on the disk."""
        os.fsync(self.folders.open(path))

    def delete_file(self, path: str) -> None:
        """Remove a file of a folder of ours; FileNotFoundError if there is none."""
        folder, name = self.folders.parent(path)
        os.unlink(name, dir_fd=folder)
        self.sync_folder(os.path.dirname(path))

    def append_file(self, path: str, data: bytes) -> None:
        """Add to the end of a file in one write, making it (0600) if missing; nothing is left of a
        failed one."""
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            size = os.fstat(fd).st_size
            if size and os.pread(fd, 1, size - 1) != b"\n":
                data = b"\n" + data
            try:
                self.write_file(fd, data)
                self.sync_file(fd)
            except BaseException:
                os.ftruncate(fd, size)
                raise
        finally:
            os.close(fd)

    def _sweep(self, scratch: str) -> None:
        # An hour is longer than any write, so a younger file may still be in use.
        oldest = self.now().timestamp() - 3600
        for name in self.list_folder(scratch):
            path = os.path.join(scratch, name)
            try:
                if name.startswith(TEMPORARY_PREFIX) and self.stat_own(path).st_mtime < oldest:
                    self.remove_leftovers([path])
            except FileNotFoundError:
                continue

    # -- tools --------------------------------------------------------------

    def load_library(self, name: str) -> None:
        """Make cryptography or botocore importable (the packed program unpacks them at first use).

        AwsVaultError where there is none for this machine and Python, or it can't be loaded.
        """
        # The OpenSSL in cryptography reads its configuration at this moment: that of a FIPS host
        # names providers which it does not have. The interpreter's own OpenSSL keeps it.
        held = {
            n: os.environ.pop(n)
            for n in OPENSSL_VARIABLES
            if name == "cryptography" and n in os.environ
        }
        try:
            if self.bundle is not None:
                self.bundle.load_libraries()
            __import__(NATIVE_PARTS.get(name, name))
        except ImportError as error:
            raise AwsVaultError(
                f"{name} can't be loaded: {printable(error)}",
                f"install {name} for this Python"
                + (", or use another keystore" if name == "cryptography" else ""),
            ) from None
        finally:
            os.environ.update(held)

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: Secret | None = None,
        timeout: float = TOOL_WAIT_SECONDS,
        on_terminal: bool = False,
        no_terminal: bool = False,
        environ: Mapping[str, str | None] | None = None,
    ) -> ToolResult:
        """Run a program in the scrubbed environment for at most ``timeout`` seconds.

        ``environ`` adds to the environment, and removes what is None. ``on_terminal`` connects
        standard input and error to the terminal, if there is one, so that it can ask the user;
        with ``no_terminal`` it can't open any. ToolError if it can't be started or takes too long
        (ToolMissing, ToolTimeout).
        """
        variables = {**scrubbed(self.environ), **(environ or {})}
        given = {name: value for name, value in variables.items() if value is not None}
        with RaisedSignals(held=True) as signals:
            process = self._start_tool(argv, given, stdin is not None, on_terminal, no_terminal)
            try:
                signals.release()
                data = stdin.reveal_bytes() if stdin is not None else None
                output, errors = process.communicate(data, timeout)
            except subprocess.TimeoutExpired:
                raise ToolTimeout(
                    f"{printable(argv[0])} did not end within {timeout:.0f} seconds"
                ) from None
            finally:
                if process.returncode is None:
                    process.kill()
                    process.wait()
        if len(output) > MAX_TOOL_OUTPUT:
            raise ToolError(f"{printable(argv[0])} printed more than {MAX_TOOL_OUTPUT} bytes")
        return ToolResult(
            process.returncode,
            Secret(output),
            (errors or b"")[-MAX_TOOL_ERRORS:].decode("utf-8", "replace"),
        )

    def _start_tool(
        self,
        argv: Sequence[str],
        environ: Mapping[str, str],
        reads: bool,
        on_terminal: bool,
        no_terminal: bool,
    ) -> subprocess.Popen[bytes]:
        terminal = self.open_terminal() if on_terminal else -1
        pipe: int = subprocess.PIPE
        try:
            return subprocess.Popen(
                list(argv),
                stdin=pipe if reads else terminal if terminal >= 0 else subprocess.DEVNULL,
                stdout=pipe,
                stderr=terminal if terminal >= 0 else pipe,
                env=environ,
                start_new_session=no_terminal,
            )
        except FileNotFoundError:
            raise ToolMissing(f"can't run {printable(argv[0])}: no such program") from None
        except OSError as error:
            raise ToolError(f"can't run {printable(argv[0])}: {os_reason(error)}") from None
        finally:
            if terminal >= 0:
                os.close(terminal)

    def has_program(self, name: str) -> bool:
        """Return True if a program is on PATH."""
        try:
            self.find_program(name)
        except AwsVaultError:
            return False
        return True

    def session_bus(self) -> str:
        """Return the address of this user's D-Bus session bus, once it is sure that it is his.

        Each address that is set is connected to, and nothing is sent, until one's listener has our
        uid: a stale address can have been taken over by anybody. KeystoreError says why there is
        none.
        """
        if self._session_bus is None:
            self._session_bus = self._find_session_bus()
        if isinstance(self._session_bus, KeystoreError):
            raise self._session_bus
        return self._session_bus

    def give_up_session_bus(self, error: KeystoreError) -> None:
        """Let every later use of the bus fail at once, as one did after a long wait."""
        self._session_bus = error

    def _find_session_bus(self) -> str:
        own = f"/run/user/{self.uid()}"
        runtime = self.environ.get("XDG_RUNTIME_DIR") or own
        given = self.environ.get("DBUS_SESSION_BUS_ADDRESS", "")
        if not given and not os.path.exists(f"{runtime}/bus"):
            raise KeystoreError(
                "there is no D-Bus session bus here: DBUS_SESSION_BUS_ADDRESS is not set, and"
                f" {printable(runtime)}/bus does not exist",
                "log in on the desktop, or choose a keystore that needs none: awsvault backends",
            )
        refusals: list[str] = []
        addresses = [part for part in (given or f"unix:path={runtime}/bus").split(";") if part]
        for address in sorted(addresses, key=lambda address: f"={own}/" not in address):
            refusal = self._refuse_bus(address, runtime)
            if not refusal:
                return address
            refusals.append(refusal)
        raise KeystoreError(
            f"the D-Bus session bus can't be used: {refusals[0]}",
            "log in again, or set DBUS_SESSION_BUS_ADDRESS to a bus of your own",
        )

    def _refuse_bus(self, address: str, runtime: str) -> str:
        """Return why a bus can't be trusted or reached, or nothing."""
        kind, _, rest = address.partition(":")
        pairs = dict(pair.partition("=")[::2] for pair in rest.split(","))
        path = decode_percent(pairs.get("path", ""))
        if pairs.get("runtime") == "yes":
            path = f"{runtime}/bus"
        elif "abstract" in pairs:
            path = "\0" + decode_percent(pairs["abstract"])
        if kind != "unix" or not path:
            return f"{printable(address)} is no Unix socket's address"
        shown = printable(path.lstrip("\0"))
        try:
            owner = self.socket_owner(path)
        except OSError as error:
            return f"nobody answers at {shown} ({os_reason(error)})"
        return "" if owner == self.uid() else f"{shown} belongs to user {owner}"

    def socket_owner(self, path: str) -> int:
        """Return the uid of who listens at a Unix socket, to which nothing is sent (OSError)."""
        import _socket

        if not hasattr(_socket, "SO_PEERCRED"):
            raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))
        connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
        try:
            connection.settimeout(BUS_PROBE_SECONDS)
            connection.connect(path)
            peer = connection.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, 12)
        finally:
            connection.close()
        return int.from_bytes(peer[4:8], sys.byteorder)  # struct ucred: pid, uid, gid

    def file_stamp(self, path: str) -> str:
        """Return a file's time and size, to see whether it has changed; nothing without one."""
        try:
            state = os.stat(path)
        except OSError:
            return ""
        return f"{state.st_mtime_ns}:{state.st_size}"

    def list_tree(self, path: str) -> list[str]:
        """Return the files below a folder by their relative paths, sorted; none without one."""
        return sorted(
            os.path.relpath(os.path.join(folder, name), path)
            for folder, _folders, names in os.walk(path)
            for name in names
        )

    # -- terminal -------------------------------------------------------------

    def can_show(self) -> bool:
        """Return True if the user can be asked in a window."""
        if not self.may_ask:
            return False
        if sys.platform == "darwin":
            return "SSH_CONNECTION" not in self.environ
        return any(self.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))

    def open_terminal(self) -> int:
        """Open the controlling terminal; -1 if there is none or nobody may be asked."""
        if not self.may_ask:
            return -1
        try:
            return os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
        except OSError:
            return -1

    def can_ask(self) -> bool:
        """Return True if the user can be asked on the controlling terminal."""
        fd = self.open_terminal()
        if fd >= 0:
            os.close(fd)
        return fd >= 0

    def terminal_name(self) -> str:
        """Return the name of the terminal of standard error or input, or nothing."""
        for fd in (2, 0):
            try:
                return os.ttyname(fd)
            except OSError:
                continue
        return ""

    def is_terminal(self, fd: int) -> bool:
        """Return True if a descriptor is a terminal."""
        return os.isatty(fd)

    def ask(
        self,
        question: str,
        *,
        hidden: bool = False,
        timeout: float | None = None,
        instead: str,
        shown: Callable[[str], object] = bool,
    ) -> Secret:
        """Ask on the controlling terminal for one line, which is not shown if ``hidden``.

        Under quiet_terminal() no typing is shown: a line that is not ``hidden`` is shown when it is
        whole, if it is what may be ``shown``, since it may be what was meant for another question.

        ``instead`` names the flag or variable that does without the user; it is the hint of
        NeedsUser, raised at once where nobody can be asked. After ``timeout`` seconds
        AwsVaultError. The terminal is as it was afterwards, also after Ctrl-C.
        """
        fd = self.open_terminal()
        if fd < 0:
            why = (
                "--no-input forbids asking"
                if not self.may_ask
                else "there is no terminal to ask on"
            )
            raise NeedsUser(f"{question}: {why}", instead)
        try:
            answer = self._ask_on(fd, question, hidden or self.quiet, timeout)
            if self.quiet and not hidden and shown(answer.reveal()):
                self._write_all(fd, answer.reveal_bytes())
            if hidden or self.quiet:
                self._write_all(fd, b"\n")
            return answer
        finally:
            os.close(fd)

    def quiet_terminal(self) -> QuietTerminal:
        """Return a context for a whole dialogue about secrets: nothing that is typed is shown."""
        return QuietTerminal(self)

    def _ask_on(self, fd: int, question: str, hidden: bool, timeout: float | None) -> Secret:
        before = termios.tcgetattr(fd)
        modes = termios.tcgetattr(fd)
        modes[0] |= termios.ICRNL
        modes[3] |= termios.ICANON | termios.ISIG | (0 if hidden else termios.ECHO)
        if hidden:
            modes[3] &= ~termios.ECHO
        # A signal that comes just before select begins would otherwise wait for the next key.
        woken, wake = os.pipe()
        os.set_blocking(wake, False)
        outer_wake = signal.set_wakeup_fd(wake)
        try:
            with RaisedSignals():
                try:
                    termios.tcsetattr(fd, termios.TCSADRAIN, modes)
                    self._write_all(fd, f"{question}: ".encode("utf-8", "surrogateescape"))
                    return self._read_line(fd, timeout, woken)
                except BaseException:
                    self._write_all(fd, b"\n")
                    raise
                finally:
                    termios.tcsetattr(fd, termios.TCSADRAIN, before)
        finally:
            signal.set_wakeup_fd(outer_wake)
            for end in (woken, wake):
                os.close(end)

    def _read_line(self, fd: int, timeout: float | None, woken: int) -> Secret:
        # Byte by byte: what a shell found typed ahead comes as one block, with returns for
        # newlines, and the rest of it is for the next question, or for the command.
        line = b""
        while not line.endswith((b"\n", b"\r")):
            ready, _, _ = select.select([fd, woken], [], [], timeout)
            if woken in ready:
                os.read(woken, 4096)  # its handler has run by now, and did not end the question
                continue
            if not ready:
                raise AwsVaultError(f"nobody answered within {timeout:.0f} seconds")
            byte = os.read(fd, 1)
            if not byte:
                raise AwsVaultError("the question was left unanswered")
            line += byte
        return Secret(line[:-1])

    # -- this process and the next -----------------------------------------------

    def fill_standard_descriptors(self) -> None:
        """Put /dev/null where standard input, output or error is closed, so that no file of ours
        gets that number, and what is printed with it. The command finds it closed again."""
        for fd in (0, 1, 2):
            try:
                os.fstat(fd)
            except OSError:
                self.closed.add(fd)
                os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)  # takes the lowest that is free

    def guard_memory(self) -> None:
        """Let no other process of this user read this one's memory, and leave no core file, until
        the command starts: execve makes a process readable again."""
        # Also against a core_pattern that is a pipe, which ignores the limit.
        self._prctl(PR_SET_DUMPABLE, 0)
        try:
            limit = resource.getrlimit(resource.RLIMIT_CORE)
            resource.setrlimit(resource.RLIMIT_CORE, (0, limit[1]))
        except (OSError, ValueError):
            return  # a sandbox may refuse prlimit; EPERM is a ValueError
        self.core_limit = limit

    def find_program(self, name: str) -> str:
        """Return the path that execve takes for a command's first word. AwsVaultError 127 or 126
        otherwise."""
        folders = [""] if "/" in name else self.environ.get("PATH", os.defpath).split(os.pathsep)
        refused = ""
        for folder in folders:
            path = os.path.join(folder or ".", name) if "/" not in name else name
            if os.path.isfile(path) and os.access(path, os.X_OK):
                return path
            if os.path.exists(path):
                refused = refused or path
        if refused:
            why = "a folder" if os.path.isdir(refused) else "not executable"
            raise AwsVaultError(
                f"can't run {printable(refused)}: it is {why}", exit_code=EXIT_NOT_EXECUTABLE
            )
        where = "no such file" if "/" in name else "not found on PATH"
        first = name.partition(" ")[0]
        quoted = first not in ("", name) and self.has_program(first)
        hint = "the quotes make one word of the command: leave them out" if quoted else ""
        raise AwsVaultError(f"can't run {printable(name)}: {where}", hint, EXIT_NOT_FOUND)

    def replace_process(
        self, path: str, argv: Sequence[str], environ: Mapping[str, str]
    ) -> NoReturn:
        """Become the command: same process id, its own signals and exit status. AwsVaultError 126
        or 127."""
        # Python ignores these two; a command that inherits that never ends when its reader goes
        # away. By the built-in module: signal's enumerations take a millisecond of every start.
        signal = __import__("_signal")
        ignored = self._ignored_by_shell()
        for number in (signal.SIGPIPE, signal.SIGXFSZ):
            if not ignored >> (number - 1) & 1:
                signal.signal(number, signal.SIG_DFL)
        if self.core_limit is not None:
            resource.setrlimit(resource.RLIMIT_CORE, self.core_limit)
        if self.bundle is not None:
            self.bundle.cleanup()
        try:
            os.execve(path, list(argv), dict(environ))
        except OSError as error:
            missing = error.errno == errno.ENOENT
            raise AwsVaultError(
                f"can't run {printable(path)}: {os_reason(error)}",
                "its first line may name an interpreter that is missing, or it needs a first "
                "line such as #!/bin/sh",
                EXIT_NOT_FOUND if missing else EXIT_NOT_EXECUTABLE,
            ) from None

    def _ignored_by_shell(self) -> int:
        """Return the signals that the shell which started us ignores, a bit for each.

        ``trap '' PIPE`` shall reach the command, but Python sets the two signals that it ignores
        before we can see what they were. Only shells are asked: most other programs that ignore
        SIGPIPE (Python, Node.js, Rust, fish) set it back for what they start.
        """
        try:
            data = self.read_file(f"/proc/{os.getppid()}/status", 65536)
        except OSError:
            return 0
        lines = data.decode("utf-8", "replace").splitlines()
        fields = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
        return int(fields["SigIgn"], 16) if fields["Name"] in SHELLS else 0

    def self_command(self, *, bare: bool = False) -> list[str]:
        """Return the words that start this program again; ``bare`` leaves the installed libraries
        out, which is faster.

        The libraries of a run from source may be installed for this user alone, which -I hides.
        """
        alone = ["-I", "-S"] if bare else ["-I"]
        if self.bundle is not None:
            return [sys.executable, *alone, os.path.abspath(self.bundle.path)]
        path = os.path.abspath(__file__)
        if not bare:
            return [sys.executable, path]
        # As a module its compiled form is kept; as a program it would be compiled each time.
        folder, name = os.path.dirname(path), os.path.basename(path)[: -len(".py")]
        return [sys.executable, *alone, "-c", RUN_AS_MODULE, folder, name]

    def spawn_detached(
        self,
        what: str,
        argv: Sequence[str],
        stdin: Secret,
        environ: Mapping[str, str],
        descriptors: Sequence[int] = (),
    ) -> None:
        """Start ``what``, a program of ours whose parent is init, in a session of its own;
        AwsVaultError if it can't be started.

        It reads ``stdin``, and gets the descriptors as 3, 4 and so on, and nothing else of what is
        open here.
        """
        middle, source, sink, report, told, null = self._fork_with_pipes()
        if middle == 0:
            try:
                os.setsid()
                if os.fork() == 0:
                    self._become(argv, environ, (source, null, null, *descriptors), told)
            except OSError as error:
                os.write(told, os_reason(error).encode())
            finally:
                os._exit(0)
        for fd in (source, told, null):
            os.close(fd)
        self._wait_for(middle)
        self._hand_over(sink, stdin.reveal_bytes())
        said = self.read_descriptor(report, MAX_ITEM_BYTES)
        if said:
            raise AwsVaultError(f"{what} did not start: {reported_error(to_text(said))}")

    def _fork_with_pipes(self) -> tuple[int, ...]:
        """Fork; return the child's process id, a pipe to it, a pipe from it, and a descriptor of
        nothing. On failure (OSError) none of them stays open."""
        opened: list[int] = []
        try:
            opened += os.pipe()
            opened += os.pipe()
            opened.append(os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC))
            return (os.fork(), *opened)
        except OSError:
            for fd in opened:
                os.close(fd)
            raise

    def _become(
        self, argv: Sequence[str], environ: Mapping[str, str], descriptors: Sequence[int], told: int
    ) -> None:
        """Exec with exactly these descriptors; ``told`` gets what prevents that."""
        count = len(descriptors)
        self._close_from(3, {*descriptors, told})  # what is dropped makes room under a low limit
        *given, told = (
            fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, count) for fd in (*descriptors, told)
        )
        for number, fd in enumerate(given):
            os.dup2(fd, number)
        try:
            self._close_from(count, {told})
            os.execve(argv[0], list(argv), dict(environ))
        except OSError as error:
            os.write(told, os_reason(error).encode())

    def _cut_off(self, *fds: int) -> None:
        """Let descriptors lead to nothing."""
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        for fd in fds:
            os.dup2(null, fd)
        os.close(null)

    def _close_from(self, first: int, keep: Iterable[int] = ()) -> None:
        """Close every descriptor from a number on but some."""
        for name in os.listdir("/dev/fd"):
            if int(name) >= first and int(name) not in keep:
                try:
                    os.close(int(name))
                except OSError:
                    continue  # the listing's own

    def _hand_over(self, fd: int, data: bytes) -> None:
        """Write to a new process of ours all that it reads; one that has ended has said why."""
        try:
            self._write_all(fd, data)
        except BrokenPipeError:
            pass
        finally:
            os.close(fd)

    def _wait_for(self, pid: int) -> None:
        try:
            os.waitpid(pid, 0)
        except ChildProcessError:
            pass  # our parent ignores SIGCHLD, and so do we; it has ended all the same

    def allow_descriptors(self, count: int) -> int:
        """Let this process have so many descriptors open, or as many as it may; return how many
        those are."""
        allowed = count
        try:
            allowed, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            if allowed == resource.RLIM_INFINITY or allowed >= count:
                return count
            wanted = count if hard == resource.RLIM_INFINITY else min(count, hard)
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (OSError, ValueError):
            return allowed  # a sandbox may refuse prlimit; EPERM is a ValueError
        return wanted

    def forbid_memory_access(self, *, die_with_parent: bool = False) -> None:
        """Let no other process of this user read this one's memory; ``die_with_parent`` also ends
        it with its parent.

        Only Linux can do either; elsewhere nothing happens.
        """
        self._prctl(PR_SET_DUMPABLE, 0)
        if die_with_parent:
            self._prctl(PR_SET_PDEATHSIG, 9)

    def _prctl(self, option: int, value: int) -> None:
        if not sys.platform.startswith("linux"):
            return
        arguments = (option, value, 0, 0, 0)
        try:
            # What ctypes is made of: ctypes itself takes 2 ms of every start.
            library: Any = __import__("_ctypes")
            address = library.dlsym(library.dlopen(None, os.RTLD_NOW), "prctl")
            library.call_function(address, arguments)
        except AttributeError:  # PyPy has it otherwise
            ctypes.CDLL(None).prctl(*arguments)
        except ImportError as error:
            self.debug(f"other processes of this user can read this one's memory: {error}")

    def process_stat(self, pid: int) -> tuple[int, str]:
        """Return a process's parent and its start time in the kernel's ticks; (0, "") if there is
        no such process.

        Without /proc the start time is empty for a process that runs, and HIDDEN where /proc does
        not show it to this user.
        """
        try:
            text = self.read_file(f"/proc/{pid}/stat", 8192).decode("utf-8", "replace")
        except OSError:
            return self._stat_without_proc(pid)
        # The name in parentheses may hold anything, parentheses too.
        fields = text.rpartition(")")[2].split()
        # Of a process whose first thread has ended, others may run.
        ended = fields[0] in "ZX" and int(fields[17]) < 2
        return (0, "") if ended else (int(fields[1]), fields[19])

    def _stat_without_proc(self, pid: int) -> tuple[int, str]:
        try:
            os.kill(pid, 0)
        except OSError:
            return 0, ""
        return 1, HIDDEN if os.path.isdir("/proc/self") else ""

    def socket_holders(self, inode: int) -> list[int]:
        """Return the processes with a socket open, of those this user may look into (Linux)."""
        wanted = f"socket:[{inode}]"
        found = []
        for name in os.listdir("/proc"):
            if name.isdigit() and self._holds(f"/proc/{name}/fd", wanted):
                found.append(int(name))
        return found

    def _holds(self, folder: str, wanted: str) -> bool:
        try:
            for name in os.listdir(folder):
                try:
                    if os.readlink(f"{folder}/{name}") == wanted:
                        return True
                except OSError:
                    continue
        except OSError:
            return False
        return False

    def open_terminal_for_notices(self) -> int:
        """Open the terminal, or what takes anything, for writing only, to tell the user something
        later.

        It is never waited for: what a stopped terminal does not take is lost.
        """
        flags = os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            return os.open("/dev/tty", flags)
        except OSError:
            return os.open(os.devnull, flags)

    def post_notice(self, fd: int, text: str) -> None:
        """Write one line in between whatever the command shows."""
        try:
            os.write(fd, f"\r\nawsvault: {text}\r\n".encode("utf-8", "surrogateescape"))
        except OSError:
            return

    def life(self, pid: int | None = None) -> ProcessIdentity:
        """Return what a running process is known by; by default this one, which is the command once
        that has replaced us."""
        pid = os.getpid() if pid is None else pid
        return ProcessIdentity(pid, self.process_started(pid))

    def process_started(self, pid: int) -> str:
        """Return what tells a process from a later one with the same id; "" if there is none."""
        parent, started = self.process_stat(pid)
        return started if started or not parent else self._started_by_ps(pid)

    def _started_by_ps(self, pid: int) -> str:
        fixed = {"TZ": "UTC", "LC_ALL": "C"}
        shown = self.run(["/bin/ps", "-p", str(pid), "-o", "lstart="], environ=fixed)
        return shown.output.stripped().reveal().translate({32: None, 58: None})

    def ending_descriptor(self, pid: int) -> int:
        """Return a descriptor that can be read from once a process has ended; -1 where only asking
        helps.

        The caller compares the process's start time afterwards, since ids are used again.
        """
        import select as system_select

        select: Any = system_select
        try:
            if not hasattr(select, "kqueue"):
                return os.pidfd_open(pid)
            end = select.kevent(pid, select.KQ_FILTER_PROC, select.KQ_EV_ADD, select.KQ_NOTE_EXIT)
            self._queue = queue = select.kqueue()
            queue.control([end], 0)
            return int(queue.fileno())
        except (AttributeError, OSError):
            return -1

    def listen_privately(self, folder: str, name: str = SOCKET_NAME) -> socket.socket:
        """Return a listening socket in a folder of ours."""
        # A socket's path has at most 103 bytes, a folder's may have more.
        here = os.open(".", getattr(os, "O_PATH", os.O_RDONLY) | os.O_CLOEXEC)
        try:
            os.chdir(self.folders.open(folder))
            listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            listener.bind(name)
            listener.listen(64)
        finally:
            os.chdir(here)
            os.close(here)
        return listener

    def ask_privately(self, folder: str, question: bytes, seconds: float) -> bytes:
        """Return what the process that listens in a folder of ours answers; nothing without one.
        The folder becomes the working folder."""
        try:
            os.chdir(self.folders.open(folder))
        except (OSError, AwsVaultError):
            return b""  # and whatever listens in this one is not ours
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
                connection.settimeout(seconds)
                connection.connect(SOCKET_NAME)
                connection.sendall(question)
                return b"".join(iter(lambda: connection.recv(65536), b""))
        except OSError:
            return b""

    def accepts(self, host: str, port: int, seconds: float) -> bool:
        """Return True if a connection is taken in time."""
        try:
            with socket.create_connection((host, port), seconds):
                return True
        except OSError:
            return False

    def connect_to(self, folder: str, name: str, uid: int) -> tuple[socket.socket, int]:
        """Connect to the socket of that name in a user's folder; return the connection, and the
        process that listens, which must be that user's (AwsVaultError). The folder becomes the
        working folder."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            os.chdir(folder)
            connection.settimeout(SOCKET_SECONDS)
            connection.connect(name)
            os.chdir("/")
        except OSError as error:
            connection.close()
            raise AwsVaultError(f"{printable(folder)}: {os_reason(error)}") from None
        pid, found = self.peer(connection)
        if found not in (uid, -1):
            connection.close()
            raise AwsVaultError(f"{printable(folder)} is of user {found}, not of user {uid}")
        return connection, pid

    def peer(self, connection: socket.socket) -> tuple[int, int]:
        """Return process and user at the other end of a private socket; -1 where the system does
        not tell: there the folder says who it is."""
        if not hasattr(socket, "SO_PEERCRED"):
            return 0, -1
        told = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        pid, uid, _gid = struct.unpack("iII", told)
        return pid, uid

    def send_socket(self, connection: socket.socket, sock: socket.socket) -> None:
        """Hand a socket to the process at the other end (OSError)."""
        socket.send_fds(connection, [b"."], [sock.fileno()])

    def receive_socket(self, door: socket.socket) -> tuple[socket.socket, socket.socket]:
        """Return the socket that root hands to this process, and root's connection
        (AwsVaultError)."""
        try:
            door.settimeout(SOCKET_SECONDS)
            connection, _ = door.accept()
            connection.settimeout(SOCKET_SECONDS)
            _, fds, _, _ = socket.recv_fds(connection, 1, 1)
        except OSError as error:
            raise AwsVaultError(f"root's helper says nothing: {os_reason(error)}") from None
        if self.peer(connection)[1] not in (0, -1) or not fds:
            raise AwsVaultError("what answers is not root's helper")
        return socket.socket(fileno=fds[0]), connection

    def wait_for_close(self, connection: socket.socket) -> None:
        """Wait until the other end of a connection is closed, if only by its process's end."""
        connection.settimeout(None)
        try:
            while connection.recv(100):
                continue
        except OSError:
            return

    def peer_is_ours(self, connection: socket.socket) -> bool:
        """Return True if the process at a private socket's other end is this user's."""
        return self.peer(connection)[1] in (self.uid(), -1)

    def fork_detached(self, work: Callable[[], object], keep: Iterable[int]) -> None:
        """Run ``work()`` in a child in a session of its own, with no descriptors but ``keep``. From
        here on both ignore the signals that would end them: the work is done to its end."""
        handle_signals(signal.SIG_IGN)
        if os.fork() == 0:
            # Whatever happens, nothing of the caller's may run a second time in here.
            try:
                os.setsid()
                self._cut_off(0, 1, 2)
                self._close_from(3, set(keep))
                self.folders.forget()
                work()
            except BaseException:
                os._exit(1)
            os._exit(0)

    def wait_for_end(self, process: ProcessIdentity) -> None:
        """Wait until a process has ended."""
        end = self.ending_descriptor(process.pid)
        while process.is_alive(self):  # else that is another's descriptor
            self.wait_readable([end], LOOK_SECONDS if end >= 0 else 1.0)

    def start_thread(self, work: Callable[[], object]) -> None:
        """Run ``work()`` in a thread that ends with this process; OSError if there can't be one."""
        try:
            threading.Thread(target=work, daemon=True).start()
        except RuntimeError:
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN)) from None

    def wait(self, condition: threading.Condition, seconds: float) -> None:
        """Wait, holding a condition, until it is notified, or for so many seconds."""
        condition.wait(seconds)

    def pause(self, seconds: float) -> None:
        """Wait for some time."""
        time.sleep(seconds)

    def wait_readable(self, fds: Iterable[int], timeout: float | None = None) -> list[int]:
        """Wait for descriptors (-1: none) for so many seconds; return those to read from."""
        return select.select([fd for fd in fds if fd >= 0], [], [], timeout)[0]

    # -- what a command leaves behind ----------------------------------------

    def make_run_folder(self) -> str:
        """Make the folder, 0700, of files that go when this process, or its command, has ended."""
        name = f"{self.life()}.{self._pid_namespace_id()}"
        problem = ""
        for root in self._run_roots():
            try:
                path = os.path.join(self.private_folder(root), name)
                self.remove_run_folder(path)  # left by an earlier attempt of this process
                return self.private_folder(path)
            except AwsVaultError as error:
                problem = problem or error.message
            except OSError as error:
                problem = problem or f"{printable(root)}: {os_reason(error)}"
        raise AwsVaultError(
            f"no folder for the command's files can be made: {problem}",
            "set HOME to a folder of your own",
        )

    def _pid_namespace_id(self) -> str:
        # A home can be shared by containers or hosts, where an id of ours is another process's.
        try:
            boot = self.read_file("/proc/sys/kernel/random/boot_id", 100).decode()
            return digest(boot, os.readlink("/proc/self/ns/pid"))[:12]
        except OSError:
            return digest(os.uname().nodename)[:12]

    def _run_roots(self) -> Iterator[str]:
        for folder in self._lock_folder_candidates():
            home_has_it = os.path.basename(folder) == "locks"
            yield os.path.join(os.path.dirname(folder) if home_has_it else folder, "run")

    def remove_run_folder(self, path: str) -> None:
        """Remove such a folder and its files; what is gone already, or not ours, is no error."""
        try:
            names = os.listdir(self.folders.open(path))
        except (FileNotFoundError, AwsVaultError):
            return
        self.remove_leftovers([*(os.path.join(path, name) for name in names), path])

    def remove_leftovers(self, paths: Iterable[str]) -> None:
        """Remove files in folders of ours, and folders that are empty then; what is gone already is
        no error."""
        for path in paths:
            try:
                folder, name = self.folders.parent(path)
                try:
                    os.unlink(name, dir_fd=folder)
                except (IsADirectoryError, PermissionError):  # the latter on macOS
                    os.rmdir(name, dir_fd=folder)
            except (AwsVaultError, OSError):
                continue

    def sweep_run_folders(self) -> None:
        """Remove the folders whose process has ended without their removal, of those processes that
        can be seen from here."""
        space = self._pid_namespace_id()
        for root in self._run_roots():
            try:
                names = os.listdir(self.folders.open(root))
            except (AwsVaultError, OSError):
                continue
            for name in names:
                life, _, mark = name.partition(".")
                try:
                    if mark == space and not ProcessIdentity.parse(life).is_alive(self):
                        self.remove_run_folder(os.path.join(root, name))
                except ValueError:
                    continue  # not one of ours

    def library_environment(self) -> LibraryEnvironment:
        """Return a context in which libraries see no AWS configuration but what we pass to them."""
        return LibraryEnvironment(self.environ)


TEMPORARY_PREFIX = ".awsvault-tmp-"
NATIVE_PARTS = {"cryptography": "cryptography.hazmat.bindings._rust"}
OPENSSL_VARIABLES = ("OPENSSL_CONF", "OPENSSL_MODULES")
RUN_AS_MODULE = (
    "import sys; folder, name = sys.argv[1:3]; del sys.argv[1:3]; sys.path.insert(0, folder); "
    "sys.exit(__import__(name).main())"
)
LOOK_SECONDS = 30.0  # a suspended machine's or a changed clock is noticed after this
PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4


def reported_error(text: str) -> str:
    """Return the error in what a run of this program printed, or the last line of another's."""
    error = next((line for line in text.splitlines() if "error: " in line), "")
    return (
        printable(error.replace("awsvault: error: ", "")) or last_line(text) or "it ended at once"
    )


ATTEMPTS = 3


def ask_until_right(
    world: World,
    question: str,
    read: Callable[[Secret], T],
    *,
    hidden: bool = False,
    timeout: float | None = None,
    instead: str,
    shown: Callable[[str], object] = bool,
) -> T:
    """Ask on the terminal until ``read`` takes the answer, three times in all; its last
    AwsVaultError is raised. ``timeout`` is for all of them."""
    ends = world.monotonic() + (timeout or 0)
    attempt = 0
    while True:
        attempt += 1
        rest = timeout and max(ends - world.monotonic(), 1)
        answer = world.ask(question, hidden=hidden, timeout=rest, instead=instead, shown=shown)
        try:
            return read(answer)
        except AwsVaultError as error:
            if attempt == ATTEMPTS:
                raise
            world.say(f"{error.message}: {error.hint or 'try again'}")


class QuietTerminal:
    """A block in which the terminal shows nothing that is typed, not even ahead of a question."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.fd = -1
        self.signals = RaisedSignals()

    def __enter__(self) -> None:
        self.fd = self.world.open_terminal()
        # To change a terminal in the background would stop us.
        if self.fd >= 0 and os.tcgetpgrp(self.fd) == os.getpgrp():
            self.signals.__enter__()
            self.before = termios.tcgetattr(self.fd)
            modes = termios.tcgetattr(self.fd)
            modes[3] &= ~termios.ECHO
            termios.tcsetattr(self.fd, termios.TCSADRAIN, modes)
            self.world.quiet = True

    def __exit__(self, *_exception: object) -> None:
        if self.world.quiet:
            self.world.quiet = False
            termios.tcsetattr(self.fd, termios.TCSADRAIN, self.before)
            self.signals.__exit__()
        if self.fd >= 0:
            os.close(self.fd)


class LibraryEnvironment:
    """A block in which os.environ names no AWS profile, file, key or setting; proxies stay."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.inside = {
            **{
                name: value
                for name, value in environ.items()
                if not name.startswith(("AWS_", "BOTO_", "_AWS_"))
            },
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def __enter__(self) -> None:
        self.outside = dict(os.environ)
        self._swap(self.inside)

    def __exit__(self, *_exception: object) -> None:
        self._swap(self.outside)

    def _swap(self, environ: Mapping[str, str]) -> None:
        os.environ.clear()
        os.environ.update(environ)


# ======================================================================
# Keystores
# ======================================================================
# Named blobs at rest. A keystore knows nothing of AWS, and asks for no more than its own
# passphrase.


class Item(Value):
    """A stored blob: its name, its content, and what a keystore shows of it."""

    key: str
    data: Secret
    label: str = ""
    description: str = ""
    trusted: bool = False


class WrappedItem(Value):
    """The members of an item's JSON that we read; Go takes their names in any case."""

    key: str = ""
    data: str = ""
    label: str = ""
    description: str = ""
    keychainnottrustapplication: bool = True


def wrap_item(item: Item) -> str:
    """Write the JSON in which aws-vault keeps a whole item (github.com/99designs/keyring's
    Item)."""
    return go_json(
        {
            "Key": item.key,
            "Data": binascii.b2a_base64(item.data.reveal_bytes(), newline=False).decode(),
            "Label": item.label,
            "Description": item.description,
            "KeychainNotTrustApplication": not item.trusted,
            "KeychainNotSynchronizable": False,
        }
    )


def foreign_entry(key: str, reason: str) -> ForeignEntry:
    """Return the error for what is not in aws-vault's form."""
    return ForeignEntry(
        f"stored item {printable(key)!r} is damaged, or another program's entry: {reason}",
        "awsvault never replaces or removes such an entry: choose another name, or remove it with"
        " the program that keeps it",
    )


def unwrap_item(key: str, text: Secret, file_name: str = "") -> Item:
    """Read an item's JSON as aws-vault does; ForeignEntry if it is none, DamagedItem if it belongs
    to another name.

    ``file_name`` is another name that it may have: aws-vault 4.2 named files by the key as it is.
    """
    try:
        members = {name.lower(): value for name, value in parse_json_object(text.reveal()).items()}
        if "data" not in members:
            raise ValueError("no item")
        wrapped = WrappedItem.from_members(members)
        data = binascii.a2b_base64(wrapped.data)
    except ValueError:
        raise foreign_entry(key, "not the JSON of an item") from None
    if "key" in members and wrapped.key not in (key, file_name or key):
        raise DamagedItem(
            f"stored item {printable(key)!r} is damaged: it was stored as "
            f"{printable(wrapped.key)!r}, and was renamed"
        )
    trusted = not wrapped.keychainnottrustapplication
    return Item(key, Secret(data), wrapped.label, wrapped.description, trusted)


class Keystore:
    """Where items are kept. Every method may raise KeystoreError; only ItemNotFound means "not
    there"."""

    name = ""

    def get(self, key: str) -> Item:
        """Return an item; ItemNotFound, or DamagedItem if only this one can't be read."""
        raise NotImplementedError

    def set(self, item: Item) -> None:
        """Store an item over any of its name, or refuse it before anything is written."""
        raise NotImplementedError

    def delete(self, key: str) -> None:
        """Remove an item; ItemNotFound if there is none."""
        raise NotImplementedError

    def keys(self) -> list[str]:
        """Return the names of all items; a locked store may ask the user to unlock it."""
        raise NotImplementedError

    def own(self, names: Iterable[str]) -> list[str]:
        """Return those names of credentials whose entries are in aws-vault's form. Nobody is
        asked; what can't be read without a question is left out, and that is said."""
        return list(names)

    def has_others(self) -> bool:
        """Return True if entries of other programs stand, or may stand, where items would."""
        return False

    def identity(self) -> str:
        """Return what tells this store from others, for the names of locks."""
        raise NotImplementedError

    def known(self) -> list[str] | None:
        """Return the names that are found without asking the store; None if there are none.

        They may be stale, or those of other programs: only ``keys`` knows what is there, and only
        ``own`` whose it is.
        """
        return None

    def probe(self) -> str:
        """Return nothing if the store can be used now, or what stands before it (``locked``).

        KeystoreError says why it can't be used at all. Nobody is asked anything.
        """
        return ""

    def refuse_name(self, key: str) -> str:
        """Return why this store can't keep an item of that name, or nothing."""
        if not key:
            return "it is empty"
        return "it has a control character" if any(map(is_control, key)) else ""

    def weak_items(self) -> int:
        """Return how many items are protected less than new ones would be."""
        return 0

    def stored_since(self, key: str) -> datetime.datetime | None:  # noqa: ARG002
        """Return when an item was last written, if the store knows without asking anybody."""
        return None

    def journal(self) -> Keystore:
        """Return the store of journals, which no program shall take for credentials: one beside
        this one, or this one, where their names are those of sessions."""
        return self


def not_stored(key: str) -> ItemNotFound:
    """Return the error for an item that is not there."""
    return ItemNotFound(f"nothing is stored as {printable(key)!r}")


DEFAULT_ITERATIONS = 600_000
MIN_ITERATIONS = 8192  # what aws-vault writes
MIN_READ_ITERATIONS = 1000
MAX_ITERATIONS = 1_300_000  # what aws-vault's fork reads
JWE_ALGORITHM = "PBES2-HS256+A128KW"
JWE_ENCRYPTION = "A256GCM"
MAX_JWE_HEADER = 4096


class Jwe(Value):
    """An encrypted item in JWE compact serialisation (RFC 7516), cut into its parts and checked."""

    header: str
    salt: bytes
    iterations: int
    wrapped_key: bytes
    nonce: bytes
    ciphertext: bytes
    tag: bytes

    @classmethod
    def parse(cls, token: bytes) -> Jwe:
        """Cut a token; ValueError unless it is of exactly the kind that aws-vault and this program
        write."""
        if not token.isascii():
            raise ValueError("not a JWE")
        parts = token.decode().split(".")
        if len(parts) != 5:
            raise ValueError(f"{len(parts)} parts instead of 5")
        if len(parts[0]) > MAX_JWE_HEADER:
            raise ValueError("its header is too long")
        header = parse_json_object(unb64url(parts[0]).decode())
        if header.get("alg") != JWE_ALGORITHM or header.get("enc") != JWE_ENCRYPTION:
            raise ValueError("another algorithm than aws-vault's")
        if "zip" in header or "crit" in header:
            raise ValueError("compression or critical extensions")
        iterations, salt_text = header.get("p2c"), header.get("p2s")
        if type(iterations) is not int or not MIN_READ_ITERATIONS <= iterations <= MAX_ITERATIONS:
            raise ValueError("an iteration count out of bounds")
        if not isinstance(salt_text, str):
            raise ValueError("no salt")
        salt, (wrapped, nonce, ciphertext, tag) = unb64url(salt_text), map(unb64url, parts[1:])
        if not 8 <= len(salt) <= 64 or len(wrapped) != 40 or len(nonce) != 12 or len(tag) != 16:
            raise ValueError("parts of the wrong size")
        return cls(parts[0], salt, iterations, wrapped, nonce, ciphertext, tag)

    def open(self, kek: bytes) -> bytes:
        """Decrypt with the key that the passphrase gave; ValueError if it does not fit."""
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap

        try:
            content_key = aes_key_unwrap(kek, self.wrapped_key)
            return AESGCM(content_key).decrypt(
                self.nonce, self.ciphertext + self.tag, self.header.encode()
            )
        except (InvalidUnwrap, InvalidTag):
            raise ValueError("the key does not fit") from None


def seal_jwe(
    plaintext: bytes, kek: bytes, salt: bytes, iterations: int, random: Callable[[int], bytes]
) -> bytes:
    """Encrypt an item as aws-vault does (RFC 7518 section 4.8: PBES2-HS256+A128KW with A256GCM)."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    from cryptography.hazmat.primitives.keywrap import aes_key_wrap

    header = b64url(
        go_json(
            {"alg": JWE_ALGORITHM, "enc": JWE_ENCRYPTION, "p2c": iterations, "p2s": b64url(salt)}
        ).encode()
    )
    content_key, nonce = random(32), random(12)
    sealed = AESGCM(content_key).encrypt(nonce, plaintext, header.encode())
    parts = [aes_key_wrap(kek, content_key), nonce, sealed[:-16], sealed[-16:]]
    return ".".join([header, *map(b64url, parts)]).encode()


def derive_kek(passphrase: Secret, salt: bytes, iterations: int) -> bytes:
    """Stretch a passphrase to the key that wraps an item's own key (RFC 7518 section 4.8.1.1)."""
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC

    full_salt = JWE_ALGORITHM.encode() + b"\0" + salt
    return PBKDF2HMAC(SHA256(), 16, full_salt, iterations).derive(passphrase.reveal_bytes())


def openssl_version(world: World) -> str:
    """Return the version of the OpenSSL inside cryptography."""
    world.load_library("cryptography")
    from cryptography.hazmat.backends.openssl import backend

    return backend.openssl_version_text()


PASSPHRASE_VARIABLE = "AWS_VAULT_FILE_PASSPHRASE"
PASSPHRASE_HINT = "set AWS_VAULT_FILE_PASSPHRASE, --file-passphrase-command or --file-passphrase-fd"


class Passphrase:
    """The file vault's passphrase, from the first source that is set, read or asked for at most
    once.

    ``source`` names the flag or variable that gives it, or its command. An empty one may open a
    vault of aws-vault's, for reading only; where it does not, it is none.
    """

    def __init__(
        self, world: World, given: Secret | None = None, command: str = "", source: str = ""
    ) -> None:
        self.world = world
        self.given = given
        self.command = command
        self.source = source
        self.asked = 0
        self.ends = 0.0

    def was_wrong(self, error: AwsVaultError) -> bool:
        """Forget what a user typed, or an empty one, so that it is asked for again; False if there
        was enough of that, or nobody typed it."""
        if self._is_empty():
            self.given = None
            return True
        if not 0 < self.asked < ATTEMPTS:
            return False
        self.given = None
        self.world.say(f"{error.message}: {error.hint}")
        return True

    def get(self, vault: str, *, new: bool) -> Secret:
        """Return it. The user types it twice for a ``new`` vault, where an empty one is refused
        (UsageError)."""
        if new and self._is_empty() and self.source == PASSPHRASE_VARIABLE:
            self.given = None
        if self.given is None:
            self.given = self._from_command() if self.command else self._from_user(vault, new)
        if new and not self.given:
            raise UsageError("an empty passphrase would protect nothing", "choose one")
        return self.given

    def _is_empty(self) -> bool:
        return self.given is not None and not self.given and not self.asked

    def hint(self) -> str:
        """Return what helps where it is wrong."""
        given = self.source and not self.asked
        return f"it comes from {self.source}: give the right one" if given else "try again"

    def _from_command(self) -> Secret:
        try:
            argv = shlex.split(self.command)
        except ValueError as error:
            raise UsageError(
                f"the passphrase command can't be read: {printable(error).lower()}"
            ) from None
        if not argv:
            raise UsageError("the passphrase command names no program")
        try:
            result = self.world.run(argv, timeout=PROMPT_WAIT_SECONDS, on_terminal=True)
        except ToolError as error:
            raise KeystoreError(
                f"the passphrase command gives nothing: {error.message}",
                "look at --file-passphrase-command and AWS_VAULT_FILE_PASSPHRASE_COMMAND",
            ) from None
        if result.status != 0:
            why = last_line(result.errors)  # with a terminal it stands there already
            raise KeystoreError(
                f"the passphrase command {printable(argv[0])!r} failed with status {result.status}"
                + (f": {why}" if why else ""),
                "run it by hand to see why",
            )
        return result.output.without_newline()

    def _from_user(self, vault: str, new: bool) -> Secret:
        def ask(question: str) -> Secret:
            rest = max(self.ends - self.world.monotonic(), 1)
            terminal = ", or run in a terminal" if self.world.may_ask else ""
            hint = f"{PASSPHRASE_HINT}{terminal}"
            return self.world.ask(question, hidden=True, timeout=rest, instead=hint)

        with self.world.lock("passphrase", vault, doing="asking for the vault's passphrase"):
            self.asked += 1
            self.ends = self.ends or self.world.monotonic() + PROMPT_WAIT_SECONDS
            answer = ask(f"Passphrase for {'the new vault' if new else 'vault'} {printable(vault)}")
            if new and answer and answer != ask("The same passphrase again"):
                raise UsageError("the two passphrases differ", "try again")
        return answer


class Rekey(Value):
    """What a change of the passphrase leaves until it is done: the number of the new folder."""

    inode: int


class FileKeystore(Keystore):
    """aws-vault's ``file`` backend: one JWE per item in a folder, sealed by a passphrase.

    ``iterations`` is the PBKDF2 count of new items. Items that one passphrase and count seal share
    a salt, so that one derivation opens all of them.
    """

    name = "file"

    def __init__(self, world: World, folder: str, passphrase: Passphrase, iterations: int) -> None:
        self.world = world
        self.folder = folder
        self.passphrase = passphrase
        self.iterations = iterations
        self._keks: dict[tuple[bytes, int], bytes] = {}
        self._proven_salt: bytes | None = None
        self._proven_in = 0  # the number of the folder that had the item

    def identity(self) -> str:
        return f"file:{self.world.real_path(self.folder)}"

    def stored_since(self, key: str) -> datetime.datetime | None:
        try:
            return unix_time(int(self.world.stat_own(self._path(key)).st_mtime))
        except (OSError, AwsVaultError):
            return None

    def journal(self) -> FileKeystore:
        folder = self.folder.rstrip("/") + ".journals"
        return FileKeystore(self.world, folder, self.passphrase, self.iterations)

    def keys(self) -> list[str]:
        names = (name for name in self._list() if not name.startswith(TEMPORARY_PREFIX))
        return list(
            dict.fromkeys(
                name if is_unescaped_name(name) else unescape_file_name(name) for name in names
            )
        )

    def known(self) -> list[str]:
        return self.keys()

    def own(self, names: Iterable[str]) -> list[str]:
        return [key for key in names if self._has_form(key)]

    def _has_form(self, key: str) -> bool:
        """Return True if a file begins as an item does, or is empty: aws-vault leaves such items
        when it is killed while it writes."""
        path = self._path(key)
        try:
            return self.world.read_own(path, MAX_ITEM_BYTES)[:3] in (b"", b"eyJ")
        except OSError as error:
            return error.errno not in (errno.ENOENT, errno.EFBIG, errno.EISDIR)

    def _check_form(self, key: str) -> None:
        path = self._path(key)
        if is_credential_name(key) and self._exists(path) and not self._has_form(key):
            raise foreign_entry(key, "not a JWE")

    def get(self, key: str) -> Item:
        token = self._read(key)
        jwe = self._parse(key, token)
        try:
            text = jwe.open(self._kek(jwe))
        except ValueError:
            error = self._explain_refusal(key)
            if self._ask_again(error):
                return self.get(key)
            raise error from None
        self._remember(jwe)
        if not self.passphrase.get(self.folder, new=False):
            self.world.say_once(
                f"warning: the passphrase of {printable(self.folder)} is empty: all who can read"
                " the files have the keys; awsvault rekey sets another"
            )
        item = unwrap_item(key, Secret(text), escape_file_name(key))
        if jwe.iterations < self.iterations and not SessionKey.parse(key):
            self._reseal(item, token)
        return item

    def set(self, item: Item) -> None:
        reason = self.refuse_name(item.key) or super().refuse_name(item.key)
        if reason:
            raise KeystoreError(f"the file vault can't keep {printable(item.key)!r}: {reason}")
        text = wrap_item(item).encode("utf-8", "surrogateescape")
        if len(text) > MAX_ITEM_BYTES // 2:
            raise KeystoreError(f"{printable(item.key)!r} is too large for the file vault")
        self._check_form(item.key)
        self.world.load_library("cryptography")
        new = not self.keys()
        passphrase = self.passphrase.get(self.folder, new=new)
        self.world.private_folder(self.folder)
        try:
            with self._write_lock():
                self._look_again()
                salt = self._salt_for_writing(passphrase)
                if not passphrase:
                    raise KeystoreError(
                        "nothing is stored by an empty passphrase", "awsvault rekey sets another"
                    )
                kek = self._derive(passphrase, salt, self.iterations)
                self._write(item.key, seal_jwe(text, kek, salt, self.iterations, self.world.random))
        except WrongPassphrase as error:
            if not self._ask_again(error):
                raise
            self.set(item)

    def _ask_again(self, error: KeystoreError) -> bool:
        """Forget a passphrase that a user mistyped; False if that is not what is wrong."""
        if not (isinstance(error, WrongPassphrase) and self.passphrase.was_wrong(error)):
            return False
        self._keks.clear()
        return True

    def delete(self, key: str) -> None:
        with self._write_lock():
            self._look_again()
            self._check_form(key)
            try:
                self.world.delete_file(self._path(key))
            except FileNotFoundError:
                raise not_stored(key) from None
            except OSError as error:
                raise KeystoreError(
                    f"can't remove {printable(key)!r}: {os_reason(error)}"
                ) from None

    def refuse_name(self, key: str) -> str:
        if key in ("", ".", ".."):
            return "it names a folder"
        if "\0" in key:
            return "it has a control character"
        if key.startswith(TEMPORARY_PREFIX):
            return "it is the name of a temporary file"
        size = len(os.fsencode(escape_file_name(key)))
        return (
            f"its file name would have {size} bytes, {MAX_FILE_NAME_BYTES} is the most"
            if size > MAX_FILE_NAME_BYTES
            else ""
        )

    def weak_items(self) -> int:
        return sum(
            1
            for key in self.keys()
            if (jwe := self._peek(key)) and jwe.iterations < self.iterations
        )

    def has_items(self) -> bool:
        """Return True if there is any item, also a damaged one; a file whose name begins with a dot
        must be one."""
        return any(not key.startswith(".") or self._peek(key) for key in self.keys())

    # -- keys ----------------------------------------------------------------

    def _kek(self, jwe: Jwe) -> bytes:
        self.world.load_library("cryptography")
        return self._derive(self.passphrase.get(self.folder, new=False), jwe.salt, jwe.iterations)

    def _derive(self, passphrase: Secret, salt: bytes, iterations: int) -> bytes:
        if (salt, iterations) not in self._keks:
            self._keks[salt, iterations] = derive_kek(passphrase, salt, iterations)
        return self._keks[salt, iterations]

    def _remember(self, jwe: Jwe) -> None:
        # Only a salt inside a header that our own key has just authenticated may be used again:
        # a planted item must not choose our salt.
        if jwe.iterations == self.iterations and len(jwe.salt) >= 12:
            self._proven_salt = jwe.salt
            self._proven_in = self.world.folder_number(self.folder)

    def _look_again(self) -> None:
        """Reach the folder that has the name now, under the lock: rekey() in another process may
        have put it in the place of the one that was read."""
        self.world.folders.drop(self.folder)
        if self._proven_in and self.world.folder_number(self.folder) != self._proven_in:
            self._proven_salt, self._proven_in = None, 0

    def _salt_for_writing(self, passphrase: Secret) -> bytes:
        """Return the salt of an item that the passphrase opens at the current count, else a new
        one.

        A passphrase that opens none of the credential items is refused: it was mistyped.
        """
        if self._proven_salt is None:
            items = [
                jwe for key in self.keys() if is_credential_name(key) and (jwe := self._peek(key))
            ]
            tried = self._open_any(items, passphrase)
            if tried:
                what = "nothing that is" if tried == len(items) else f"none of {tried} items tried,"
                raise WrongPassphrase(
                    f"this passphrase opens {what} stored in {printable(self.folder)}",
                    f"{self.passphrase.hint()}; --file-dir names another folder",
                )
        return self._proven_salt or self.world.random(12)

    def _opens(self, jwe: Jwe, passphrase: Secret) -> bool:
        try:
            jwe.open(self._derive(passphrase, jwe.salt, jwe.iterations))
        except ValueError:
            return False
        self._remember(jwe)
        return True

    def _explain_refusal(self, key: str) -> KeystoreError:
        passphrase = self.passphrase.get(self.folder, new=False)
        others = [jwe for other in self.keys() if other != key and (jwe := self._peek(other))]
        tried = self._open_any(others, passphrase)
        if others and not tried:
            return DamagedItem(
                f"stored item {printable(key)!r} is damaged, or was stored under another "
                "passphrase: other items open",
                f"awsvault remove {printable(key)}, then add it again"
                if is_credential_name(key)
                else "awsvault clear",
            )
        if tried < len(others):
            return WrongPassphrase(
                f"the passphrase opens neither {printable(key)!r} nor {tried} of {len(others)}"
                f" other items in {printable(self.folder)}: it is wrong, or those are not yours",
                "try again; items of others, or very slow ones, are in the way: remove them",
            )
        maybe = "" if others else ", or the only item is damaged"
        shown = printable(self.folder)
        return WrongPassphrase(f"wrong passphrase for {shown}{maybe}", self.passphrase.hint())

    def _open_any(self, items: Sequence[Jwe], passphrase: Secret) -> int:
        """Return 0 if the passphrase opens one of some items, else how many were tried.

        There may be planted slow ones: the derivations are bounded, and those that open most
        items come first, since all of ours share one.
        """
        groups: dict[tuple[bytes, int], list[Jwe]] = {}
        for jwe in items:
            groups.setdefault((jwe.salt, jwe.iterations), []).append(jwe)
        work = tried = 0
        for (salt, count), group in sorted(
            groups.items(), key=lambda row: (row[0][1] != self.iterations, -len(row[1]), row[0][1])
        ):
            cost = 0 if (salt, count) in self._keks else count
            if work + cost > MAX_PROBE_ITERATIONS:
                continue  # a cheaper one may follow
            work += cost
            tried += len(group)
            if any(self._opens(jwe, passphrase) for jwe in group):
                return 0
        return tried

    def _reseal(self, item: Item, token: bytes) -> None:
        """Protect an older item as new ones are, unless it was replaced meanwhile or nothing
        can be written."""
        passphrase = self.passphrase.get(self.folder, new=False)
        if not passphrase:
            return
        try:
            with self._write_lock():
                self._look_again()
                if self._read(item.key) != token:
                    return
                salt = self._salt_for_writing(passphrase)
                kek = self._derive(passphrase, salt, self.iterations)
                text = wrap_item(item).encode("utf-8", "surrogateescape")
                self._write(item.key, seal_jwe(text, kek, salt, self.iterations, self.world.random))
        except AwsVaultError as error:
            self.world.debug(
                f"{printable(item.key)!r} keeps its {MIN_ITERATIONS}-fold protection: "
                f"{error.message}"
            )

    # -- another passphrase ----------------------------------------------------

    def rekey(self, passphrase: Passphrase) -> int:
        """Seal all items by another passphrase; return how many. Sessions are dropped.

        The new folder is made beside the old one and takes its place in one step, so that at any
        time one passphrase opens all that is there. KeystoreError if an item can't be opened, or
        the vault changes meanwhile: then nothing has changed. Call finish_rekey() first.
        """
        with self._write_lock():
            try:
                before = self._snapshot()
                fresh = FileKeystore(self.world, self._fresh, passphrase, self.iterations)
                count = self._seal_all(fresh)
                if self._snapshot() != before:
                    raise KeystoreError(f"{printable(self.folder)} changed meanwhile", "try again")
                self._put_fresh_in_place()
            finally:
                self._clear_rekey()
        return count

    def _seal_all(self, fresh: FileKeystore) -> int:
        # Read as they are, since what is sealed anew here would be thrown away.
        reader = FileKeystore(self.world, self.folder, self.passphrase, MIN_READ_ITERATIONS)
        kept = [key for key in self.keys() if SessionKey.parse(key) is None]
        for key in kept:
            fresh.set(reader.get(key))
        return len(kept)

    def _put_fresh_in_place(self) -> None:
        number = Rekey(self.world.folder_number(self._fresh))
        text = to_bytes(go_json(number.members()))
        self.world.write_atomic(self._rekey_file, text, self._scratch())
        try:
            self.world.exchange_folders(self._fresh, self.folder)
        except OSError as error:
            self.world.debug(f"two renames instead of an exchange: {os_reason(error)}")
            self.world.rename_folder(self.folder, self._old)
            self.world.rename_folder(self._fresh, self.folder)

    def finish_rekey(self) -> bool:
        """Clear away what an interrupted rekey() left; True if the new passphrase holds already."""
        with self._write_lock():
            return self._clear_rekey()

    def _clear_rekey(self) -> bool:
        try:
            text = self.world.read_own(self._rekey_file, MAX_ITEM_BYTES)
            number = Rekey.from_members(parse_json_object(to_text(text))).inode
        except (FileNotFoundError, ValueError):
            number = 0  # nothing has taken the place of anything
        if number and self._exists(self._fresh) and self._exists(self._old):
            try:
                self.world.rename_folder(self._fresh, self.folder)
            except OSError as error:
                raise KeystoreError(
                    f"{printable(self.folder)} was made anew in the middle of a rekey: "
                    f"{os_reason(error)}",
                    "move it away, then awsvault rekey",
                ) from None
        done = number != 0 and self.world.folder_number(self.folder) == number
        for folder in (self._fresh, self._old):
            names = self.world.list_folder(folder)
            paths = (os.path.join(folder, name) for name in names)
            self.world.remove_leftovers([*paths, folder])
        self.world.remove_leftovers([self._rekey_file])
        return done

    def _snapshot(self) -> list[tuple[str, int, int, int]]:
        """Return what tells whether anything was written."""
        names = self.world.list_folder(self.folder)
        states = [self.world.stat_own(os.path.join(self.folder, name)) for name in names]
        return [
            (name, state.st_ino, state.st_mtime_ns, state.st_size)
            for name, state in zip(names, states)
        ]

    def _is_half_renamed(self) -> bool:
        try:
            return self._exists(self._rekey_file) and not self._exists(self.folder)
        except AwsVaultError:  # above it is a folder of another user, so none was renamed
            return False

    @property
    def _fresh(self) -> str:
        return f"{self.folder.rstrip('/')}.rekey"

    @property
    def _old(self) -> str:
        return f"{self.folder.rstrip('/')}.old"

    @property
    def _rekey_file(self) -> str:
        return f"{self._fresh}.json"

    # -- files -----------------------------------------------------------------

    def probe(self) -> str:
        self.world.load_library("cryptography")
        return super().probe()

    def _list(self) -> list[str]:
        try:
            names = self.world.list_folder(self.folder)
            if not names and self._is_half_renamed():
                raise KeystoreError(
                    f"rekey of {printable(self.folder)} was interrupted",
                    "awsvault rekey finishes it",
                )
            return names
        except OSError as error:
            raise KeystoreError(f"vault {printable(self.folder)}: {os_reason(error)}") from None

    def _path(self, key: str) -> str:
        """Return the path of a key's file, for reading, writing and removing alike (KeystoreError
        for a name that can't be kept)."""
        reason = self.refuse_name(key)
        if reason:
            raise KeystoreError(f"the file vault can't keep {printable(key)!r}: {reason}")
        escaped = os.path.join(self.folder, escape_file_name(key))
        if is_unescaped_name(key) and "/" not in key and not self._exists(escaped):
            verbatim = os.path.join(self.folder, key)
            return verbatim if self._exists(verbatim) else escaped
        return escaped

    def _exists(self, path: str) -> bool:
        try:
            self.world.stat_own(path)
        except FileNotFoundError:
            return False
        return True

    def _read(self, key: str) -> bytes:
        if self.refuse_name(key):
            raise not_stored(key)
        try:
            return self.world.read_own(self._path(key), MAX_ITEM_BYTES)
        except (FileNotFoundError, IsADirectoryError):
            raise not_stored(key) from None
        except OSError as error:
            raise KeystoreError(
                f"can't read {printable(self._path(key))}: {os_reason(error)}"
            ) from None

    def _parse(self, key: str, token: bytes) -> Jwe:
        try:
            return Jwe.parse(token)
        except ValueError as error:
            what = f"{printable(error)}" if token else "it is empty"
            if token and token[:3] != b"eyJ":
                raise foreign_entry(key, what) from None
            raise DamagedItem(
                f"stored item {printable(key)!r} is damaged: {what}",
                f"restore {printable(self._path(key))} from a backup, or awsvault remove it and "
                "add it again",
            ) from None

    def _peek(self, key: str) -> Jwe | None:
        try:
            return self._parse(key, self._read(key))
        except KeystoreError:
            return None

    def _write(self, key: str, token: bytes) -> None:
        path, before = os.path.join(self.folder, escape_file_name(key)), self._path(key)
        try:
            self.world.write_atomic(path, token, self._scratch())
            if before != path:
                self.world.delete_file(before)
        except OSError as error:
            raise KeystoreError(f"can't write {printable(path)}: {os_reason(error)}") from None

    def _scratch(self) -> str:
        # Outside the folder, whose every entry aws-vault lists; on the same device, or the rename
        # would not be whole.
        try:
            scratch = self.world.private_folder(
                os.path.join(self.world.own_home(), ".awsvault", "tmp")
            )
            if self.world.same_device(scratch, self.folder):
                return scratch
        except (AwsVaultError, OSError) as error:
            self.world.debug(f"temporary files go beside the items: {error}")
        return self.folder

    def _write_lock(self) -> Lock:
        return self.world.lock("vault", self.identity(), doing="writing to the vault")


MAX_PROBE_ITERATIONS = 3 * MAX_ITERATIONS


def escape_file_name(key: str) -> str:
    """Write a key as aws-vault names its file: only ``/`` and ``%`` are percent-encoded."""
    return key.replace("%", "%25").replace("/", "%2F")


def unescape_file_name(name: str) -> str:
    """Turn a file's name back into its key; malformed sequences stay."""
    return (
        re.sub("%([0-9A-Fa-f]{2})", lambda match: chr(int(match[1], 16)), name)
        if "%" in name
        else name
    )


def is_unescaped_name(name: str) -> bool:
    """Return True if only aws-vault 4.2, which escapes nothing, can have named a file so."""
    return "%" in name and escape_file_name(unescape_file_name(name)) != name


class IndexFile(Value):
    """The content of a name index."""

    version: int
    names: dict[str, str]


class NameIndex:
    """The names in a native keystore, without secrets, so that a hit needs no listing.

    Unless it is ``whole`` it holds the names of some entries only, and begins with any of them.

    One file for each keystore in ``~/.awsvault/index``: ``{"version": 1, "names": {name: place}}``;
    what a place means, the keystore knows. A file that is missing, damaged or of another version is
    no index, and one that can't be written is a pity and no error.
    """

    def __init__(self, world: World, identity: str, *, whole: bool = True) -> None:
        self.world = world
        self.identity = identity
        self.whole = whole

    def read(self) -> dict[str, str] | None:
        """Return each known name's place; None if there is no index."""
        try:
            text = to_text(self.world.read_own(self._path(), MAX_ITEM_BYTES))
            data = IndexFile.from_members(parse_json_object(text))
        except (AwsVaultError, OSError, ValueError):
            return None
        return data.names if data.version == 1 else None

    def write(self, names: Mapping[str, str]) -> None:
        """Replace the index, if it says something else."""
        if names == self.read():
            return
        text = go_json({"version": 1, "names": dict(sorted(names.items()))})
        try:
            write_own_file(self.world, self._path(), text)
        except AwsVaultError as error:
            self.world.debug(f"the names of the keystore's items can't be remembered: {error}")

    def change(self, places: Mapping[str, str | None]) -> None:
        """Add names, or take away those whose place is None; without a whole index nothing is
        done."""
        with self.world.lock("index", self.identity, doing="writing the index of the keystore"):
            names = self.read()
            if names is None and self.whole:
                return
            changed = {**(names or {}), **places}
            self.write({key: place for key, place in changed.items() if place is not None})

    def _path(self) -> str:
        name = f"{digest(self.identity)[:32]}.json"
        return os.path.join(self.world.own_home(), ".awsvault", "index", name)


def write_own_file(world: World, path: str, text: str) -> None:
    """Write a file of ours below ~/.awsvault whole, 0600 (AwsVaultError)."""
    scratch = world.private_folder(os.path.join(world.own_home(), ".awsvault", "tmp"))
    world.private_folder(os.path.dirname(path))
    try:
        world.write_atomic(path, text.encode("utf-8", "surrogateescape"), scratch)
    except OSError as error:
        raise AwsVaultError(f"can't write {printable(path)}: {os_reason(error)}") from None


class NativeKeystore(Keystore):
    """A keystore that other programs keep and their own tools reach.

    A subclass says how one item is loaded, stored and removed and how all are listed; here is what
    they share: names are checked, and an index remembers them. A name's place is what the subclass
    wants to know about it next time. Where a list tells nothing but names, it says which entries
    have been read and found to be items: their place is their proof.
    """

    def __init__(self, world: World) -> None:
        self.world = world

    @property
    def index(self) -> NameIndex:
        """The names that are known without asking."""
        return NameIndex(self.world, self.identity())

    def get(self, key: str) -> Item:
        if self.refuse_name(key):
            raise not_stored(key)
        return self._load(key)

    def set(self, item: Item) -> None:
        reason = self.refuse_name(item.key)
        if reason:
            raise KeystoreError(f"{self.name} can't keep {printable(item.key)!r}: {reason}")
        self.index.change({item.key: self._store(item)})

    def delete(self, key: str) -> None:
        if self.refuse_name(key):
            raise not_stored(key)
        self._check_form(key)
        try:
            self._remove(key)
        finally:
            self.index.change({key: None})

    def keys(self) -> list[str]:
        names = self._list()
        self.index.write(names)
        return list(names)

    def known(self) -> list[str] | None:
        names = self.index.read()
        return None if names is None else list(names)

    def _load(self, key: str) -> Item:
        """Return an item."""
        raise NotImplementedError

    def _store(self, item: Item) -> str:
        """Store an item, or refuse it before anything is written; return its place."""
        raise NotImplementedError

    def _remove(self, key: str) -> None:
        raise NotImplementedError

    def _list(self) -> dict[str, str]:
        """Return the place of each item."""
        raise NotImplementedError

    def _check_form(self, key: str) -> None:
        """Refuse to replace or remove an entry that is not in aws-vault's form (ForeignEntry). The
        name of a session or token is proof enough."""
        if is_credential_name(key) and (self.index.read() or {}).get(key) != self._proof(key):
            self._refuse_foreign(self._load, key)

    def _refuse_foreign(self, read: Callable[..., Item], *what: object) -> None:
        try:
            read(*what)
        except ForeignEntry:
            raise
        except (ItemNotFound, DamagedItem):
            return

    def _proof(self, key: str) -> str:  # noqa: ARG002
        """Return the place of an entry that was read and is an item."""
        return "an item"

    def _read_first(self, names: Iterable[str]) -> list[str]:
        """Return the names whose entries are items. Those without proof are read, for a moment and
        without a question to anybody."""
        known, found = self.index.read() or {}, []
        read: dict[str, str | None] = {}
        unread, end = 0, self.world.monotonic() + READ_FIRST_SECONDS
        for key in names:
            proof, place = self._proof(key), known.get(key)
            if place not in (proof, FOREIGN + proof):
                try:
                    if self.world.monotonic() > end:
                        raise Unanswered("no time is left")
                    place = read[key] = self._read_quietly(key)
                except KeystoreError:
                    unread += 1
            if place == proof:
                found.append(key)
        if read:
            self.index.change(read)
        if unread:
            self.world.say_once(
                f"note: {unread} entries of {self.name} are not listed: they can't be read now"
                " without a question, or not so many at once"
            )
        return found

    def _read_quietly(self, key: str) -> str:
        """Read an entry and return its place; KeystoreError if the user would have to be asked."""
        raise NotImplementedError


FOREIGN = "not an item, "  # begins the place of an entry that was read, and is another program's
READ_FIRST_SECONDS = 2.0


OTHER_KEYSTORE_HINT = "awsvault backends shows which keystores work here"
# Messages in English and names in UTF-8: with LC_ALL=C secret-tool refuses names beyond ASCII.
TOOL_ENVIRONMENT: dict[str, str | None] = {
    "LC_ALL": "en_US.UTF-8" if sys.platform == "darwin" else "C.UTF-8",
    "LANGUAGE": None,
}


class Service(Value):
    """A D-Bus service that keeps items, and the tool that hands them over."""

    title: str
    bus_name: str
    tool: str
    package: str
    absent_hint: str


SECRET_SERVICE = Service(
    "the Secret Service",
    "org.freedesktop.secrets",
    "secret-tool",
    "libsecret-tools (libsecret)",
    "start gnome-keyring or another provider, or choose another keystore: awsvault backends",
)
KWALLET = Service(
    "KWallet",
    "org.kde.kwalletd5",
    "kwallet-query",
    "libkf5wallet-bin (kwallet)",
    "start KDE's wallet (kwalletd5), or choose another keystore: awsvault backends",
)

# What tools print -> what it means, and what helps; {title} is the service.
BUS_FAILURES = (
    (
        r"not provided by any \.service files|is not activatable",
        "{title} is not there: no program offers {bus_name} on this bus",
        "{absent_hint}",
    ),
    (
        r"received signal|exited with status|Failed to execute|StartServiceByName",
        "{title} could not be started",
        "look at why its daemon ends: journalctl --user",
    ),
    (
        r"disconnected from message bus|NoReply",
        "{title} is disabled, or ended while it was asked",
        "enable it in the desktop's settings, or choose another keystore: awsvault backends",
    ),
    (
        r"Could not connect|Failed to connect|onnection (refused|is closed|reset)|not connected",
        "the D-Bus session bus went away",
        "log in again",
    ),
    (
        r"prompt was dismissed|[Pp]rompt.*(dismissed|cancel)",
        "{title}'s question was dismissed",
        "try again",
    ),
)
NO_SUCH_OBJECT = (
    r"does not exist|[Nn]o such (object|interface|method)|Unknown (object|method)|UnknownObject"
)


class NoSuchObject(KeystoreError):
    """The service has no object of that path."""


class TooEarly(KeystoreError):
    """gnome-keyring looked at a call before it knew the caller, and denies having the method."""


class Unanswered(KeystoreError):
    """The service hangs, or waits for the user."""


class BusTools:
    """A service's tools on a session bus that is surely this user's own.

    ``secret-tool`` and ``kwallet-query`` carry the secrets, by their standard input and output;
    ``busctl``, or ``gdbus`` where there is none, asks what carries none.
    """

    def __init__(self, world: World, service: Service) -> None:
        self.world = world
        self.service = service

    def check(self) -> None:
        """Find out whether there are the tools and a bus (KeystoreError)."""
        if not self.world.has_program(self.service.tool):
            raise self._missing(self.service.tool, self.service.package)
        self._caller()
        self.world.session_bus()

    def run(
        self, *arguments: str, stdin: Secret | None = None, may_ask: bool = False
    ) -> ToolResult:
        """Run the service's tool; ``may_ask`` gives the user the time to answer its question."""
        timeout = PROMPT_WAIT_SECONDS if may_ask else BUS_WAIT_SECONDS
        try:
            return self._run([self.service.tool, *arguments], timeout, stdin)
        except ToolMissing:
            raise self._missing(self.service.tool, self.service.package) from None
        except ToolTimeout:
            raise self._silence(timeout, may_ask) from None

    def call(
        self,
        path: str,
        method: str,
        signature: str = "",
        *arguments: object,
        may_ask: bool = False,
        timeout: float = BUS_WAIT_SECONDS,
    ) -> Any:
        """Call ``interface.method`` of one of the service's objects and return the first result.

        NoSuchObject, or a KeystoreError that says what is wrong with the service.
        """
        timeout = PROMPT_WAIT_SECONDS if may_ask else timeout
        asked = (self.service.bus_name, path, method, signature, arguments, timeout)
        for attempt in range(BUS_ATTEMPTS):
            try:
                values = self._call(*asked)
                break
            except ToolTimeout:
                raise self._silence(timeout, may_ask) from None
            except TooEarly:
                if attempt == BUS_ATTEMPTS - 1:
                    raise
        return self.checked(method.rpartition(".")[2], values[0] if values else None)

    def checked(self, name: str, value: Any) -> Any:
        """Return the result of a call, or a property; KeystoreError if it is of another type."""
        try:
            if name not in BUS_RESULTS or has_type(value, BUS_RESULTS[name]):
                return value
        except ValueError:
            pass
        text = f"{self.service.title} answers with what is no {name}"
        raise KeystoreError(text, OTHER_KEYSTORE_HINT)

    def explain(self, text: str) -> KeystoreError:
        """Return what a tool's message means."""
        for pattern, message, hint in BUS_FAILURES:
            if re.search(pattern, text):
                return KeystoreError(self._fill(message), self._fill(hint))
        if "timed out" in text or "Timeout was reached" in text:
            return self._silence(BUS_WAIT_SECONDS, may_ask=False)
        return KeystoreError(
            f"{self.service.title} refused: {last_line(text) or 'it does not say why'}",
            OTHER_KEYSTORE_HINT,
        )

    def locked(self, what: str) -> LockedKeystore:
        """Return the error for what nobody can unlock here."""
        return LockedKeystore(
            f"{what} is locked, and nobody can be asked for its password here",
            "unlock it on the desktop, or choose another keystore: awsvault backends",
        )

    def _fill(self, text: str) -> str:
        values = {name: getattr(self.service, name) for name in self.service._fields}
        return text.format(**values)

    def _missing(self, tool: str, package: str) -> KeystoreError:
        return KeystoreError(
            f"{tool} is not installed", f"install the package {package}; {OTHER_KEYSTORE_HINT}"
        )

    def _silence(self, timeout: float, may_ask: bool) -> KeystoreError:
        """Tell a service that does not answer from a bus that does not, and from the user."""
        title = self.service.title
        if may_ask:
            return KeystoreError(
                f"nobody answered the question of {title} within {timeout:.0f} seconds",
                "answer the window on the desktop",
            )
        asked = ("s", (self.service.bus_name,), BUS_PROBE_SECONDS)
        try:
            method = "org.freedesktop.DBus.NameHasOwner"
            self._call("org.freedesktop.DBus", "/org/freedesktop/DBus", method, *asked)
        except AwsVaultError:
            silent = Unanswered("the D-Bus session bus does not answer", "log in again")
            self.world.give_up_session_bus(silent)
            return silent
        return Unanswered(
            f"{title} does not answer (waited {timeout:.0f} seconds)",
            "its daemon hangs, or waits for an answer to a window on the desktop;"
            " restart it if it does not",
        )

    def _caller(self) -> str:
        for tool in ("busctl", "gdbus"):
            if self.world.has_program(tool):
                return tool
        if not self.world.has_program(self.service.tool):
            raise self._missing(self.service.tool, self.service.package)
        raise self._missing("busctl", "systemd, or libglib2.0-bin (for gdbus)")

    def _call(
        self, name: str, path: str, method: str, signature: str, arguments: Sequence[object],
        timeout: float,
    ) -> list[Any]:  # fmt: skip
        interface, _, member = method.rpartition(".")
        if self._caller() == "busctl":
            options = ["--user", "--json=short", f"--timeout={timeout * 1000:.0f}ms"]
            # busctl takes options anywhere before a "--".
            argv = ["busctl", *options, "--", "call", name, path, interface, member]
            argv += [signature, *map(str, arguments)] if signature else []
        else:
            argv = ["gdbus", "call", "--session", "--timeout", f"{max(1, timeout):.0f}"]
            argv += ["--dest", name, "--object-path", path, "--method", method]
            argv += gvariant_arguments(signature, arguments)
        return self._parse(self._run(argv, timeout + 0.2), argv[0])

    def labels(self, path: str) -> dict[str, tuple[str, dict[str, str]]] | None:
        """Return label and attributes of each object below a path by one call of gdbus; None if
        that fails."""
        argv = ["gdbus", "introspect", "--session", "--dest", self.service.bus_name]
        argv += ["--object-path", path, "--recurse", "--only-properties"]
        line, found = r"(?m)^\s*readwrite (?:s|a\{ss\}) (?:Label|Attributes) = (.*);$", {}
        try:
            result = self._run(argv, BUS_WAIT_SECONDS)
            nodes = re.split(r"(?m)^\s*node (\S+) \{$", result.output.reveal())[1:]
            for node, text in zip(nodes[::2], nodes[1::2]):
                shown = [parse_gvariant(value) for value in re.findall(line, text)]
                shown.sort(key=lambda value: isinstance(value, dict))
                if len(shown) == 2:
                    label = self.checked("Label", shown[0])
                    found[node] = label, self.checked("Attributes", shown[1])
        except (ToolMissing, ToolTimeout, ValueError):
            return None
        return found if result.status == 0 else None

    def _parse(self, result: ToolResult, tool: str) -> list[Any]:
        text = result.output.reveal()
        if result.status != 0:
            if "is not implemented on interface" in result.errors:
                raise TooEarly(f"{self.service.title}: {last_line(result.errors)}")
            if re.search(NO_SUCH_OBJECT, result.errors):
                raise NoSuchObject(last_line(result.errors))
            raise self.explain(result.errors)
        try:
            if tool == "gdbus":
                return list(parse_gvariant(text))
            return list(unwrap_variants(parse_json_object(text)["data"])) if text.strip() else []
        except (ValueError, TypeError, KeyError, RecursionError):
            raise KeystoreError(f"{tool} printed what can't be read", OTHER_KEYSTORE_HINT) from None

    def _run(self, argv: Sequence[str], timeout: float, stdin: Secret | None = None) -> ToolResult:
        environ = {
            **TOOL_ENVIRONMENT,
            "DBUS_SESSION_BUS_ADDRESS": self.world.session_bus(),
            "SECRET_BACKEND": None,  # makes secret-tool look elsewhere, or wait for ever
            "G_MESSAGES_DEBUG": None,
            "TZ": "UTC",
            "QT_QPA_PLATFORM": "offscreen",
            "QT_LOGGING_RULES": "*=false",
        }
        return self.world.run(argv, stdin=stdin, timeout=timeout, environ=environ)


def unwrap_variants(value: Any) -> Any:
    """Take the values out of the type annotations that busctl's JSON puts around variants."""
    if isinstance(value, dict):
        if set(value) == {"type", "data"}:
            return unwrap_variants(value["data"])
        return {name: unwrap_variants(member) for name, member in value.items()}
    return [unwrap_variants(member) for member in value] if isinstance(value, list) else value


def parse_gvariant(text: str) -> Any:
    """Read GVariant text, as gdbus prints it, into Python's values (ValueError)."""
    token = re.compile(
        r"""(b?'(?:[^'\\]|\\.)*'|b?"(?:[^"\\]|\\.)*")|\b(true|false)\b|[0-9a-f]{30,}"""
        r"|@\S+\s|\b(?:objectpath|byte|u?int(?:16|32|64))\s|[<>]"
    )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python 3.8 and newer warn of 1and, on standard error
            return ast.literal_eval(token.sub(lambda m: m[1] or (m[2] or "").title(), text.strip()))
    except (SyntaxError, TypeError, MemoryError, RecursionError):
        raise ValueError("no GVariant text") from None


# Types of D-Bus -> the values that they become here.
BUS_TYPES: dict[str, Callable[[Any], bool]] = {
    "s": lambda value: isinstance(value, str) and check_text(value) == value,
    "b": lambda value: isinstance(value, bool),
    "i": lambda value: type(value) is int and abs(value) < 2**31,
    "y": lambda value: type(value) is int and 0 <= value < 256,
    "t": lambda value: type(value) is int and 0 <= value < 2**36,  # seconds until the year 4147
    "v": lambda value: True,  # noqa: ARG005
}
# What the calls that are made here return first, and the properties that are read.
BUS_RESULTS = {
    "GetAll": "a{sv}", "ReadAlias": "s", "SearchItems": "as", "Unlock": "as", "Delete": "s",
    "isEnabled": "b", "wallets": "as", "isOpen": "b", "open": "i", "entryList": "as",
    "entryType": "i", "readPassword": "s", "readEntry": "ay", "removeEntry": "i",
    "Collections": "as", "Items": "as", "Locked": "b", "Label": "s", "Attributes": "a{ss}",
    "Modified": "t",
}  # fmt: skip


def has_type(value: Any, kind: str) -> bool:
    """Return True if a value is of a D-Bus type (ValueError for a text that can't be used)."""
    if kind.startswith("a{"):
        return isinstance(value, dict) and all(
            has_type(name, "s") and has_type(member, kind[3:-1]) for name, member in value.items()
        )
    if kind.startswith("a"):
        several = isinstance(value, (list, bytes))
        return several and all(has_type(member, kind[1:]) for member in value)
    return BUS_TYPES[kind](value)


def gvariant_arguments(signature: str, arguments: Sequence[object]) -> list[str]:
    """Write busctl's arguments as gdbus takes them: GVariant text."""
    if signature == "ao":
        return [json.dumps(arguments[1:])]
    if signature == "a{ss}":
        texts = [json.dumps(text) for text in arguments[1:]]
        pairs = (f"{name}: {value}" for name, value in zip(texts[::2], texts[1::2]))
        return [f"{{{', '.join(pairs)}}}"]
    return [json.dumps(value) if kind != "x" else f"int64 {value}"
            for kind, value in zip(signature, arguments)]  # fmt: skip


SECRETS_ROOT = "/org/freedesktop/secrets"
SECRET_INTERFACE = "org.freedesktop.Secret."
ITEM_ATTRIBUTES = {"profile", "application", "xdg:schema"}
MAX_SECRET_TOOL_BYTES = 8191  # secret-tool cuts what is longer, and says so with exit status 0


class Collection(Value):
    """Where our items are: a collection of their own, or a part of the default one."""

    path: str
    own: bool

    def attributes(self, name: str, key: str) -> tuple[str, ...]:
        """Return the names and values by which an item is found again."""
        return (name, key) if self.own else ("application", "awsvault", name, key)


class FoundSecret(Value):
    """An item that secret-tool shows: the end of its path, its content unless it is locked."""

    number: str
    secret: Secret | None
    modified: str


class SecretService(NativeKeystore):
    """The freedesktop.org Secret Service (gnome-keyring, KWallet, KeePassXC) by secret-tool.

    Items lie as aws-vault lays them in the collection of that name; without such a collection, in
    the default one, told from other programs' by one more attribute. A place is an item's path.
    """

    name = "secret-service"

    def __init__(self, world: World, collection: str, attribute: str = "profile") -> None:
        super().__init__(world)
        self.collection = collection
        self.attribute = attribute  # which has an item's name
        self.bus = BusTools(world, SECRET_SERVICE)
        self._doubtful: set[str] = set()

    def identity(self) -> str:
        kind = "" if self.attribute == "profile" else f":{self.attribute}"
        return f"secret-service:{self.collection}{kind}"

    def journal(self) -> SecretService:
        return SecretService(self.world, self.collection, JOURNAL_PLACE)

    def probe(self) -> str:
        self.bus.check()
        home = self._home()
        if home is None:
            if not self.world.can_show():
                raise self._no_keyring()
            return "will ask for the password of a new keyring"
        if not self._is_locked(home):
            return ""
        if self.world.can_show():
            return "locked"
        locked = self._locked(home)
        if home.own or self._search_paths(home, "application", "awsvault"):
            raise locked
        raise KeystoreError(locked.message, locked.hint)  # and has nothing of ours

    def _load(self, key: str) -> Item:
        found = self._search(key)
        row = self._pick(found, (self.index.read() or {}).get(key, ""))
        if row is None or row.secret is None:
            if any(one.secret is None for one in found):
                home, found = self._home(), []
                if home and self._is_locked(home):
                    self._unlock(home)
            place = self._locate(key)
            row = self._pick_surely(found or self._search(key), place)
        try:
            return self._unwrap(key, row)
        except ForeignEntry:
            return self._load_beside(key)

    def _load_beside(self, key: str) -> Item:
        """Return the item among entries of one name; ForeignEntry if there is none."""
        home = self._home()
        for row in self._rows(key, home) if home else ():
            try:
                return self._unwrap(key, row)
            except ForeignEntry:
                continue
        raise foreign_entry(key, "not the JSON of an item")

    def _check_form(self, key: str) -> None:
        """Refuse if any entry of that name in our collection is not an item: secret-tool replaces
        each that has our attributes, whatever it has besides."""
        home = self._home()
        if home and is_credential_name(key):
            for row in self._rows(key, home):
                self._refuse_foreign(self._unwrap, key, row)

    def _rows(self, key: str, home: Collection) -> list[FoundSecret]:
        """Return all entries of that name in our collection."""
        paths = self._find(key, home)
        if paths and self._is_locked(home):
            self._unlock(home)
        found = self._search(key) if paths else []
        return [self._pick_surely(found, path) for path in paths]

    def _unwrap(self, key: str, row: FoundSecret) -> Item:
        if row.secret is None:
            raise self._locked(None)
        return unwrap_item(key, row.secret)

    def _store(self, item: Item) -> str:
        text = Secret(wrap_item(item))
        size = len(text.reveal_bytes())
        if size > MAX_SECRET_TOOL_BYTES:
            raise KeystoreError(
                f"{printable(item.key)!r} is too large for secret-tool: {size} bytes,"
                f" {MAX_SECRET_TOOL_BYTES} is the most",
                OTHER_KEYSTORE_HINT,
            )
        home, may_ask = self._home(), self.world.can_show()
        if not may_ask and home is None:
            raise self._no_keyring()
        if not may_ask and home and self._is_locked(home):
            raise self._locked(home)
        self._check_form(item.key)
        where = [f"--collection={home.path}"] if home and home.own else []
        attributes = (home or Collection("", False)).attributes(self.attribute, item.key)
        result = self.bus.run(
            "store", f"--label={item.key}", *where, "--", *attributes, stdin=text, may_ask=may_ask
        )
        if result.status != 0 or result.errors.strip():
            raise self._explain(result.errors)
        return self._locate(item.key)

    def _remove(self, key: str) -> None:
        home = self._home()
        if home and self._is_locked(home):
            self._unlock(home)
        paths = self._find(key, home) if home else []
        if not paths:
            raise not_stored(key)
        for path in paths:  # secret-tool clear would take those of other collections too
            prompt = self.bus.call(path, SECRET_INTERFACE + "Item.Delete")
            if prompt != "/":
                raise self._locked(home)

    def _list(self) -> dict[str, str]:
        home = self._home()
        if home is None:
            return {}
        found = self._items(home)
        if any(not label for label, _attributes in found.values()) and self._is_locked(home):
            # Locked since the daemon's start: it knows no labels.
            self._unlock(home)
            found = self._items(home)
        rows = [
            (label, path, attributes)
            for path, (label, attributes) in found.items()
            if label and attributes.get(self.attribute) == label  # else another program's
        ]
        # aws-vault gives its items no other attribute, gnome-keyring may add a schema.
        plain = {label for label, _path, names in rows if not {*names} - ITEM_ATTRIBUTES}
        self._doubtful = {label for label, _path, _names in rows} - plain
        return {label: path for label, path, _attributes in rows}

    def own(self, names: Iterable[str]) -> list[str]:
        return [key for key in names if key not in self._doubtful]

    # -- where items are --------------------------------------------------

    def _home(self) -> Collection | None:
        wanted = f"{SECRETS_ROOT}/collection/{self.collection}"
        for path in self._property(SECRETS_ROOT, "Service", "Collections"):
            if decode_object_path(path) == wanted:
                return Collection(path, own=True)
        method = SECRET_INTERFACE + "Service.ReadAlias"
        default = self.bus.call(SECRETS_ROOT, method, "s", "default")
        return Collection(default, own=False) if default not in (None, "/") else None

    def _property(self, path: str, interface: str, name: str) -> Any:
        return self._properties(path, interface, name)[0]

    def _properties(self, path: str, interface: str, *names: str) -> tuple[Any, ...]:
        # Not by Properties.Get: gnome-keyring may look at the call before it knows the caller, who
        # has just connected, and then aborts (seen with 42.1). In GetAll it leaves out what it
        # could not get, so that asking again is enough.
        method = "org.freedesktop.DBus.Properties.GetAll"
        for _attempt in range(BUS_ATTEMPTS):
            found = self.bus.call(path, method, "s", SECRET_INTERFACE + interface) or {}
            if all(name in found for name in names):
                return tuple(self.bus.checked(name, found[name]) for name in names)
        raise KeystoreError(
            f"the Secret Service does not tell {' and '.join(names)} of {printable(path)}"
        )

    def _is_locked(self, home: Collection) -> bool:
        """Return True if a collection is locked and stays so without the user: one that has no
        password opens by itself. A prompt that this makes is never shown."""
        if not self._property(home.path, "Collection", "Locked"):
            return False
        method = SECRET_INTERFACE + "Service.Unlock"
        return home.path not in (self.bus.call(SECRETS_ROOT, method, "ao", 1, home.path) or ())

    def _find(self, key: str, home: Collection) -> list[str]:
        """Return the paths of a key's items."""
        return self._search_paths(home, *home.attributes(self.attribute, key))

    def _search_paths(self, home: Collection, *attributes: str) -> list[str]:
        # Asked of the collection: the service as a whole would answer with other people's as well.
        method = SECRET_INTERFACE + "Collection.SearchItems"
        try:
            found = self.bus.call(home.path, method, "a{ss}", len(attributes) // 2, *attributes)
        except NoSuchObject:
            return []
        return list(found or ())

    def _locate(self, key: str) -> str:
        home = self._home()
        paths = self._find(key, home) if home else []
        if not paths and home and self._is_locked(home):
            self._unlock(home)
            paths = self._find(key, home)
        if not paths:
            raise not_stored(key)
        return paths[0]

    def _items(self, home: Collection) -> dict[str, tuple[Any, ...]]:
        """Return label and attributes of each entry that can be ours."""
        if home.own:
            paths = list(self._property(home.path, "Collection", "Items"))
        else:
            paths = self._search_paths(home, "application", "awsvault")
        known = (self.bus.labels(home.path) if len(paths) > 1 else None) or {}
        names = ("Item", "Label", "Attributes")
        return {path: known.get(path) or self._properties(path, *names) for path in paths}

    # -- secrets --------------------------------------------------------------

    def _search(self, key: str) -> list[FoundSecret]:
        """Return all items of that name, in whatever collection they are: secret-tool tells no
        collection."""
        result = self.bus.run("search", "--all", "--", self.attribute, key)
        if result.status != 0:
            raise self._explain(result.errors)
        return [
            FoundSecret(number, None if text is None else Secret(text), modified)
            for number, text, modified in parse_found(result.output.reveal())
        ]

    def _pick(self, found: Sequence[FoundSecret], place: str) -> FoundSecret | None:
        """Return the one item that can be at a path; None if there is none, or more than one."""
        rows = [row for row in found if row.number == place.rpartition("/")[2]]
        return rows[0] if len(rows) == 1 else None

    def _pick_surely(self, found: Sequence[FoundSecret], place: str) -> FoundSecret:
        """Return the item at a path. Those of two collections differ in when they changed."""
        row = self._pick(found, place)
        if row is None:
            changed = int(self._property(place, "Item", "Modified"))
            moment = datetime.datetime.fromtimestamp(changed, UTC).strftime("%Y-%m-%d %H:%M:%S")
            row = self._pick([row for row in found if row.modified == moment], place)
        if row is None:
            raise KeystoreError(
                "secret-tool shows no single item of that name in the keyring"
                f" {printable(self.collection)!r}",
                "look at it with a keyring manager",
            )
        return row

    # -- locks ------------------------------------------------------------------

    def _unlock(self, home: Collection) -> None:
        """Have the user unlock a collection, by a search that only that answers (KeystoreError).

        A prompt belongs to the connection that asked for it, so busctl can't. A locked item shows
        its attributes' hashes, and those can be searched for.
        """
        if not self.world.can_show():
            raise self._locked(home)
        for path in list(self._property(home.path, "Collection", "Items"))[:1]:
            attributes = self._property(path, "Item", "Attributes")
            for name in sorted(attributes, key=lambda name: not name.endswith("profile"))[:1]:
                arguments = ("--all", "--unlock", "--", name, attributes[name])
                self.bus.run("search", *arguments, may_ask=True)
        if self._is_locked(home):
            raise KeystoreError(
                "the keyring is locked, and its password was not given",
                "answer the window on the desktop",
            )

    def _locked(self, home: Collection | None) -> LockedKeystore:
        name = home.path.rpartition("/")[2] if home else self.collection
        return self.bus.locked(f"the keyring {printable(decode_object_path(name))!r}")

    def _no_keyring(self) -> KeystoreError:
        return KeystoreError(
            f"the Secret Service has no keyring {printable(self.collection)!r} and no default one",
            "make one on the desktop with a keyring manager (Seahorse), or awsvault backends",
        )

    def _explain(self, errors: str) -> KeystoreError:
        if "locked" in errors:
            return self._locked(None)
        if "too long" in errors:
            return KeystoreError("secret-tool cut the item short", OTHER_KEYSTORE_HINT)
        if "does not exist" in errors:
            return self._no_keyring()
        return self.bus.explain(errors)


def parse_found(text: str) -> Iterator[tuple[str, str | None, str]]:
    """Read what ``secret-tool search`` prints: the end of each item's path, its secret, which can
    have lines, and when it changed."""
    number = ""
    lines: list[str] | None = None
    secret: str | None = None
    for line in text.split("\n"):
        if lines is not None and not line.startswith("created = "):
            lines.append(line)
        elif line.startswith("[/") and line.endswith("]"):
            number, secret = line[2:-1], None
        elif line.startswith("secret = "):
            lines = [line[9:]]
        elif lines is not None:
            secret, lines = "\n".join(lines), None
        elif line.startswith("modified = ") and number:
            yield number, secret, line[11:]
            number = ""


def decode_object_path(path: str) -> str:
    """Turn the ``_2d`` of a D-Bus path back into what it stands for."""
    return re.sub("_([0-9a-fA-F]{2})", lambda match: chr(int(match[1], 16)), path)


KWALLET_PATH = "/modules/kwalletd5"
KWALLET_APP = "aws-vault"
KWALLET_PASSWORD, KWALLET_MISSING = 1, -3


class KWalletKeystore(NativeKeystore):
    """KDE's wallet: kwallet-query carries the secrets, D-Bus calls do what it can't.

    What kwallet-query says is not believed: it ends with 0 when it has failed, so what was written
    is read back. Entries that aws-vault wrote (streams) are read by D-Bus; ours are passwords,
    which aws-vault reads with KDE Frameworks 6.14 and later.
    """

    name = "kwallet"

    def __init__(self, world: World, wallet: str, folder: str) -> None:
        super().__init__(world)
        self.wallet = wallet
        self.folder = folder
        self.bus = BusTools(world, KWALLET)
        self._opened: int | None = None

    def identity(self) -> str:
        return f"kwallet:{self.wallet}:{self.folder}"

    def journal(self) -> KWalletKeystore:
        return KWalletKeystore(self.world, self.wallet, f"{self.folder}-{JOURNAL_PLACE}")

    def probe(self) -> str:
        self.bus.check()
        self._check_enabled()
        may_ask = self.world.can_show()
        if self.wallet not in self._call("wallets"):
            if not may_ask:
                raise self._no_wallet()
            return "will ask for a new wallet"
        if self._is_open():
            return ""
        if not may_ask:
            raise self._locked()
        return "closed"

    def _load(self, key: str) -> Item:
        try:
            text = self._query(f"--read-password={key}").output.stripped()
        except Unanswered:
            # The daemon hangs, or the wallet is closed and KDE asks for its password.
            if not self._is_open(timeout=BUS_PROBE_SECONDS) and not self.world.can_show():
                raise self._locked() from None
            text = Secret("")
        # Anything else is a message: no entry, no folder, no wallet, a stream, or a failure.
        if not text.reveal().startswith("{"):
            text = self._read(self._handle(), key)
        return unwrap_item(key, text)

    def _read(self, handle: int | None, key: str) -> Secret:
        kind = self._on_entry("entryType", handle, key) if handle is not None else 0
        if not kind:
            raise not_stored(key)
        if kind == KWALLET_PASSWORD:
            return Secret(self._on_entry("readPassword", handle, key))
        return Secret(bytes(self._on_entry("readEntry", handle, key)))

    def _store(self, item: Item) -> str:
        text = Secret(wrap_item(item))
        handle = self._handle(create=True)
        kind = self._on_entry("entryType", handle, item.key)
        if kind:
            self._check_form(item.key)
        if kind == KWALLET_PASSWORD:
            self._write(handle, item.key, text)
        else:
            # kwallet-query makes no entry and changes no stream: a new one is made whole under a
            # name of its own, before a stream of aws-vault's goes.
            name = f"{TEMPORARY_PREFIX}{digest(item.key)[:16]}"
            self._call("createFolder", "iss", handle, self.folder, KWALLET_APP)
            self._call("writePassword", "issss", handle, self.folder, name, "", KWALLET_APP)
            self._write(handle, name, text)
            if kind:
                self._on_entry("removeEntry", handle, item.key)
            self._call("renameEntry", "issss", handle, self.folder, name, item.key, KWALLET_APP)
            self._check_written(handle, item.key, text)
        self._sync(handle)
        return self._proof(item.key)

    def _write(self, handle: int | None, name: str, text: Secret) -> None:
        self._query(f"--write-password={name}", stdin=text)
        self._check_written(handle, name, text)

    def _check_written(self, handle: int | None, name: str, text: Secret) -> None:
        if Secret(self._on_entry("readPassword", handle, name)) != text:
            raise KeystoreError("KWallet did not take what was written", OTHER_KEYSTORE_HINT)

    def _remove(self, key: str) -> None:
        handle = self._handle()
        if handle is None:
            raise not_stored(key)
        status = self._on_entry("removeEntry", handle, key)
        if status == KWALLET_MISSING:
            raise not_stored(key)
        if status != 0:
            raise KeystoreError(f"KWallet did not remove {printable(key)!r} (status {status})")
        self._sync(handle)

    def _list(self) -> dict[str, str]:
        handle = self._handle()
        if handle is None:
            return {}
        names = self._call("entryList", "iss", handle, self.folder, KWALLET_APP)
        known = self.index.read() or {}
        return {
            name: known.get(name, "") for name in names if not name.startswith(TEMPORARY_PREFIX)
        }

    def own(self, names: Iterable[str]) -> list[str]:
        return self._read_first(names)

    def _read_quietly(self, key: str) -> str:
        try:
            unwrap_item(key, self._read(self._handle(), key))
        except ForeignEntry:
            return ""  # is read again next time: nothing shows whether it changed
        except DamagedItem:
            pass
        return self._proof(key)

    # -- calls -----------------------------------------------------------------

    def _call(
        self, method: str, signature: str = "", *arguments: object, may_ask: bool = False
    ) -> Any:
        method = f"org.kde.KWallet.{method}"
        return self.bus.call(KWALLET_PATH, method, signature, *arguments, may_ask=may_ask)

    def _on_entry(self, method: str, handle: int | None, key: str) -> Any:
        return self._call(method, "isss", handle, self.folder, key, KWALLET_APP)

    def _query(self, what: str, stdin: Secret | None = None) -> ToolResult:
        return self.bus.run(what, "-f", self.folder, self.wallet, stdin=stdin)

    def _sync(self, handle: int | None) -> None:
        # Else it reaches the disk five seconds later, and a daemon that ends before loses it.
        self._call("sync", "is", handle, KWALLET_APP)

    # -- the wallet ---------------------------------------------------------------

    def _check_enabled(self) -> None:
        if not self._call("isEnabled"):
            raise KeystoreError(
                "KWallet is disabled",
                "enable it in KDE's settings, or choose another keystore: awsvault backends",
            )

    def _handle(self, *, create: bool = False) -> int | None:
        """Open the wallet and return its handle; None if there is no such wallet.

        ``create`` has KDE ask the user for a new one. KeystoreError if it stays closed.
        """
        if self._opened is None:
            self._opened = self._open(create)
        return self._opened

    def _open(self, create: bool) -> int | None:
        self._check_enabled()
        may_ask = self.world.can_show()
        if self.wallet not in self._call("wallets"):
            if not create:
                return None
            if not may_ask:
                raise self._no_wallet()
        elif not may_ask and not self._is_open():
            return self._open_silently()
        handle = int(self._call("open", "sxs", self.wallet, 0, KWALLET_APP, may_ask=may_ask))
        if handle < 0:
            raise KeystoreError(
                f"the wallet {printable(self.wallet)!r} was not opened: its question was dismissed",
                "try again",
            )
        return handle

    def _open_silently(self) -> int:
        # A wallet with an empty password, or one that pam_kwallet opens, needs nobody.
        try:
            handle = int(self._call("open", "sxs", self.wallet, 0, KWALLET_APP))
        except KeystoreError:
            handle = -1
        if handle < 0:
            raise self._locked()
        return handle

    def _is_open(self, timeout: float = BUS_WAIT_SECONDS) -> bool:
        method = "org.kde.KWallet.isOpen"
        return bool(self.bus.call(KWALLET_PATH, method, "s", self.wallet, timeout=timeout))

    def _locked(self) -> LockedKeystore:
        return self.bus.locked(f"the wallet {printable(self.wallet)!r}")

    def _no_wallet(self) -> KeystoreError:
        return KeystoreError(
            f"there is no wallet {printable(self.wallet)!r}",
            f"make it on the desktop with KWalletManager; {OTHER_KEYSTORE_HINT}",
        )


MAX_SECURITY_LINE = 4094  # `security -i` reads 4096 bytes: of what is longer it runs the head
KEYCHAIN_MISSING_ITEM = 44
# Exit statuses of `security` (its OSStatus & 255) -> what they mean, and what helps.
KEYCHAIN_LOCKED = {
    36: "is locked, or its question can't be shown here (as over ssh)",
    29: "needs an answer to its question",
}
KEYCHAIN_FAILURES = {
    51: ("was not opened: wrong password", "try again"),
    128: ("was not opened: its question was dismissed", "try again"),
    50: ("does not exist", "awsvault add makes it"),
    37: ("is not there, and there is no default keychain", "log in on the Mac's own screen once"),
    49: ("is no keychain", "move that file away"),
    45: ("already has such an item", "try again"),
    2: ("can't be used: this version of security is not known", ""),
}


KEYCHAIN_SERVICE = "aws-vault"


class Keychain(NativeKeystore):
    """A macOS keychain by ``security``: secrets go to its standard input, as commands, and come
    from its standard output. Items are aws-vault's, raw data without the JSON around it. Places are
    not used."""

    name = "keychain"

    def __init__(self, world: World, keychain: str, service: str = KEYCHAIN_SERVICE) -> None:
        super().__init__(world)
        self.keychain = keychain
        self.service = service
        file_name = keychain if keychain.endswith(".keychain") else f"{keychain}.keychain"
        self.path = os.path.join(world.home(), "Library", "Keychains", f"{file_name}-db")

    def identity(self) -> str:
        service = "" if self.service == KEYCHAIN_SERVICE else f":{self.service}"
        return f"keychain:{self.path}{service}"

    def journal(self) -> Keychain:
        return Keychain(self.world, self.keychain, JOURNAL_PLACE)

    def probe(self) -> str:
        self._check_tool()
        if not self.world.is_folder(os.path.dirname(self.path)):
            raise KeystoreError(
                f"{printable(os.path.dirname(self.path))} does not exist: this is no Mac",
                OTHER_KEYSTORE_HINT,
            )
        return "" if self.world.exists(self.path) else "will ask for the password of a new keychain"

    def _load(self, key: str) -> Item:
        self._check_file(key)
        output = self._run("find-generic-password", "-w", *self._item(key))
        data = decode_keychain_data(output.without_newline().reveal_bytes())
        return Item(key, Secret(data))

    def _store(self, item: Item) -> str:
        line = self._add_line(item, update=True)
        if len(line.reveal_bytes()) > MAX_SECURITY_LINE:
            raise KeystoreError(
                f"{printable(item.key)!r} is too large for the keychain: a command of"
                f" {len(line.reveal_bytes())} bytes, {MAX_SECURITY_LINE} is the most",
                OTHER_KEYSTORE_HINT,
            )
        if not self.world.exists(self.path):
            self._create()
        self._interpret(self._add_line(item, update=self._exists(item.key)))
        return ""

    def _check_form(self, key: str) -> None:  # noqa: ARG002
        # Of a generic password the service says whose it is; to read it would ask the user.
        return

    def _remove(self, key: str) -> None:
        self._check_file(key)
        self._run("delete-generic-password", *self._item(key))

    def _list(self) -> dict[str, str]:
        self._check_tool()
        if not self.world.exists(self.path):
            return {}
        output = self._run("dump-keychain", self.path).reveal()
        return dict.fromkeys(parse_keychain_dump(output, self.service), "")

    def _check_tool(self) -> None:
        if not self.world.has_program("security"):
            raise self._missing_tool()

    def _check_file(self, key: str) -> None:
        # `security` would look into the other keychains instead.
        if not self.world.exists(self.path):
            raise not_stored(key)

    def _exists(self, key: str) -> bool:
        try:
            self._run("find-generic-password", *self._item(key))
        except ItemNotFound:
            return False
        return True

    def _item(self, key: str) -> tuple[str, ...]:
        return ("-s", self.service, "-a", key, self.path)

    def _add_line(self, item: Item, *, update: bool) -> Secret:
        words = ["add-generic-password", *(["-U"] if update else [])]
        words += ["-s", quote_security(self.service), "-a", quote_security(item.key)]
        words += ["-l", quote_security(item.label or item.key)]
        words += ["-D", quote_security(item.description)] if item.description else []
        if not item.trusted and not update:
            words += ["-T", "''"]  # as aws-vault: every reader is asked about
        data = item.data.reveal_bytes()
        if all(32 <= byte < 127 for byte in data):
            if decode_keychain_data(data) != data:
                raise KeystoreError(
                    f"{printable(item.key)!r} would be read back as something else", ""
                )
            words += ["-w", quote_security(data.decode())]
        else:
            words += ["-X", data.hex()]
        return Secret(" ".join([*words, quote_security(self.path)]))

    def _create(self) -> None:
        """Make the keychain, with a password that the user chooses, and an hour until it locks."""
        hint = f"security create-keychain {printable(self.path)}"
        question = f"Password for the new keychain {printable(os.path.basename(self.path))}"

        def ask(question: str) -> Secret:
            return self.world.ask(question, hidden=True, timeout=PROMPT_WAIT_SECONDS, instead=hint)

        password = ask(question)
        if not password or password != ask("The same password again"):
            raise UsageError("the password is empty, or the two differ", "try again")
        word, path = quote_security(password.reveal()), quote_security(self.path)
        self._interpret(Secret(f"create-keychain -p {word} {path}"))
        self._run("set-keychain-settings", "-l", "-u", "-t", "3600", self.path)

    # -- the tool ----------------------------------------------------------------

    def _run(self, *arguments: str) -> Secret:
        result = self._security(arguments)
        if result.status != 0:
            raise self._explain(result)
        return result.output

    def _interpret(self, line: Secret) -> None:
        """Have ``security -i`` run one command, whose words no other program sees."""
        result = self._security(["-i"], Secret(line.reveal_bytes() + b"\n"))
        if result.status != 0 or "returned " in result.errors:
            # It may quote what it did not understand.
            raise self._explain(result.replace(errors=""))

    def _security(self, arguments: Sequence[str], stdin: Secret | None = None) -> ToolResult:
        may_ask = self.world.can_show()
        timeout = PROMPT_WAIT_SECONDS if may_ask else BUS_WAIT_SECONDS
        try:
            return self.world.run(["security", *arguments], stdin=stdin, timeout=timeout)
        except ToolMissing:
            raise self._missing_tool() from None
        except ToolTimeout:
            if may_ask:
                raise KeystoreError(
                    f"nobody answered macOS's question about {self._shown()}", "try again"
                ) from None
            raise self._locked("waits for an answer to its question") from None

    def _explain(self, result: ToolResult) -> KeystoreError:
        status = result.status
        if status == KEYCHAIN_MISSING_ITEM:
            return ItemNotFound(f"there is no such item in {self._shown()}")
        if status in KEYCHAIN_LOCKED:
            return self._locked(KEYCHAIN_LOCKED[status])
        if status in KEYCHAIN_FAILURES:
            what, hint = KEYCHAIN_FAILURES[status]
            return KeystoreError(f"{self._shown()} {what}", hint)
        reason = last_line(result.errors) or f"status {status}"
        return KeystoreError(f"{self._shown()} can't be used: {reason}", OTHER_KEYSTORE_HINT)

    def _locked(self, what: str) -> LockedKeystore:
        return LockedKeystore(
            f"{self._shown()} {what}", f"security unlock-keychain {printable(self.path)}"
        )

    def _shown(self) -> str:
        return f"the keychain {printable(os.path.basename(self.path))!r}"

    def _missing_tool(self) -> KeystoreError:
        return KeystoreError(
            "security is not installed: the keychain is macOS's", OTHER_KEYSTORE_HINT
        )


def quote_security(word: str) -> str:
    """Quote a word for ``security -i``; KeystoreError for what no word can hold."""
    if any(character in word for character in "\n\r\0"):
        raise KeystoreError("a word with a line break can't be given to security")
    escaped = word.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def decode_keychain_data(data: bytes) -> bytes:
    """Undo the hex in which ``security`` prints data that is not all printable ASCII."""
    if re.fullmatch(rb"(?:[0-9a-f]{2})+", data):
        decoded = bytes.fromhex(data.decode())
        if not all(32 <= byte < 127 for byte in decoded):
            return decoded
    return data


def parse_keychain_dump(text: str, service: str) -> list[str]:
    """Return the accounts of a service's generic passwords in what ``dump-keychain`` prints."""
    accounts = []
    for entry in re.split(r"(?m)^keychain: ", text)[1:]:
        fields = dict(re.findall(r'(?m)^    "(acct|svce)"<blob>=(.*)$', entry))
        if 'class: "genp"' in entry and _keychain_blob(fields.get("svce", "")) == service:
            accounts.append(_keychain_blob(fields.get("acct", "")))
    return accounts


def _keychain_blob(text: str) -> str:
    """Read an attribute: ``"text"``, ``0xHEX  "octal"``, or ``<NULL>``."""
    encoded = re.match(r"0x((?:[0-9A-F]{2})+)", text)
    if encoded:
        return bytes.fromhex(encoded[1]).decode("utf-8", "surrogateescape")
    return text[1:-1] if text.startswith('"') else ""


class PassKind(Value):
    """What tells passage from pass."""

    name: str
    folder_variable: str
    folder: str
    suffix: str
    init_file: str
    init_hint: str


PASS = PassKind(
    "pass", "PASSWORD_STORE_DIR", "~/.password-store", ".gpg", ".gpg-id", "pass init GPG-ID"
)
PASSAGE = PassKind(
    "passage", "PASSAGE_DIR", "~/.passage/store", ".age", "", "see passage's own instructions"
)
# What pass, gpg and age print -> what it means, and what helps. The first that fits is taken.
PASS_LOCKED = (
    r"No pinentry|Inappropriate ioctl|cannot open .*tty|no tty|Screen or window too small"
    r"|pinentry.*(not found|error)|No agent running|failed to read passphrase"
)
PASS_DAMAGED = (
    r"no valid OpenPGP data|decrypt_message failed|[Ii]nvalid packet|pending bytes|CRC error"
    r"|[Uu]nexpected (end|EOF)|mdc_packet|message was not integrity protected"
    r"|failed to (read|parse) header|failed to decrypt and authenticate"
)
PASS_UNREADABLE = r"can't open|Permission denied|Input/output error"
# What lies there is not listed.
PASS_FOLDERS = (".git", ".extensions")
PASS_FAILURES = (
    (r"[Cc]ancell?ed", "the passphrase was not given", "try again"),
    (r"Bad passphrase|Bad PIN", "wrong passphrase", "try again"),
    (
        r"No secret key|no identity matched",
        "none of your keys opens it",
        "check that the key this store was made for is here: gpg --list-secret-keys",
    ),
    (
        r"You must run|No public key|no valid recipient|unusable public key|skipped:",
        "the password store has no key that it can encrypt to",
        "{init_hint}",
    ),
    (
        r"No space left|[Rr]ead-only file system|Permission denied",
        "the password store can't be read or written",
        "look at its files' owner and mode, and at the disk",
    ),
)


class Pass(NativeKeystore):
    """The ``pass`` password store, or ``passage``: one file for each item, listed by itself.

    The user's own passwords stand in it, too. An entry is known for an item by its name, if that is
    a session's or token's, or because it was read; its place is its file's time and size then.
    """

    def __init__(
        self, world: World, kind: PassKind, folder: str, command: str, prefix: str
    ) -> None:
        super().__init__(world)
        self.kind = kind
        self.name = kind.name
        self.command = command or kind.name
        named = folder or world.environ.get(kind.folder_variable, "")
        self.folder = os.path.abspath(world.expand(named or kind.folder))
        self.prefix = prefix.strip("/")

    def identity(self) -> str:
        return f"{self.name}:{self.world.real_path(self.folder)}:{self.prefix}"

    def journal(self) -> Pass:
        if not self.prefix:  # then aws-vault lists the whole store
            return self
        prefix = f"{self.prefix}-{JOURNAL_PLACE}"
        return Pass(self.world, self.kind, self.folder, self.command, prefix)

    def probe(self) -> str:
        self._check_store()
        if not self.world.has_program(self.command):
            raise self._missing()
        places = (self.folder, os.path.join(self.folder, self.prefix))
        if not any(self.world.exists(os.path.join(place, self.kind.init_file)) for place in places):
            raise self._no_store()
        return ""

    def _check_store(self) -> None:
        # Else one that is not mounted, say, would look empty.
        if not self.world.is_folder(self.folder):
            has_tool = self.world.has_program(self.command)
            raise self._no_store() if has_tool else self._missing()

    def _no_store(self) -> KeystoreError:
        return KeystoreError(
            f"there is no password store in {printable(self.folder)}", self.kind.init_hint
        )

    def refuse_name(self, key: str) -> str:
        parts = self._entry_of(key).split("/")
        if not key or any(part in ("", ".", "..") for part in parts):
            return "its path would be another entry's"
        if key.partition("/")[0] in PASS_FOLDERS:
            return "that folder is the password store's own"
        if not self.prefix and key.startswith("-"):
            return f"{self.name} would take it for an option"
        if any(len(os.fsencode(part + self.kind.suffix)) > MAX_FILE_NAME_BYTES for part in parts):
            return "its file name would be too long"
        return super().refuse_name(key)

    @property
    def index(self) -> NameIndex:
        return NameIndex(self.world, self.identity(), whole=False)

    def _load(self, key: str) -> Item:
        self._check_entry(key)
        result = self._call("show", self._entry_of(key))
        if result.status != 0 and self._is_damage(result.errors):
            raise DamagedItem(
                f"stored item {printable(key)!r} is damaged: {last_line(result.errors)}",
                f"restore {printable(self._path(key))} from a backup, or remove it",
            )
        item = unwrap_item(key, self._succeeded(result).output.stripped())
        proof = self._proof(key)
        if is_credential_name(key) and (self.index.read() or {}).get(key) != proof:
            self.index.change({key: proof})
        return item

    def _store(self, item: Item) -> str:
        self._check_store()
        if self.world.exists(self._path(item.key)):
            self._check_form(item.key)
        text = Secret(wrap_item(item))
        self._run("insert", "-m", "-f", self._entry_of(item.key), stdin=text)
        return self._proof(item.key)

    def _remove(self, key: str) -> None:
        self._check_entry(key)
        self._run("rm", "-f", self._entry_of(key))

    def _proof(self, key: str) -> str:
        return self.world.file_stamp(self._path(key))

    def known(self) -> list[str]:
        places = self.index.read() or {}
        return [
            key
            for key in self.keys()
            if not places.get(key, "").startswith(FOREIGN)
            or places[key] != FOREIGN + self._proof(key)
        ]

    def own(self, names: Iterable[str]) -> list[str]:
        return self._read_first(names)

    def has_others(self) -> bool:
        # With a prefix it has a folder of its own. One after the other: the first is enough.
        names = [] if self.prefix else filter(is_credential_name, self.keys())
        return any(not self.own([key]) for key in names)

    def _read_quietly(self, key: str) -> str:
        self._check_entry(key)
        proof = self._proof(key)
        result = self._succeeded(self._call("show", self._entry_of(key), quietly=True))
        try:
            unwrap_item(key, result.output.stripped())
        except ForeignEntry:
            return FOREIGN + proof
        except DamagedItem:
            pass
        return proof

    def keys(self) -> list[str]:
        self._check_store()
        root, suffix = os.path.join(self.folder, self.prefix), self.kind.suffix
        names = [
            name[: -len(suffix)] for name in self.world.list_tree(root) if name.endswith(suffix)
        ]
        names = [name for name in names if name.partition("/")[0] not in PASS_FOLDERS]
        # The two slashes of an SSO token's URL are one in a path.
        return [re.sub(rf"^({TOKEN_PREFIX}https?:/)(?=[^/])", r"\1/", name) for name in names]

    def _entry_of(self, key: str) -> str:
        """Return the entry of a key, joined as aws-vault joins it."""
        if key.startswith(TOKEN_PREFIX):
            key = key.replace("://", ":/", 1)
        return f"{self.prefix}/{key}" if self.prefix else key

    def _check_entry(self, key: str) -> None:
        self._check_store()
        if self.refuse_name(key) or not self.world.exists(self._path(key)):
            raise not_stored(key)

    def _path(self, key: str) -> str:
        return os.path.join(self.folder, self._entry_of(key) + self.kind.suffix)

    def _run(self, *arguments: str, stdin: Secret | None = None) -> None:
        self._succeeded(self._call(*arguments, stdin=stdin))

    def _succeeded(self, result: ToolResult) -> ToolResult:
        if result.status != 0:
            raise self._explain(result)
        return result

    def _call(
        self, *arguments: str, stdin: Secret | None = None, quietly: bool = False
    ) -> ToolResult:
        may_ask = self.world.can_ask() or self.world.can_show()
        timeout = PROMPT_WAIT_SECONDS if may_ask else TOOL_WAIT_SECONDS
        environ = {**TOOL_ENVIRONMENT, self.kind.folder_variable: self.folder}
        if quietly:
            timeout = BUS_WAIT_SECONDS
            options = self.world.environ.get("PASSWORD_STORE_GPG_OPTS", "")
            environ["PASSWORD_STORE_GPG_OPTS"] = f"{options} --batch --pinentry-mode=error"
        terminal = self.world.environ.get("GPG_TTY") or self.world.terminal_name()
        if terminal:
            environ["GPG_TTY"] = terminal
        argv = [self.command, *arguments]
        try:
            return self.world.run(
                argv, stdin=stdin, timeout=timeout, environ=environ, no_terminal=quietly
            )
        except ToolMissing:
            raise self._missing() from None
        except ToolTimeout:
            raise KeystoreError(
                f"{self.name} did not end within {timeout:.0f} seconds",
                "it may wait for a passphrase, or for a hardware key to be touched",
            ) from None

    def _explain(self, result: ToolResult) -> KeystoreError:
        if re.search(PASS_LOCKED, result.errors) or self._has_locked_key(result.errors):
            return LockedKeystore(
                f"{self.name} can't ask for its key's passphrase here: no pinentry, or no terminal",
                "use a terminal with GPG_TTY=$(tty), or unlock the key first: pass show ENTRY",
            )
        for pattern, message, hint in PASS_FAILURES:
            if re.search(pattern, result.errors):
                return KeystoreError(
                    f"{self.name}: {message} ({last_line(result.errors)})",
                    hint.format(init_hint=self.kind.init_hint),
                )
        reason = last_line(result.errors) or f"status {result.status}"
        return KeystoreError(f"{self.name} failed: {reason}", OTHER_KEYSTORE_HINT)

    def _is_damage(self, errors: str) -> bool:
        return not re.search(PASS_UNREADABLE, errors) and bool(re.search(PASS_DAMAGED, errors))

    def _has_locked_key(self, errors: str) -> bool:
        """Return True if the key is here after all: gpg denies having it when it can't ask for its
        passphrase."""
        if "No secret key" not in errors:
            return False
        path = os.path.join(self.folder, PASS.init_file)
        try:
            ids = self.world.read_file(path, MAX_PASSPHRASE_BYTES).decode("utf-8", "replace")
            argv = ["gpg", "--batch", "--with-colons", "--list-secret-keys", "--", *ids.split()]
            return self.world.run(argv, timeout=BUS_WAIT_SECONDS).status == 0
        except (OSError, ToolError):
            return False

    def _missing(self) -> KeystoreError:
        return KeystoreError(
            f"{printable(self.command)} is not installed",
            f"install {self.name}, or name it with --pass-cmd; {OTHER_KEYSTORE_HINT}",
        )


class StoreSettings(Value):
    """What flags and variables say about the keystores."""

    file_dir: str = "~/.awsvault/keys"
    passphrase: Secret | None = None
    passphrase_command: str = ""
    passphrase_source: str = ""
    iterations: int = DEFAULT_ITERATIONS
    keychain: str = "aws-vault"
    secret_service_collection: str = "awsvault"
    kwallet: str = "aws-vault"
    kwallet_folder: str = "aws-vault"
    pass_dir: str = ""
    pass_cmd: str = ""
    pass_prefix: str = ""


def open_file_keystore(world: World, settings: StoreSettings) -> FileKeystore:
    """Return the encrypted-file keystore; nothing is touched yet."""
    if settings.file_dir == StoreSettings.file_dir:
        world.own_home()
    passphrase = Passphrase(
        world, settings.passphrase, settings.passphrase_command, settings.passphrase_source
    )
    return FileKeystore(
        world, world.expand(settings.file_dir).rstrip("/") or "/", passphrase, settings.iterations
    )


def file_vault_has_items(world: World, settings: StoreSettings) -> bool:
    """Return True if there is anything in the file vault's folder but what others leave in folders.

    One that can't be looked into counts: what is wrong with it is said when it is used.
    """
    try:
        if not world.list_folder(world.expand(settings.file_dir)):
            return False
        return open_file_keystore(world, settings).has_items()
    except AwsVaultError:
        return True


def open_pass(kind: PassKind) -> Callable[[World, StoreSettings], Keystore]:
    """Return what opens pass or passage."""

    def open_store(world: World, settings: StoreSettings) -> Keystore:
        world.own_home()  # whose gpg.conf says what is run
        return Pass(world, kind, settings.pass_dir, settings.pass_cmd, settings.pass_prefix)

    return open_store


# A backend is one class above and one row here, in the order in which the first usable is taken.
BACKENDS: dict[str, Callable[[World, StoreSettings], Keystore]] = {
    "keychain": lambda world, settings: Keychain(world, settings.keychain),
    "secret-service": lambda world, settings: SecretService(
        world, settings.secret_service_collection
    ),
    "kwallet": lambda world, settings: KWalletKeystore(
        world, settings.kwallet, settings.kwallet_folder
    ),
    "pass": open_pass(PASS),
    "passage": open_pass(PASSAGE),
    "file": open_file_keystore,
}
NOT_AUTOMATIC = frozenset({"passage"})


class Choice(Value):
    """Which keystore is used, and why; ``new`` if it is not remembered yet, ``by`` who chose one
    that is."""

    backend: str
    why: str
    new: bool = False
    by: str = ""

    def explain(self, error: KeystoreError) -> None:
        """Let an error of a remembered keystore end with who chose it, and how to change that."""
        if self.by:
            end = f"{self.backend} was chosen {self.by}: awsvault backends --use NAME changes it"
            error.hint = f"{error.hint}; {end}" if error.hint else end


class Probe(Value):
    """What a keystore says of itself: in what state it can be used, or why it can't."""

    state: str = ""
    refusal: AwsVaultError | None = None


def probe_backend(world: World, settings: StoreSettings, name: str) -> Probe:
    """Find out whether a keystore can be used; nobody is asked."""
    try:
        return Probe(BACKENDS[name](world, settings).probe())
    except AwsVaultError as error:
        world.debug(f"{name}: {error.message}")
        return Probe(refusal=error)


def choose_backend(
    world: World, settings: StoreSettings, named: str, probe: Callable[[str], Probe]
) -> Choice:
    """Decide which keystore is used: the one named, the one remembered, or the first usable one.

    Nothing is remembered here, and nobody is asked. KeystoreError if the memory can't be read, or
    if one that may hold the user's keys is locked or does not answer: another, empty one would
    look as if they were gone.
    """
    if named:
        return Choice(named, "named by --backend or AWS_VAULT_BACKEND")
    remembered, by = remembered_backend(world)
    if remembered:
        return Choice(remembered, "remembered in ~/.awsvault/state.json", by=by)
    if file_vault_has_items(world, settings):
        return Choice("file", "the file vault has items")
    for name in (name for name in BACKENDS if name not in NOT_AUTOMATIC):
        refusal = probe(name).refusal
        if isinstance(refusal, (LockedKeystore, Unanswered)):
            raise refusal
        if refusal is None and not BACKENDS[name](world, settings).has_others():
            return Choice(name, "the first that can be used here", new=True)
    return Choice("file", "no other can be used here", new=True)


STATE_HINT = "awsvault backends --use NAME sets it anew"


def state_path(world: World) -> str:
    """Return the path of what is remembered from one run to the next (AwsVaultError)."""
    return os.path.join(world.own_home(), ".awsvault", "state.json")


BY_USER, BY_ITSELF = "by backends --use", "by awsvault at its first run"


def remembered_backend(world: World) -> tuple[str, str]:
    """Return the keystore that was chosen before, or nothing, and who chose it (KeystoreError)."""
    try:
        path = state_path(world)
    except AwsVaultError:
        return "", ""  # in another user's home nothing is kept, and nothing there chooses
    try:
        data = parse_json_object(world.read_own(path, MAX_ITEM_BYTES).decode())
    except FileNotFoundError:
        return "", ""
    except (OSError, ValueError) as error:
        reason = os_reason(error) if isinstance(error, OSError) else "it is damaged"
        raise KeystoreError(f"can't read {printable(path)}: {reason}", STATE_HINT) from None
    backend = data.get("backend")
    if data.get("version") != 1 or not isinstance(backend, str) or backend not in BACKENDS:
        raise KeystoreError(f"{printable(path)} was written by another version", STATE_HINT)
    return backend, BY_ITSELF if data.get("automatic") is True else BY_USER


def remember_backend(world: World, name: str, *, automatic: bool = False) -> None:
    """Have every later run use a keystore (AwsVaultError if that can't be written)."""
    members = {"version": 1, "backend": name, **({"automatic": True} if automatic else {})}
    write_own_file(world, state_path(world), go_json(members) + "\n")


# ======================================================================
# Vault
# ======================================================================
# What the blobs mean: long-lived keys and sessions, named and written as aws-vault does.


class SessionSlot(Value):
    """Where the sessions of one kind are kept: the fields of their names, less the time."""

    type: str
    profile: str
    third: str = ""

    def key(self, expires: int) -> SessionKey:
        """Return the name of the session that ends then (Unix seconds)."""
        return SessionKey(self.type, self.profile, self.third, expires)

    def holds(self, session: SessionKey) -> bool:
        """Return True if a session is kept here."""
        return (session.type, session.profile, session.third) == (
            self.type, self.profile, self.third,
        )  # fmt: skip

    def is_like(self, session: SessionKey) -> bool:
        """Return True if a session is of the same profile, device and kind, but for what flags and
        variables changed."""
        return (self.profile, self.type.removeprefix("awsvault."), self.third.split("#")[0]) == (
            session.profile, session.type.removeprefix("awsvault."), session.third.split("#")[0],
        )  # fmt: skip


class Vault:
    """Long-lived keys and sessions in a keystore."""

    def __init__(self, keystore: Keystore, world: World) -> None:
        self.keystore = keystore
        self.world = world
        self._names: list[str] | None = None

    def names(self) -> list[str]:
        """Return the names of all items, listed once unless something is written here."""
        if self._names is None:
            self._names = [key for key in self.keystore.keys() if not journal_profile(key)]
        return self._names

    def profiles(self) -> list[str]:
        """Return the names under which long-lived keys are stored."""
        return self.keystore.own(self.candidates())

    def candidates(self) -> list[str]:
        """Return the names that may be those of long-lived keys, without a look at the entries."""
        return [key for key in self.names() if is_credential_name(key)]

    def known_profiles(self) -> list[str]:
        """Return what ``profiles`` does as far as it is remembered, which can be stale; only where
        nothing is remembered is the keystore asked."""
        known = self.keystore.known()
        return self.profiles() if known is None else list(filter(is_credential_name, known))

    def tokens(self) -> list[str]:
        """Return the names of stored SSO tokens."""
        return [key for key in self.names() if key.startswith(TOKEN_PREFIX)]

    def sessions(self) -> list[SessionKey]:
        """Return the names of all sessions, expired ones too."""
        return [session for key in self.names() if (session := SessionKey.parse(key))]

    def credentials(self, profile: str) -> Credentials:
        """Return a profile's long-lived keys; ItemNotFound, or DamagedItem if the item holds no
        keys."""
        text = self.keystore.get(profile).data.reveal()
        try:
            data = parse_json_object(text)
            if not data.get("CanExpire"):
                data.pop("Expires", None)
            found = Credentials.from_members(data, KEY_MEMBERS)
        except ValueError:
            raise DamagedItem(
                f"stored item {printable(profile)!r} is damaged: it holds no access key",
                f"awsvault add {printable(profile)}",
            ) from None
        if found.expiration and found.expiration <= self.world.now():
            ended = format_time(found.expiration)
            raise EndedCredentials(
                f"the credentials stored for {printable(profile)!r} ended {ended}"
            )
        return found

    def store_credentials(self, profile: str, credentials: Credentials) -> None:
        """Store a profile's long-lived keys, over any that are there, as aws-vault 7.2 writes
        them."""
        data = {
            "AccessKeyID": credentials.access_key_id,
            "SecretAccessKey": credentials.secret_access_key.reveal(),
            "SessionToken": "",
            "Source": "",
            "CanExpire": False,
            "Expires": "0001-01-01T00:00:00Z",
        }
        self._set(Item(profile, Secret(go_json(data)), f"aws-vault ({profile})"))

    def delete_credentials(self, profile: str) -> None:
        """Remove a profile's long-lived keys; ItemNotFound if there are none."""
        self._names = None
        self.keystore.delete(profile)

    def _set(self, item: Item) -> None:
        self._names = None
        self.keystore.set(item)

    def refuse_profile(self, profile: str) -> None:
        """Refuse a name that can't be stored (UsageError)."""
        check_profile_name(profile)
        reason = self.keystore.refuse_name(profile)
        if reason:
            raise UsageError(
                f"{printable(profile)!r} can't be stored in the {self.keystore.name} vault: "
                f"{reason}"
            )

    def find_session(
        self,
        slot: SessionSlot,
        fingerprint: str,
        min_ttl: datetime.timedelta,
        any_duration: str = "",
    ) -> Credentials | None:
        """Return the longest-lived session of a slot that was made for the same, with ``min_ttl``
        left; else None.

        ``any_duration`` is the fingerprint less durations, where none is asked for: then sessions
        for which one was named serve as well. A session that aws-vault wrote has no fingerprint:
        one from GetSessionToken serves.
        """
        soonest = self.world.now() + min_ttl
        tried: set[SessionKey] = set()
        # What is remembered first: to list the items of a native keystore costs a process or two.
        for names in (self.keystore.known, self.keystore.keys):
            candidates = {
                session
                for key in names() or ()
                if (session := SessionKey.parse(key))
                and (slot.holds(session) or (any_duration and slot.is_like(session)))
                and session.expires > soonest.timestamp() - 1
            }
            for session in sorted(
                candidates - tried, key=lambda session: (not slot.holds(session), -session.expires)
            ):
                expected = fingerprint if slot.holds(session) else ""
                found = self._read_session(session, expected, any_duration)
                if found and found.expiration and found.expiration > soonest:
                    return found
            tried |= candidates
        return None

    def _read_session(
        self, session: SessionKey, fingerprint: str, any_duration: str
    ) -> Credentials | None:
        try:
            data = parse_json_object(self.keystore.get(str(session)).data.reveal())
            of_aws_vault = fingerprint if session.type == SESSION_TYPES["session"] else ""
            same = fingerprint and data.get("Fingerprint", of_aws_vault) == fingerprint
            if not same and not (any_duration and data.get("AnyDuration") == any_duration):
                return None
            return session_credentials(data)
        except ItemNotFound:
            return None  # replaced between listing and reading
        except (DamagedItem, ValueError):
            self.world.say_once(
                f"warning: a stored session of {printable(session.profile)!r} is damaged; "
                "making a new one"
            )
            return None

    def store_session(
        self,
        slot: SessionSlot,
        credentials: Credentials,
        fingerprint: str,
        any_duration: str = "",
    ) -> None:
        """Keep a session for the next process, in place of older ones of its slot; expired ones of
        all slots go.

        A session whose name is too long for the store is not kept.
        """
        if credentials.expiration is None or not credentials.session_token:
            return
        if len(credentials.access_key_id) < 4:
            return  # aws-vault crashes on such a session
        session = slot.key(int(credentials.expiration.timestamp()))
        if self.keystore.refuse_name(str(session)):
            self.world.say_once(
                f"warning: the name {printable(slot.profile)!r} is too long for its sessions to "
                "be kept"
            )
            return
        made_for = {"Fingerprint": fingerprint, "AnyDuration": any_duration}
        data = {
            **credentials.members(SESSION_MEMBERS),
            **{name: text for name, text in made_for.items() if text},
        }
        label = (
            f"aws-vault session for {slot.profile} (expires {format_time(credentials.expiration)})"
        )
        self._set(
            Item(str(session), Secret(go_json(data)), label, "aws-vault session", trusted=True)
        )
        now = self.world.now().timestamp()
        self.delete_where(
            lambda key: (
                is_old_session(key)
                or (
                    (other := SessionKey.parse(key)) is not None
                    and _superseded(other, session, now)
                )
            )
        )

    def delete_sessions(self, profiles: Iterable[str]) -> int:
        """Remove every session of some profiles; return how many."""
        names = set(profiles)
        return self.delete_where(
            lambda key: (session := SessionKey.parse(key)) is not None and session.profile in names
        )

    def delete_all_sessions(self) -> int:
        """Remove all sessions and SSO tokens; return how many."""
        return self.delete_where(lambda key: not is_credential_name(key))

    def delete_where(self, doomed: Callable[[str], bool]) -> int:
        """Remove the items whose names are ``doomed``; return how many. One that is gone by then is
        no error."""
        removed, self._names = 0, None
        for key in filter(doomed, self.names()):
            try:
                self.keystore.delete(key)
                removed += 1
            except ItemNotFound:
                continue
        self._names = None
        return removed


def _superseded(other: SessionKey, session: SessionKey, now: float) -> bool:
    return other.expires < now or (
        other.prefix() == session.prefix() and other.expires != session.expires
    )


# ======================================================================
# Config
# ======================================================================
# ~/.aws/config, environment and flags -> ProfileConfig. Reads one file, decides, and touches
# nothing else.


class ConfigFile:
    """The AWS config file: its sections are found by one scan, and parsed when they are asked for.

    The dialect is botocore's, but for what aws-vault's users or its own ``add`` wrote:
    docs/differences.md.
    """

    def __init__(self, path: str, text: str = "", safe: bool = True) -> None:
        self.path = path
        self.safe = safe
        self.text = "\n".join(ini_lines(text))
        self._spans: dict[str, list[tuple[int, int]]] = {}
        self._parsed: dict[str, dict[str, str]] = {}
        self._scan()

    def _scan(self) -> None:
        name, start, spelled = "", 0, {"": ""}
        # First what nearly all headers are: two words that mean themselves.
        plain = r"profile (?!default\])[^\s\]\"'\\]+"
        # A pattern that begins with a line's end is found faster than one with ^.
        pattern = rf"\n[^\S\n]*\[(?:({plain})\](?=\n)|(.*))"
        headers = re.finditer(pattern, f"\n{self.text}\n")
        for count, match in enumerate(headers):
            if count == MAX_SECTIONS:
                raise ConfigError(f"{printable(self.path)} has more than {count:,} sections")
            self._spans.setdefault(name, []).append((start, match.start()))
            start, name = match.end() - 1, match[1]
            header = name or match[2].rpartition("]")[0]
            if not header:
                raise ConfigError(f"{self._where(match.start())}: a section's name needs its ]")
            name = name or _section_name(header)
            # To botocore headers that are written otherwise are other sections: the later counts.
            if spelled.setdefault(name, header) != header:
                self._spans[name], spelled[name] = [], header
        self._spans.setdefault(name, []).append((start, len(self.text)))

    def _where(self, position: int, lines_on: int = 0) -> str:
        line = self.text.count("\n", 0, position) + 1 + lines_on
        return f"{printable(self.path)}, line {line}"

    def profile_names(self) -> list[str]:
        """Return the names of all profiles in the file's order; an empty [default] is none."""
        names = [
            name[8:] if name != "default" else name
            for name in self._spans
            if _is_profile_section(name)
        ]
        return [name for name in names if name != "default" or self.section("default")]

    def has_section(self, name: str) -> bool:
        """Return True if the file has a section of exactly this name."""
        return name in self._spans

    def has_profile(self, name: str) -> bool:
        """Return True if the file has a section for a profile."""
        return profile_section(name) in self._spans

    def section(self, name: str) -> dict[str, str]:
        """Return a section's keys and values, by its name as it stands in the brackets; empty if
        there is none."""
        if name not in self._parsed:
            self._check_size(name)
            values: dict[str, str] = {}
            for start, end in self._spans.get(name, ()):
                values.update(self._read_span(start, end))
            self._parsed[name] = {key: _unquoted(value) for key, value in values.items()}
        return self._parsed[name]

    def _check_size(self, name: str) -> None:
        """Refuse a section, or so many of one name, that would take seconds to read; comments are
        free."""
        texts = [self.text[start:end] for start, end in self._spans.get(name, ())]
        # A parser is made for each: that takes as long as to read 200 bytes.
        if sum(map(len, texts)) + 200 * len(texts) <= MAX_SECTION_BYTES:
            return
        said = (re.sub(r"(?m)^[ \t]*[#;].*\n?", "", text) for text in texts)
        if sum(map(len, said)) + 200 * len(texts) > MAX_SECTION_BYTES:
            raise ConfigError(
                f"{printable(self.path)}: section [{printable(name)}] is longer than "
                f"{MAX_SECTION_BYTES:,} bytes, or stands there too often"
            )

    def _read_span(self, start: int, end: int) -> dict[str, str]:
        """Read the lines of one section: of repeated keys the last one counts, keys are lower case.

        A key without a value takes the indented lines below it as its value, each after a newline.
        """
        # What would be a header or a comment to it has been taken out before, more exactly.
        parser = configparser.RawConfigParser(comment_prefixes=(), strict=False)
        parser.optionxform = _key  # type: ignore[method-assign, assignment]
        parser.read_file(["[it]", *self._plain_lines(start, end)])
        return dict(parser.items("it"))

    def _plain_lines(self, start: int, end: int) -> Iterator[str]:
        """Yield a section's lines as configparser takes them: a key at the margin, the other lines
        of its value indented.

        A line that stands deeper than a key belongs to it if that is empty, which makes it nested:
        so both botocore and aws-vault read it. One without a key goes on with the value above, if
        it stands deeper than ``margin``, where botocore saw the last key.
        """
        numbered = enumerate(self.text[start:end].split("\n"))
        lines = [(n, line) for n, line in numbered if line.lstrip()[:1] not in ("#", ";")]
        lines.reverse()
        margin, depth, nested = end, end, False
        while lines:
            number, line = lines.pop()
            bare = line.strip()
            key, value = _split_line(bare)
            if not bare or _indent(line) > ((depth if nested else end) if key else margin):
                yield f" {bare}".rstrip()
                continue
            if not key:
                where = self._where(start, number)
                raise ConfigError(f"{where}: not a line of the form key = value")
            depth = _indent(line)
            margin = min(margin, depth)
            first, *further = _value_lines(value, lines, depth)
            nested = not further and not _unquoted(first)
            # Blanks within a key would cost configparser quadratic time.
            written = " ".join(bare[: len(bare) - len(value)].rstrip()[:-1].split())
            yield f"{written} = {'' if nested else first}"
            yield from (f" {text}" for text in further)


def _value_lines(value: str, lines: list[tuple[int, str]], depth: int) -> list[str]:
    """Return the lines of a value without comments: what a backslash at its end joins is one line,
    a raw value has all to its end.

    Takes them from the end of ``lines``, but never one that botocore reads as a key of its own: the
    name of a Windows folder ends in a backslash, and a back-quote may stand alone.
    """

    def is_key(line: str) -> bool:
        return _indent(line) <= depth and bool(_split_line(line.strip())[0])

    mark = next((mark for mark in RAW_MARKS if value.startswith(mark)), "")
    if mark:
        taken = [value]
        if mark in value[len(mark) :]:
            return taken
        for _, line in reversed(lines):
            if is_key(line):
                break
            taken.append(line.strip())
            if mark in line:
                del lines[1 - len(taken) :]
                return taken
    parts = [_without_comment(value)]
    while parts[-1].endswith("\\") and lines and lines[-1][1].strip() and not is_key(lines[-1][1]):
        parts[-1] = parts[-1][:-1]
        parts.append(_without_comment(lines.pop()[1].strip()))
    return ["".join(parts)]


def ini_lines(text: str) -> list[str]:
    """Cut a file into lines as Python's configparser does, for which a lone CR ends one too."""
    return text.lstrip("\ufeff").replace("\r\n", "\n").replace("\r", "\n").split("\n")


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _key(text: str) -> str:
    text = text.strip()
    if len(text) > 1 and text[0] == text[-1] and text[0] in '"`':
        text = text[1:-1].strip()
    return text.lower()


RAW_MARKS = ("`", '"""')


def _is_profile_section(name: str) -> bool:
    return name == "default" or (name.startswith("profile ") and len(name) > 8)


SECTION_KINDS = ("profile", "sso-session", "services")


def _section_name(header: str) -> str:
    """Return a section's name, its kind and one blank before it: read as botocore 1.42 does, like a
    shell, or as it stands where that gives no single name, which aws-vault allows."""
    kind = next((kind for kind in SECTION_KINDS if header.startswith(kind)), "")
    rest = header[len(kind) :]
    if not kind or not rest or not any(mark in rest for mark in "\"'\\ \t"):
        return header
    if rest[0] != " " or any(mark in rest[1:] for mark in "\"'\\ \t"):
        try:
            words = shlex.split(header)
        except ValueError:
            return header
        if len(words) == 2 and words[1]:
            rest = f" {words[1]}"
    name = f"{kind}{rest}"
    return "default" if name == "profile default" else name


def profile_header(name: str) -> str:
    """Return the line that begins a profile's section, quoted as the AWS CLI 2 writes it."""
    section = profile_section(name)
    if name != "default" and any(mark in name for mark in "\"'\\ \t"):
        section = f"profile {shlex.quote(name)}"
    return f"[{section}]"


def _split_line(line: str) -> tuple[str, str]:
    at = min((line.find(mark) for mark in "=:" if mark in line), default=0)
    return _key(line[:at]), line[at + 1 :].strip()


def _without_comment(value: str) -> str:
    """Return a value up to the comment that begins at a blank and ``#``, or where there is none at
    a blank and ``;``; one that begins the value leaves nothing."""
    if value[:1] in ("#", ";"):
        return ""
    for mark in "#;":
        starts = [at for at in (value.find(f" {mark}"), value.find(f"\t{mark}")) if at >= 0]
        if starts:
            return value[: min(starts)].rstrip()
    return value


def _unquoted(text: str) -> str:
    r"""Drop the quotes around a whole value; one in back-quotes or ``\"\"\"`` is taken as it is,
    without what follows it."""
    for mark in RAW_MARKS:
        end = text.rfind(mark, len(mark)) if text.startswith(mark) else -1
        if end > 0:
            return text[len(mark) : end]
    if "\n" in text:
        return text
    # A quote between them belongs to a command's words: "/opt/otp dir/otp" "acct one".
    quoted = text[:1] in ("'", '"') and text.find(text[0], 1) == len(text) - 1 > 0
    return text[1:-1] if quoted else text


def profile_section(name: str) -> str:
    """Return the name of a profile's section."""
    return "default" if name == "default" else f"profile {name}"


def load_config(world: World) -> ConfigFile:
    """Read the AWS config file; a missing one is empty. ConfigError if it can't be read."""
    path = config_path(world)
    try:
        data, safe = world.read_trusted(path, MAX_CONFIG_BYTES)
    except FileNotFoundError:
        return ConfigFile(path)
    except OSError as error:
        raise ConfigError(f"can't read {printable(path)}: {os_reason(error)}") from None
    if b"\0" in data:
        raise ConfigError(f"{printable(path)} is no UTF-8 text", "save it as UTF-8")
    return ConfigFile(path, data.decode("utf-8", "surrogateescape"), safe)


def config_path(world: World) -> str:
    """Return the path of the AWS config file."""
    named = world.environ.get("AWS_CONFIG_FILE", "")
    return world.expand(named) if named else os.path.join(world.home(), ".aws", "config")


class Setting(Value):
    """One row of what a profile can say.

    ``env``: variables that beat the file, for the profile asked for only if ``active_only``.
    ``inherited``: other profiles have it from [default]. ``trusted``: only a file that nobody else
    can have written may set it. ``form``: a pattern that AWS takes, and what any other text is.
    """

    name: str
    env: tuple[str, ...] = ()
    active_only: bool = False
    inherited: bool = False
    trusted: bool = False
    flag: str = ""
    form: tuple[str, str] = ("", "")

    def is_set(self, text: str) -> bool:
        """Return True if a text is a value: an empty one, or no time at all, is unset."""
        return bool(text) and not (self.flag == DURATION_FLAG and is_zero_duration(text))

    def read(self, text: str) -> str:
        """Return a text that AWS takes; ValueError otherwise."""
        pattern, otherwise = self.form
        if pattern and not re.fullmatch(pattern, text, re.ASCII):
            raise ValueError(otherwise)
        return text


DURATION_FLAG = "--duration"
# What AWS says of names (STS API Reference, AssumeRole): a wrong one shall cost no MFA code.
NAME_FORM = (r"[\w+=,.@-]{2,64}", "not 2 to 64 letters, digits or + = , . @ - _")
SOURCE_FORM = (r"[\w+=,.@-]{2,256}", "not 2 to 256 letters, digits or + = , . @ - _")
SERIAL_FORM = (r"[\w+=/:,.@-]{9,256}", "no serial number or ARN of an MFA device")
ROLE_FORM = (r"arn:[\w-]+:iam::\d{12}:role/[!-~]{1,1000}", "no ARN of a role")
EXTERNAL_ID_FORM = (r"[\w+=,.@:/-]{2,1224}", "not 2 to 1224 letters, digits or + = , . @ : / - _")
REGION_FORM = (r"[A-Za-z0-9-]{1,63}", "no name of a region")
REGIONAL_FORM = ("legacy|regional", "neither legacy nor regional")


# fmt: off
SETTINGS = {
    row.name: row
    for row in (
        Setting(
            "region", ("AWS_REGION", "AWS_DEFAULT_REGION"), inherited=True, flag="--region",
            form=REGION_FORM,
        ),
        Setting("mfa_serial", ("AWS_MFA_SERIAL",), inherited=True, form=SERIAL_FORM),
        Setting("mfa_process", inherited=True, trusted=True),
        Setting("duration_seconds", ("AWS_ASSUME_ROLE_TTL",), inherited=True, flag=DURATION_FLAG),
        Setting("session_ttl", ("AWS_SESSION_TOKEN_TTL",), inherited=True, flag=DURATION_FLAG),
        Setting(
            "chained_session_ttl", ("AWS_CHAINED_SESSION_TOKEN_TTL",), inherited=True,
            flag=DURATION_FLAG,
        ),
        Setting(
            "endpoint_url", ("AWS_ENDPOINT_URL_STS", "AWS_ENDPOINT_URL"), inherited=True,
            trusted=True,
        ),
        Setting("services", inherited=True, trusted=True),
        Setting(
            "ignore_configured_endpoint_urls", ("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS",),
            inherited=True,
        ),
        Setting(
            "sts_regional_endpoints", ("AWS_STS_REGIONAL_ENDPOINTS",), inherited=True,
            form=REGIONAL_FORM,
        ),
        Setting("use_fips_endpoint", ("AWS_USE_FIPS_ENDPOINT",), inherited=True),
        Setting("use_dualstack_endpoint", ("AWS_USE_DUALSTACK_ENDPOINT",), inherited=True),
        Setting("ca_bundle", ("AWS_CA_BUNDLE",), inherited=True, trusted=True),
        Setting("retry_mode", ("AWS_RETRY_MODE",), inherited=True),
        Setting("max_attempts", ("AWS_MAX_ATTEMPTS",), inherited=True),
        Setting("role_arn", ("AWS_ROLE_ARN",), active_only=True, form=ROLE_FORM),
        Setting("role_session_name", ("AWS_ROLE_SESSION_NAME",), active_only=True, form=NAME_FORM),
        Setting("session_tags", ("AWS_SESSION_TAGS",), active_only=True),
        Setting("transitive_session_tags", ("AWS_TRANSITIVE_TAGS",), active_only=True),
        Setting("source_identity", ("AWS_SOURCE_IDENTITY",), active_only=True, form=SOURCE_FORM),
        Setting("external_id", form=EXTERNAL_ID_FORM),
        Setting("source_profile"),
        Setting("credential_source"),
        Setting("credential_process", trusted=True),
        Setting("web_identity_token_file", trusted=True),
        Setting("web_identity_token_process", trusted=True),
        Setting("sso_session"),
        Setting("sso_start_url"),
    )
}
# What of a profile makes another session when a flag or a variable, not the file, says it.
VARIANT_SETTINGS = (
    "mfa_serial", "duration_seconds", "session_ttl", "chained_session_ttl", "endpoint_url",
    "role_arn", "role_session_name", "session_tags", "transitive_session_tags", "source_identity",
)
# fmt: on


class Duration(Value):
    """How long a session shall last, and which flag, variable or key said so ("" if none did)."""

    length: datetime.timedelta
    origin: str = ""


class Endpoint(Value):
    """How STS is reached: what is not set is left to botocore's rules."""

    region: str = ""
    url: str = ""
    regional: str = ""
    fips: bool = False
    dual_stack: bool = False
    ca_bundle: str = ""
    retry_mode: str = ""
    max_attempts: int = 0


class ProfileConfig(Value):
    """All that flags, variables and the file say of a profile, resolved, with its source
    profile."""

    name: str
    endpoint: Endpoint = Endpoint()
    source: ProfileConfig | None = None
    role_arn: str = ""
    role_session_name: str = ""
    external_id: str = ""
    session_tags: tuple[tuple[str, str], ...] = ()
    transitive_tags: tuple[str, ...] = ()
    source_identity: str = ""
    mfa_serial: str = ""
    mfa_process: str = ""
    role_duration: Duration = Duration(datetime.timedelta(hours=1))
    session_duration: Duration = Duration(datetime.timedelta(hours=1))
    chained_session_duration: Duration = Duration(datetime.timedelta(hours=8))
    other_source: str = ""
    variant: tuple[tuple[str, str], ...] = ()


class Layer(Value):
    """One place that settings come from: how an error names it, and what it says."""

    where: str
    values: Mapping[str, str]
    is_default: bool = False
    from_file: bool = False


class Lookup:
    """The places where one profile's settings are looked up, first one first."""

    def __init__(
        self,
        config: ConfigFile,
        profile: str,
        flags: Mapping[str, str],
        environ: Mapping[str, str],
        active: bool,
    ) -> None:
        self.config = config
        self.profile = profile
        self.flags = flags
        self.environ = environ
        self.active = active
        self.layers = list(self._file_layers())

    def _file_layers(self) -> Iterator[Layer]:
        seen: list[str] = []
        included: list[str] = []  # from one to the next by include_profile
        name, inherited = self.profile, False
        while True:
            if name in included:
                circle = " -> ".join(map(printable, [*included[included.index(name) :], name]))
                raise ConfigError(
                    f"{printable(self.config.path)}: include_profile goes in a circle: {circle}"
                )
            if len(included) > MAX_CHAIN:
                raise ConfigError(
                    f"{printable(self.config.path)}: include_profile goes over more than "
                    f"{MAX_CHAIN} profiles"
                )
            if name in seen:
                return  # [default] includes a profile that falls back to [default]
            seen.append(name)
            included.append(name)
            section = profile_section(name)
            values = self.config.section(section)
            yield Layer(
                f"{printable(self.config.path)}, section [{printable(section)}]",
                values,
                inherited,
                True,
            )
            following = values.get("include_profile", "")
            if following and not (following == "default" and "default" in seen):
                if not self.config.has_profile(following):
                    raise ConfigError(
                        f"{printable(self.config.path)}, section [{printable(section)}]: "
                        "include_profile names "
                        f"{printable(following)!r}, which has no section",
                        closest(following, self.config.profile_names()),
                    )
                name = following
            elif "default" not in seen:
                name, inherited, included = "default", True, []
            else:
                return

    def find(self, name: str, *, file_only: bool = False) -> tuple[str, str]:
        """Return a setting's first non-empty text and where it stands; two empty texts if
        nowhere."""
        setting = SETTINGS[name]
        for layer in self.layers if file_only else self._all_layers(setting):
            text = layer.values.get(name, "")
            if setting.is_set(text) and (setting.inherited or not layer.is_default):
                where = f"{layer.where}, {name}" if layer.from_file else layer.where
                if layer.from_file and setting.trusted and not self.config.safe:
                    raise ConfigError(
                        f"{where}: not taken from a file that others can have written",
                        f"chown it to yourself and chmod o-w {printable(self.config.path)}",
                    )
                return text, where
        return "", ""

    def _all_layers(self, setting: Setting) -> Iterator[Layer]:
        yield Layer(setting.flag, self.flags)
        if self.active or not setting.active_only:
            for variable in setting.env:
                yield Layer(variable, {setting.name: self.environ.get(variable, "")})
        yield from self.layers

    def text(self, name: str) -> str:
        """Return a setting's text, or an empty one; ConfigError for one that AWS would refuse."""
        return self.parsed(name, SETTINGS[name].read, "")

    def parsed(self, name: str, parse: Callable[[str], T], default: T) -> T:
        """Return a setting's parsed value; a bad one is a ConfigError that names where it
        stands."""
        text, where = self.find(name)
        if not text:
            return default
        try:
            return parse(text)
        except ValueError as error:
            shown = shown_url(text) if name == "endpoint_url" else shortened(text)
            raise ConfigError(
                f"{where}: {shown!r} is {printable(error)}", getattr(error, "hint", "")
            ) from None

    def duration(self, name: str, default: datetime.timedelta) -> Duration:
        """Return a duration; a bare number is seconds only where the file says it."""
        where = self.find(name)[1]
        in_file = where not in ("", DURATION_FLAG, *SETTINGS[name].env)
        bare = in_file and name == "duration_seconds"
        length = self.parsed(name, lambda text: parse_duration(text, bare_seconds=bare), default)
        return Duration(length, where)

    def variant(self) -> tuple[tuple[str, str], ...]:
        """Return the settings that flags or variables made other than the file alone does."""
        return tuple(
            (name, text)
            for name in VARIANT_SETTINGS
            if (text := self.find(name)[0]) != self.find(name, file_only=True)[0]
        )


def parse_bool(text: str) -> bool:
    """Read a boolean as Go's ParseBool does; ValueError otherwise."""
    if text in ("1", "t", "T", "TRUE", "true", "True"):
        return True
    if text in ("0", "f", "F", "FALSE", "false", "False"):
        return False
    raise ValueError("neither true nor false")


def parse_count(text: str) -> int:
    """Read a positive whole number; ValueError otherwise."""
    return parse_int(text, 1, 999)


def parse_tags(text: str) -> tuple[tuple[str, str], ...]:
    """Read ``key=value,key=value``; ValueError otherwise."""
    pairs = [part.partition("=") for part in text.split(",")]
    if not all(mark and key.strip() for key, mark, _ in pairs):
        raise ValueError("not of the form key=value,key=value")
    return tuple((key.strip(), value.strip()) for key, _, value in pairs)


def parse_names(text: str) -> tuple[str, ...]:
    """Read a list with commas; empty parts are dropped."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def parse_retry_mode(text: str) -> str:
    """Read botocore's name of a way to retry; ValueError otherwise."""
    if text not in ("legacy", "standard", "adaptive"):
        raise ValueError("none of legacy, standard, adaptive")
    return text


LOOPBACK_HOSTS = ("localhost", "127.0.0.1", "[::1]")


def split_url(url: str) -> tuple[str, str]:
    """Return scheme and host of an http or https URL (RFC 3986); ValueError for any other text."""
    # Not urllib.parse, which takes 2 ms of every start to import.
    host = r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::([0-9]{1,5}))?"
    match = re.fullmatch(rf"(https?)://{host}(?:[/?][!-~]*)?", url)
    if not match or not 0 < int(match[3] or 443) < 65536:
        raise ValueError("no http or https URL without a user name")
    return match[1], match[2].lower()


def is_loopback(url: str) -> bool:
    """Return True if a URL's host is this machine; ValueError if it is no URL."""
    return split_url(url)[1] in LOOPBACK_HOSTS


def check_endpoint_url(url: str, allow_http: bool) -> str:
    """Return a URL that keys may be proved to; ValueError for one that would do it in the open."""
    if split_url(url)[0] == "http" and not (is_loopback(url) or allow_http):
        raise ValueError("plain http to another host (AWS_VAULT_ALLOW_HTTP=1 allows it)")
    return url


def resolve_endpoint(lookup: Lookup) -> Endpoint:
    """Return how a profile reaches STS, by the AWS SDKs' rules of precedence."""
    return Endpoint(
        lookup.text("region"),
        endpoint_url(lookup, "sts"),
        lookup.text("sts_regional_endpoints"),
        lookup.parsed("use_fips_endpoint", parse_bool, False),
        lookup.parsed("use_dualstack_endpoint", parse_bool, False),
        lookup.text("ca_bundle"),
        lookup.parsed("retry_mode", parse_retry_mode, ""),
        lookup.parsed("max_attempts", parse_count, 0),
    )


def endpoint_url(lookup: Lookup, service: str) -> str:
    """Return where a service (``sts``, ``iam``) is asked, or nothing if by botocore's rules (AWS
    SDKs and Tools Reference Guide, "Service-specific endpoints")."""
    if lookup.parsed("ignore_configured_endpoint_urls", parse_bool, False):
        return ""

    def places() -> Iterator[tuple[str, str]]:
        for name in (f"AWS_ENDPOINT_URL_{service.upper()}", "AWS_ENDPOINT_URL"):
            yield lookup.environ.get(name, ""), name
        yield _service_endpoint(lookup, service)
        yield lookup.find("endpoint_url", file_only=True)

    # One by one: each start comes here, and a variable makes the rest superfluous.
    url, where = next((place for place in places() if place[0]), ("", ""))
    try:
        return url and check_endpoint_url(url, lookup.environ.get("AWS_VAULT_ALLOW_HTTP") == "1")
    except ValueError as error:
        raise ConfigError(f"{where}: {shown_url(url)!r} is {error}") from None


def _service_endpoint(lookup: Lookup, service: str) -> tuple[str, str]:
    """Return a service's endpoint of the profile's [services] section, and where it stands."""
    name = lookup.text("services")
    nested = lookup.config.section(f"services {name}").get(service, "") if name else ""
    for line in nested.splitlines():
        key, value = _split_line(line.strip()) if line.strip() else ("", "")
        if key == "endpoint_url":
            section = f"{printable(lookup.config.path)}, section [services {printable(name)}]"
            return _unquoted(*_value_lines(value, [], 0)), f"{section}, endpoint_url"
    return "", ""


def load_profile(
    config: ConfigFile,
    name: str,
    flags: Mapping[str, str],
    environ: Mapping[str, str],
    stored: Sequence[str],
    path: tuple[str, ...] = (),
) -> ProfileConfig:
    """Resolve a profile and its sources. ConfigError for a bad value, a circle, or a source that is
    nowhere.

    ``path`` are the profiles whose source it is.
    """
    if len(path) > MAX_CHAIN:
        raise ConfigError(
            f"{printable(config.path)}: source_profile goes over more than {MAX_CHAIN} profiles"
        )
    if name in path:
        circle = " -> ".join(map(printable, [*path[path.index(name) :], name]))
        raise ConfigError(f"{printable(config.path)}: source_profile goes in a circle: {circle}")
    lookup = Lookup(config, name, flags, environ, active=not path)
    source_name, where = lookup.find("source_profile")
    source = None
    if source_name and source_name != name:
        if not config.has_profile(source_name) and source_name not in stored:
            raise ConfigError(
                f"{where}: profile {printable(source_name)!r} is neither in the file nor in the "
                "vault",
                closest(source_name, {*config.profile_names(), *stored}),
            )
        source = load_profile(config, source_name, flags, environ, stored, (*path, name))
    return _profile(lookup, source)


# What gets credentials without stored keys, and what to do while awsvault does not do it.
BY_SDK = "the AWS CLI and SDKs do it themselves: set AWS_PROFILE={target}"
BY_SSO = f"aws sso login --profile {{source}}; then {BY_SDK}"
OTHER_SOURCES = {
    "credential_source": BY_SDK,
    "credential_process": BY_SDK,
    "web_identity_token_file": BY_SDK,
    "web_identity_token_process": "aws-vault does it: aws-vault exec {target}",
    "sso_session": BY_SSO,
    "sso_start_url": BY_SSO,
}


def _profile(lookup: Lookup, source: ProfileConfig | None) -> ProfileConfig:
    hour = datetime.timedelta(hours=1)
    mfa_process = lookup.text("mfa_process")
    return ProfileConfig(
        name=lookup.profile,
        endpoint=resolve_endpoint(lookup),
        source=source,
        role_arn=lookup.text("role_arn"),
        role_session_name=lookup.text("role_session_name"),
        external_id=lookup.text("external_id"),
        session_tags=lookup.parsed("session_tags", parse_tags, ()),
        transitive_tags=lookup.parsed("transitive_session_tags", parse_names, ()),
        source_identity=lookup.text("source_identity"),
        mfa_serial=lookup.text("mfa_serial"),
        mfa_process=mfa_process,
        role_duration=lookup.duration("duration_seconds", hour),
        session_duration=lookup.duration("session_ttl", hour),
        chained_session_duration=lookup.duration("chained_session_ttl", 8 * hour),
        other_source=next((name for name in OTHER_SOURCES if lookup.text(name)), ""),
        variant=lookup.variant(),
    )


# ======================================================================
# Prompts
# ======================================================================
# How an MFA code is asked for. Each code is used for one request.


class Mfa(Value):
    """An MFA device, and the shell command that prints its code, if a profile names one."""

    serial: str
    process: str = ""


PROMPT_INSTEAD = "give the code with --mfa-token or set mfa_process"


def mfa_question(serial: str) -> str:
    """Return what the user is asked."""
    return f"MFA code for {printable(serial)}"


def read_code(serial: str, text: Secret) -> Secret:
    """Return a code without blanks, as apps show it in two groups; AwsVaultError if it is none."""
    code = "".join(text.reveal().split())
    if not (code.isascii() and code.isdigit() and len(code) == 6):
        raise AwsVaultError(
            f"no MFA code for {printable(serial)}: a code is six digits", "try again"
        )
    return Secret(code)


def ask_terminal(world: World, serial: str) -> Secret:
    """Ask on the controlling terminal; NeedsUser if there is none."""
    return ask_until_right(
        world,
        mfa_question(serial),
        lambda text: read_code(serial, text),
        timeout=PROMPT_WAIT_SECONDS,
        instead=PROMPT_INSTEAD,
    )


def ask_zenity(world: World, serial: str) -> Secret:
    """Ask in a window of GNOME's; nothing in the serial is taken for markup or an escape."""
    text = mfa_question(serial).replace("\\", "\\\\")
    argv = ["zenity", "--entry", "--no-markup", "--title", "aws-vault", "--text", text]
    return _ask_program(world, serial, argv)


def ask_kdialog(world: World, serial: str) -> Secret:
    """Ask in a window of KDE's."""
    argv = ["kdialog", "--inputbox", mfa_question(serial), "--title", "aws-vault"]
    return _ask_program(world, serial, argv)


OSASCRIPT = (
    "on run argv",
    'display dialog (item 1 of argv) default answer "" buttons {"OK", "Cancel"} default button 1',
    "return text returned of result",
    "end run",
)


def ask_osascript(world: World, serial: str) -> Secret:
    """Ask in a macOS dialog. The question is an argument, so no serial can be a piece of script."""
    script = [word for line in OSASCRIPT for word in ("-e", line)]
    return _ask_program(world, serial, ["osascript", *script, mfa_question(serial)])


def ask_ykman(world: World, serial: str) -> Secret:
    """Have a YubiKey make the code; it may have to be touched."""
    environ = world.environ
    device = environ.get("YKMAN_OATH_DEVICE_SERIAL", "")
    old = environ.get("AWS_VAULT_YKMAN_VERSION", "") in ("1", "2", "3")
    name = environ.get("YKMAN_OATH_CREDENTIAL_NAME") or serial
    argv = ["ykman", *(["--device", device] if device else []), "oath"]
    argv += [*([] if old else ["accounts"]), "code", "--single", name]
    return _ask_program(world, serial, argv, on_terminal=True)


def _ask_program(
    world: World, serial: str, argv: Sequence[str], *, on_terminal: bool = False
) -> Secret:
    if not world.may_ask:
        raise NeedsUser(f"{mfa_question(serial)}: --no-input forbids asking", PROMPT_INSTEAD)
    program = argv[0]
    try:
        result = world.run(argv, timeout=PROMPT_WAIT_SECONDS, on_terminal=on_terminal)
    except ToolMissing:
        raise ToolError(f"{program} is not installed", "choose another --prompt") from None
    except ToolTimeout:
        raise AwsVaultError(
            f"nobody answered {program} within {PROMPT_WAIT_SECONDS:.0f} seconds", "try again"
        ) from None
    if result.status != 0:
        reason = last_line(result.errors) or f"it was dismissed (status {result.status})"
        raise AwsVaultError(f"{program} gave no MFA code: {reason}", "try again")
    return result.output


# A way to ask is one function above and one row here.
PROMPTERS: dict[str, Callable[[World, str], Secret]] = {
    "terminal": ask_terminal,
    "kdialog": ask_kdialog,
    "osascript": ask_osascript,
    "zenity": ask_zenity,
    "ykman": ask_ykman,
}
# Never ykman: it would spend a code of the key that happens to be plugged in.
WINDOW_PROMPTERS = ("kdialog", "osascript", "zenity")


def check_prompter(name: str) -> None:
    """Refuse what is no way to ask (ValueError, UsageError)."""
    if name == "pass":
        raise UsageError(
            "the prompter pass does not exist any more, here as in aws-vault",
            "write mfa_process = pass otp ENTRY into the profile",
        )
    if name not in PROMPTERS:
        raise ValueError(f"none of {', '.join(PROMPTERS)}")


def choose_prompter(world: World, named: str = "") -> str:
    """Return how to ask: as named, else on the terminal, else in a window if one can be shown."""
    if named:
        return named
    if not world.can_ask() and world.can_show():
        for name in WINDOW_PROMPTERS:
            if world.has_program(name):
                return name
    return "terminal"


class MfaCodes:
    """Where MFA codes come from: the one that was given, the profile's own command, or the user."""

    def __init__(self, world: World, given: Secret | None, prompter: str) -> None:
        self.world = world
        self.given = given
        self.prompter = prompter

    def lock(self, mfa: Mfa) -> Lock:
        """Return the lock to hold from asking for a code until it is spent: two roles must not
        share one."""
        return self.world.lock("mfa", mfa.serial, doing=f"using the MFA device {mfa.serial}")

    def code(self, mfa: Mfa) -> Secret:
        """Return a code of the device; AwsVaultError if what came is not one."""
        if self.given is not None:
            code, self.given = self.given, None
        elif mfa.process:
            code = self._from_process(mfa)
        else:
            code = PROMPTERS[choose_prompter(self.world, self.prompter)](self.world, mfa.serial)
        return read_code(mfa.serial, code)

    def _from_process(self, mfa: Mfa) -> Secret:
        # The shell is what aws-vault's users wrote mfa_process for.
        result = self.world.run(
            ["/bin/sh", "-c", mfa.process], timeout=PROMPT_WAIT_SECONDS, on_terminal=True
        )
        if result.status != 0:
            raise AwsVaultError(
                f"mfa_process for {printable(mfa.serial)} failed with status {result.status}",
                "run it by hand to see why",
            )
        return result.output


# ======================================================================
# AWS
# ======================================================================
# The only place that imports botocore, which sees nothing but what is passed to it here.

GLOBAL_REGION = "aws-global"
SKEW_CODES = (
    "RequestTimeTooSkewed",
    "SignatureDoesNotMatch",
    "RequestExpired",
    "InvalidSignatureException",
    "RequestInTheFuture",
)
MIN_SKEW_SECONDS = 120.0

ENDED_SESSION_MEANS = (
    "the session that signed the request has ended",
    "awsvault clear, then try again",
)
# AWS's word for a refusal -> what it means, and what helps.
REFUSALS = {
    "InvalidClientTokenId": (
        "AWS does not know the access key: it is deleted, inactive, or another partition's",
        "store a valid key with awsvault add",
    ),
    "SignatureDoesNotMatch": (
        "the secret key does not belong to the access key",
        "store the pair again with awsvault add",
    ),
    "ExpiredToken": ENDED_SESSION_MEANS,
    "ExpiredTokenException": ENDED_SESSION_MEANS,
    "AccessDenied": (
        "",
        "the policies of both sides must allow it, and may ask for MFA (mfa_serial)",
    ),
    "RegionDisabledException": ("", "enable STS in this region, or choose another with --region"),
    "ValidationError": ("", "look at role_arn, duration_seconds and the names in the profile"),
    "Throttling": ("AWS is asked too often", "try again later"),
}
# What AWS's message says -> what the refusal means then, whatever its code.
REFUSED_BECAUSE = (
    (
        "MultiFactorAuthentication failed",
        "the MFA code was refused",
        "a code works once: wait for the next one; check mfa_serial and the device's clock",
    ),
    (
        "scoped to a valid region",
        "there is no such region",
        "check --region, AWS_REGION and region",
    ),
    ("Signature expired", "this machine's clock is behind AWS's", "set the clock"),
    ("Signature not yet current", "this machine's clock is ahead of AWS's", "set the clock"),
)

CHECK_NETWORK = "check the network, the proxy and the region"
# botocore's exception -> what could not be done, and what helps.
NETWORK_FAILURES = {
    "ProxyConnectionError": (
        "the proxy refused or can't be reached",
        "check HTTPS_PROXY and NO_PROXY",
    ),
    "SSLError": (
        "the server's certificate can't be verified",
        "check the CA bundle (AWS_CA_BUNDLE, ca_bundle) and the clock",
    ),
    "EndpointConnectionError": ("AWS can't be reached", CHECK_NETWORK),
    "ConnectTimeoutError": ("AWS can't be reached in time", CHECK_NETWORK),
    "ReadTimeoutError": ("AWS did not answer in time", "try again"),
    "HTTPClientError": (
        "the request could not be sent",
        "check HTTPS_PROXY, HTTP_PROXY and NO_PROXY",
    ),
    "ConnectionClosedError": ("the connection was closed before an answer", "try again"),
}


def partition(region: str) -> str:
    """Return the AWS partition of a region."""
    prefixes = {"cn-": "aws-cn", "us-gov-": "aws-us-gov", "us-iso": "aws-iso", "eusc-": "aws-eusc"}
    return next((name for prefix, name in prefixes.items() if region.startswith(prefix)), "aws")


class Aws:
    """AWS's services through botocore's clients: its endpoint rules, retries, proxies and
    signing."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.skew = datetime.timedelta()  # by which AWS's clock is ahead of ours
        self._session: Any = None

    def session(
        self, operation: str, params: Mapping[str, object], source: Credentials, endpoint: Endpoint
    ) -> Credentials:
        """Return the temporary credentials that an operation of STS gives (AwsError)."""
        answer = self.call("sts", operation, params, source, endpoint)
        try:
            found = _credentials_in(answer)
        except ValueError:
            raise not_aws(operation) from None
        now, ends = self.world.now() + self.skew, found.expiration or self.world.now()
        if not now < ends < now + 2 * MAX_SESSION:
            raise AwsError(
                f"{operation}: what answered gave a session that ends {format_time(ends)}",
                "check this machine's clock, and endpoint_url",
            )
        return found

    def call(
        self,
        service: str,
        operation: str,
        params: Mapping[str, object],
        source: Credentials,
        endpoint: Endpoint,
    ) -> dict[str, Any]:
        """Make one request and return the parsed answer. AwsError says why there is none.

        ``service``, ``operation`` and ``params`` are named as in botocore's model of the service.

        A request that is refused because this machine's clock is wrong is made once more with AWS's
        time.
        """
        self.world.load_library("botocore")
        with self.world.library_environment():
            from botocore.exceptions import BotoCoreError, ClientError
            from botocore.parsers import ResponseParserError

            try:
                client = self._client(service, source, endpoint)
                try:
                    return self._request(client, operation, params)
                except ClientError as error:
                    skew = self._clock_skew(error, client.meta.endpoint_url)
                    if not skew:
                        raise
                    self.skew = skew
                    with ShiftedSigningClock(skew):
                        return self._request(client, operation, params)
            except ClientError as error:
                raise explain_refusal(operation, error.response.get("Error", {})) from None
            except ResponseParserError:
                raise not_aws(operation) from None
            except (BotoCoreError, OSError) as error:
                raise explain_failure(operation, error) from None

    def _botocore(self) -> Any:
        """Return botocore's session, which keeps the models of services that it has read."""
        import botocore.session
        from botocore.loaders import Loader

        if self._session is None:
            self._session = botocore.session.Session()
            # The library's own data only: a data folder in the home would lead into every
            # request.
            ours = [Loader.BUILTIN_DATA_PATH]
            loader = Loader(include_default_search_paths=False, extra_search_paths=ours)
            self._session.register_component("data_loader", loader)
            self._session.register_component("response_parser_factory", _strict_parsers())
            bound_answers()
        return self._session

    def _client(self, service: str, source: Credentials, endpoint: Endpoint) -> Any:
        from botocore.config import Config

        session = self._botocore()
        if endpoint.regional:
            os.environ["AWS_STS_REGIONAL_ENDPOINTS"] = endpoint.regional
        retries = {
            "mode": endpoint.retry_mode or "standard",
            "total_max_attempts": endpoint.max_attempts or 3,
        }
        return session.create_client(
            service,
            region_name=self._region(session, service, endpoint),
            endpoint_url=endpoint.url or None,
            verify=endpoint.ca_bundle or None,
            aws_access_key_id=source.access_key_id,
            aws_secret_access_key=source.secret_access_key.reveal(),
            aws_session_token=source.session_token.reveal() if source.session_token else None,
            config=Config(
                retries=retries,
                connect_timeout=10,
                read_timeout=30,
                use_fips_endpoint=endpoint.fips,
                use_dualstack_endpoint=endpoint.dual_stack,
                user_agent_extra=f"awsvault/{__version__}",
            ),
        )

    def _region(self, session: Any, service: str, endpoint: Endpoint) -> str:
        """Return the region of a client. With a URL of the user's own botocore signs for just that
        one, also where it knows which region signs for the service's endpoint there."""
        region = endpoint.region or GLOBAL_REGION
        # get_component warns of this one (botocore 1.44).
        resolver = session._get_internal_component("endpoint_resolver")
        known = resolver.construct_endpoint(service, region) if endpoint.url else None
        return str((known or {}).get("credentialScope", {}).get("region", region))

    def _request(self, client: Any, operation: str, params: Mapping[str, object]) -> dict[str, Any]:
        started = self.world.now()
        try:
            answer: dict[str, Any] = client._make_api_call(operation, dict(params))
        finally:
            took = (self.world.now() - started).total_seconds()
            self.world.debug(
                f"{operation} at {shown_url(client.meta.endpoint_url)} took {took * 1000:.0f} ms"
            )
        return answer

    def _clock_skew(self, error: Any, url: str) -> datetime.timedelta | None:
        """Return by how much AWS's clock is ahead of ours, if that is why it refused and its word
        can be trusted."""
        from email.utils import parsedate_to_datetime

        headers = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
        if error.response.get("Error", {}).get("Code") not in SKEW_CODES or "date" not in headers:
            return None
        if not (url.startswith("https:") or is_loopback(url)):
            return None
        try:
            skew = parsedate_to_datetime(headers["date"]) - self.world.now()
        except (LookupError, OverflowError, TypeError, ValueError):
            return None
        if abs(skew.total_seconds()) < MIN_SKEW_SECONDS:
            return None
        direction = "behind" if skew.total_seconds() > 0 else "ahead of"
        self.world.say(
            f"warning: this machine's clock is {format_duration(abs(skew))} {direction} AWS's; "
            "trying with AWS's time"
        )
        return skew


def bound_answers() -> None:
    """Let botocore read 1 MB of an answer at most; by itself (1.44) it reads to the end, if any."""
    from botocore.awsrequest import AWSResponse

    def content(response: Any) -> bytes:
        if response._content is None:
            parts: list[bytes] = []
            for part in response.raw.stream():
                parts.append(part)
                if sum(map(len, parts)) > MAX_ITEM_BYTES:
                    response.raw.close()
                    raise BadText("the answer does not end")
            response._content = b"".join(parts)
        return bytes(response._content)

    AWSResponse.content = property(content)


def _strict_parsers() -> Any:
    """Return botocore's factory of parsers, made strict: an odd answer is a ResponseParserError.

    botocore 1.44: well-formed XML of another form ends in KeyError, TypeError, AttributeError,
    RecursionError and others, and its own reader of times takes numbers and nan.
    """
    from botocore.parsers import ResponseParserError, ResponseParserFactory

    factory: Any = ResponseParserFactory()
    factory.set_parser_defaults(timestamp_parser=str)
    create = factory.create_parser

    def create_parser(protocol: str) -> Any:
        parser = create(protocol)
        read = parser.parse

        def parse(response: Any, shape: Any) -> Any:
            try:
                parsed = read(response, shape)
                error = parsed.get("Error", {}).items()
            except (AttributeError, LookupError, RecursionError, TypeError, ValueError):
                raise ResponseParserError("not an answer of AWS") from None
            if error:
                parsed["Error"] = {name: text for name, text in error if isinstance(text, str)}
            return parsed

        parser.parse = parse
        return parser

    factory.create_parser = create_parser
    return factory


class ShiftedSigningClock:
    """A block in which botocore signs with another time than this machine's."""

    def __init__(self, skew: datetime.timedelta) -> None:
        self.skew = skew

    def __enter__(self) -> None:
        import botocore.auth

        self.clock: Any = botocore.auth.get_current_datetime

        def shifted(*args: Any, **kwargs: Any) -> datetime.datetime:
            moment: datetime.datetime = self.clock(*args, **kwargs) + self.skew
            return moment

        botocore.auth.get_current_datetime = shifted

    def __exit__(self, *_exception: object) -> None:
        import botocore.auth

        botocore.auth.get_current_datetime = self.clock


def _mfa_params(mfa: Mfa, code: Secret) -> dict[str, str]:
    return {"SerialNumber": mfa.serial, "TokenCode": code.reveal()}


def _credentials_in(answer: Mapping[str, Any]) -> Credentials:
    """Read an answer's credentials (ValueError)."""
    given, user = answer.get("Credentials"), answer.get("AssumedRoleUser")
    arn = str(user.get("Arn", "")) if isinstance(user, dict) else ""
    account = arn.split(":", 5)[4] if arn.count(":") >= 5 else ""
    if not isinstance(given, dict) or not str(given.get("SessionToken")).isascii():
        raise ValueError("no credentials")
    found = session_credentials({**given, "AccountId": account})
    return found.replace(
        expiration=found.expiration and found.expiration.replace(microsecond=0),
    )


def check_ca_bundle(world: World, endpoint: Endpoint) -> None:
    """Refuse a CA bundle that can't be read (AwsError): no MFA code shall be spent first."""
    if endpoint.ca_bundle and not world.may(os.R_OK, endpoint.ca_bundle):
        raise AwsError(
            f"CA bundle {printable(endpoint.ca_bundle)} can't be read",
            "check AWS_CA_BUNDLE and ca_bundle",
        )


def not_aws(operation: str, detail: str = "") -> AwsError:
    """Say that an answer was none of AWS's."""
    return AwsError(
        f"{operation}: what answered is not AWS{detail}",
        "a proxy, or a page that asks to log in to the network, may have answered",
    )


def explain_refusal(operation: str, error: Mapping[str, Any]) -> AwsError:
    """Turn AWS's error code and message into words that help."""
    code, text = str(error.get("Code", "")), str(error.get("Message", ""))
    if not code or code.isdigit():
        return not_aws(operation, f" (HTTP status {code})" if code else "")
    meaning, hint = next(
        ((meaning, hint) for words, meaning, hint in REFUSED_BECAUSE if words in text),
        REFUSALS.get(code, ("", "")),
    )
    quoted = printable(f"{code}: {text}" if text else code)
    return AwsError(
        f"{operation}: {meaning} ({quoted})" if meaning else f"{operation}: {quoted}", hint, code
    )


def explain_failure(operation: str, error: Exception) -> AwsError:
    """Turn a failure to reach AWS into words that help."""
    names = [kind.__name__ for kind in type(error).__mro__]
    meaning, hint = next(
        (NETWORK_FAILURES[name] for name in names if name in NETWORK_FAILURES),
        ("the request could not be made", "check region, endpoint_url and ca_bundle"),
    )
    return AwsError(f"{operation}: {meaning} ({root_cause(error)})", hint)


def root_cause(error: BaseException) -> str:
    """Say the first failure of those that led to an error, without a piece of any URL.

    botocore and urllib3 say also the whole URL of a request or a proxy, and pieces of it.
    """
    url = getattr(error, "kwargs", {}).get("endpoint_url", "")
    while cause := error.__cause__ or error.__context__:
        error = cause
    if isinstance(error, OSError):
        text = os_reason(error)
    else:
        ours = isinstance(error, BadText) or type(error).__module__.startswith("botocore.")
        text = str(error) if ours else ""
    if not text or "@" in text or "?" in text:
        text = type(error).__name__
    return f"{shown_url(url)}: {printable(text)}" if url else printable(text)


# ======================================================================
# Providers
# ======================================================================
# One class per way to get credentials. A provider is a value: comparing two compares what they
# would do.


class Tools:
    """What providers act with: ``min_ttl`` is what a cached session must have left.

    ``source_min_ttl`` is that of sessions that only sign for the next one, where it is another;
    ``for_server`` asks for what a server needs, which renews while it runs.
    """

    def __init__(
        self,
        world: World,
        vault: Vault,
        aws: Aws,
        codes: MfaCodes,
        min_ttl: datetime.timedelta,
        source_min_ttl: datetime.timedelta | None = None,
        *,
        for_server: bool = False,
    ) -> None:
        self.world = world
        self.vault = vault
        self.aws = aws
        self.codes = codes
        self.min_ttl = min_ttl
        self.source_min_ttl = source_min_ttl
        self.for_server = for_server
        self.made: dict[Provider, Credentials] = {}
        self._stored: dict[str, Credentials] = {}

    def for_source(self) -> Tools:
        """Return the tools for a session that only signs for the next one."""
        if self.source_min_ttl is None:
            return self
        tools = Tools(
            self.world,
            self.vault,
            self.aws,
            self.codes,
            self.source_min_ttl,
            for_server=self.for_server,
        )
        tools._stored, tools.made = self._stored, self.made
        return tools

    def stored(self, profile: str) -> Credentials:
        """Return long-lived keys, read from the vault at most once."""
        if profile not in self._stored:
            self._stored[profile] = self.vault.credentials(profile)
        return self._stored[profile]


class Provider(Value):
    """A way to get credentials."""

    def retrieve(self, tools: Tools) -> Credentials:
        """Get them: from the vault if they are there and fresh, else from AWS, asking for a code if
        need be."""
        raise NotImplementedError

    def made_from(self, tools: Tools, *, durations: bool = True) -> tuple[str, ...]:
        """Return all that decides what the credentials may do, and the durations that flags,
        variables or the config name, in a fixed order."""
        raise NotImplementedError

    def describe(self) -> str:
        """Say the chain in a few words, first link first."""
        raise NotImplementedError


class StoredKeys(Provider):
    """The long-lived keys of a profile."""

    profile: str

    def retrieve(self, tools: Tools) -> Credentials:
        return tools.stored(self.profile)

    def made_from(self, tools: Tools, *, durations: bool = True) -> tuple[str, ...]:  # noqa: ARG002
        return ("key", tools.stored(self.profile).access_key_id)

    def describe(self) -> str:
        return f"stored {self.profile}"


class SessionProvider(Provider):
    """Temporary credentials that are cached, and made by exactly one of the processes that need
    them at once."""

    source: Provider
    slot: SessionSlot
    endpoint: Endpoint
    duration: datetime.timedelta
    explicit_duration: bool = False
    mfa: Mfa | None = None

    operation = ""  # of STS
    server_life = RENEW_AHEAD

    def retrieve(self, tools: Tools) -> Credentials:
        if self not in tools.made:
            tools.made[self] = self._find_or_make(tools)
        return tools.made[self]

    def _find_or_make(self, tools: Tools) -> Credentials:
        least = self.least_life(tools)
        found = self.cached(tools, least)
        if found:
            return found
        identity = tools.vault.keystore.identity()
        with tools.world.lock("session", identity, self.slot.key(0).prefix(), shared_refusals=True):
            # Another process may have made it while this one waited for the lock.
            return self.cached(tools, least) or self._make(tools)

    def least_life(self, tools: Tools) -> datetime.timedelta:
        """Return how much of its life a cached session must have left: more for running SDKs."""
        if not tools.for_server:
            return tools.min_ttl
        return max(tools.min_ttl, min(self.server_life, self.duration / 3))

    def cached(
        self, tools: Tools, least: datetime.timedelta = datetime.timedelta()
    ) -> Credentials | None:
        """Return what is in the vault with ``least`` left, as long as it is valid at all."""
        exactly, any_duration = self._fingerprints(tools)
        return tools.vault.find_session(
            self.slot, exactly, least, "" if self.explicit_duration else any_duration
        )

    def _fingerprints(self, tools: Tools) -> tuple[str, str]:
        """Return what the session is made from as digests, with the durations that are named and
        without any."""
        return (
            digest(*self.made_from(tools)),
            digest(*self.made_from(tools, durations=False)),
        )

    def _make(self, tools: Tools) -> Credentials:
        check_ca_bundle(tools.world, self.endpoint)
        source = self.source.retrieve(tools.for_source())
        if self.mfa:
            with tools.codes.lock(self.mfa):
                proof = _mfa_params(self.mfa, tools.codes.code(self.mfa))
                made = self.request(tools, source, proof)
        else:
            made = self.request(tools, source)
        try:
            tools.vault.store_session(self.slot, made, *self._fingerprints(tools))
        except KeystoreError as error:
            tools.world.say(f"warning: the session can't be kept for next time: {error.message}")
        return made

    def request(
        self, tools: Tools, source: Credentials, proof: Mapping[str, object] | None = None
    ) -> Credentials:
        """Ask STS for the credentials; ``proof`` are the parameters of the MFA device."""
        params = {
            "DurationSeconds": int(self.duration.total_seconds()),
            **self.params(tools.world.now()),
            **(proof or {}),
        }
        return tools.aws.session(self.operation, params, source, self.endpoint)

    def params(self, now: datetime.datetime) -> dict[str, object]:  # noqa: ARG002
        """Return the operation's own parameters."""
        return {}

    def made_from(self, tools: Tools, *, durations: bool = True) -> tuple[str, ...]:
        named = durations and self.explicit_duration
        return (
            *self.source.made_from(tools, durations=durations),
            type(self).__name__,
            self.mfa.serial if self.mfa else "",
            self.endpoint.url,
            partition(self.endpoint.region),
            str(int(self.duration.total_seconds())) if named else "",
        )

    def describe(self) -> str:
        mfa = f" (mfa {self.mfa.serial.rpartition('/')[2]})" if self.mfa else ""
        duration = format_duration(self.duration)
        return f"{self.source.describe()} > {self.link()} {self.slot.profile} {duration}{mfa}"

    def link(self) -> str:
        """Return the word for this kind of link."""
        raise NotImplementedError


class SessionToken(SessionProvider):
    """GetSessionToken, signed by long-lived keys."""

    operation = "GetSessionToken"
    server_life = datetime.timedelta(hours=1)

    def link(self) -> str:
        return "session"


class AssumeRole(SessionProvider):
    """AssumeRole, signed by long-lived keys or by another session."""

    role_arn: str = ""
    role_session_name: str = ""
    external_id: str = ""
    session_tags: tuple[tuple[str, str], ...] = ()
    transitive_tags: tuple[str, ...] = ()
    source_identity: str = ""

    operation = "AssumeRole"

    def params(self, now: datetime.datetime) -> dict[str, object]:
        optional: dict[str, object] = {
            "ExternalId": self.external_id,
            "Tags": [{"Key": key, "Value": value} for key, value in self.session_tags],
            "TransitiveTagKeys": list(self.transitive_tags),
            "SourceIdentity": self.source_identity,
        }
        return {
            "RoleArn": self.role_arn,
            "RoleSessionName": self.role_session_name or str(int(now.timestamp() * 1_000_000_000)),
            **{name: value for name, value in optional.items() if value},
        }

    def made_from(self, tools: Tools, *, durations: bool = True) -> tuple[str, ...]:
        return (
            *super().made_from(tools, durations=durations),
            self.role_arn,
            self.role_session_name,
            self.external_id,
            *(text for pair in self.session_tags for text in pair),
            "|",
            *self.transitive_tags,
            "|",
            self.source_identity,
        )

    def link(self) -> str:
        return "role"


def asks_for_code(provider: Provider) -> bool:
    """Return True if a chain proves an MFA device anywhere."""
    while isinstance(provider, SessionProvider):
        if provider.mfa:
            return True
        provider = provider.source
    return False


# ======================================================================
# Chain
# ======================================================================
# Which providers, in what order. Pure: opens no door, so that every decision is tested by comparing
# values.


class Plan(Value):
    """What would be done for a profile, and what the user should know about it."""

    provider: Provider
    notes: tuple[str, ...] = ()


class SessionChoice(Value):
    """That GetSessionToken is called, for which profile's settings, and with whose MFA device."""

    holder: ProfileConfig
    serial: str
    duration: Duration
    own: bool = False  # aws-vault would not make it, so it must not be filed as one of aws-vault's
    chained: bool = False  # the chained duration counts, also for the profile asked for


def plan_chain(
    target: ProfileConfig,
    stored: Iterable[str],
    *,
    no_session: bool = False,
    always_session: bool = False,
) -> Plan:
    """Decide how a profile's credentials are made, as aws-vault's fork does but for what AWS always
    refuses.

    ``stored`` are the names with long-lived keys. With ``always_session`` a session of the keys
    comes first, from which a server renews for hours. UsageError for what can't work, before
    anybody is asked.
    """
    chain = find_keys(target, frozenset(stored))
    if always_session:
        choice: SessionChoice | None = choose_server_session(chain)
    else:
        choice = move_mfa_to_keys(chain, choose_session(chain, no_session), no_session)
    provider: Provider = StoredKeys(chain[-1].name)
    notes: list[str] = []
    for profile in reversed(chain):
        if choice and choice.holder is profile:
            provider = _session_token(provider, choice, chain)
        if profile.role_arn:
            provider = _assume_role(provider, profile, choice, chain, notes)
    return Plan(provider, tuple(notes))


def find_keys(target: ProfileConfig, stored: frozenset[str]) -> list[ProfileConfig]:
    """Return the profiles from the one asked for to the one whose keys are stored. AwsVaultError if
    there is none."""
    chain = [target]
    while chain[-1].name not in stored:
        last = chain[-1]
        if last.source is not None:
            chain.append(last.source)
        elif last.other_source:
            names = {"source": printable(last.name), "target": printable(target.name)}
            raise ConfigError(
                f"profile {names['source']!r} gets its credentials by {last.other_source}, "
                "which awsvault does not use",
                OTHER_SOURCES[last.other_source].format(**names),
            )
        else:
            via = f" (source of {printable(target.name)!r})" if last is not target else ""
            raise AwsVaultError(
                f"no credentials are stored for profile {printable(last.name)!r}{via}",
                f"awsvault add {printable(last.name)}",
            )
    return chain


def choose_session(chain: Sequence[ProfileConfig], no_session: bool) -> SessionChoice | None:
    """Decide whether a session of the keys comes first, and whose: the lowest profile that may have
    one."""
    for index in range(len(chain) - 1, -1, -1):
        profile, user = chain[index], chain[index - 1] if index else None
        primes = not profile.role_arn or (user is not None and bool(user.role_arn))
        if primes and not _keeps_full_duration(chain[: index + 1]) and not no_session:
            if user is None:
                return SessionChoice(profile, profile.mfa_serial, profile.session_duration)
            if profile.mfa_serial and profile.mfa_serial == user.mfa_serial:
                return SessionChoice(profile, profile.mfa_serial, profile.chained_session_duration)
        if profile.role_arn:
            return None
    return None


def choose_server_session(chain: Sequence[ProfileConfig]) -> SessionChoice:
    """Decide on the keys' own session that every server starts from: it proves the one device that
    the chain asks for."""
    keys = chain[-1]
    roles = [profile for profile in reversed(chain) if profile.role_arn]
    asking = [profile for profile in roles or [keys] if profile.mfa_serial]
    for other in asking[1:]:
        if other.mfa_serial != asking[0].mfa_serial:
            raise _two_devices(asking[0], other)
    serial = asking[0].mfa_serial if asking else ""
    return SessionChoice(
        keys, serial, keys.chained_session_duration, own=serial != keys.mfa_serial, chained=True
    )


def plan_key_session(chain: Sequence[ProfileConfig]) -> SessionToken | None:
    """Return the session of the keys, the last of a chain, that proves the first MFA device which
    the chain asks for; None if it asks for none: IAM takes no session without one."""
    keys = chain[-1]
    serial = next((one.mfa_serial for one in reversed(chain) if one.mfa_serial), "")
    if not serial:
        return None
    own = serial != keys.mfa_serial
    choice = SessionChoice(keys, serial, keys.session_duration, own=own)
    return _session_token(StoredKeys(keys.name), choice, (keys,) if not own else chain)


def _two_devices(first: ProfileConfig, second: ProfileConfig) -> ConfigError:
    return ConfigError(
        f"profiles {printable(first.name)!r} and {printable(second.name)!r} need two MFA devices "
        "in one chain, which AWS does not allow",
        "give both the same mfa_serial",
    )


def _keeps_full_duration(chain: Sequence[ProfileConfig]) -> bool:
    # A single role of over an hour must be assumed from the keys themselves: AWS caps a chained one
    # at an hour.
    roles = [profile for profile in chain if profile.role_arn]
    return len(roles) == 1 and roles[0].role_duration.length > MAX_CHAINED_ROLE


def move_mfa_to_keys(
    chain: Sequence[ProfileConfig], choice: SessionChoice | None, no_session: bool
) -> SessionChoice | None:
    """Move to the keys' own session the MFA that a later role asks for: AWS takes no code from a
    role's session."""
    roles = [profile for profile in reversed(chain) if profile.role_arn]
    proved = choice.serial if choice else ""
    unproved = [profile for profile in roles[1:] if profile.mfa_serial not in ("", proved)]
    if not unproved:
        return choice
    needed = unproved[0]
    for other in [*([choice.holder] if choice and choice.serial else []), roles[0], *unproved]:
        if other.mfa_serial not in ("", needed.mfa_serial):
            raise _two_devices(other, needed)
    if no_session:
        raise UsageError(
            f"profile {printable(needed.name)!r} needs MFA after another role, which takes a "
            "session",
            "leave --no-session away",
        )
    keys = chain[-1]
    return SessionChoice(keys, needed.mfa_serial, keys.chained_session_duration, own=True)


def _mfa(serial: str, profile: ProfileConfig, chain: Sequence[ProfileConfig]) -> Mfa | None:
    """Return a device with the command of the profile that has both; the asking profile's own comes
    first.

    Else that of the nearest source that names no device of its own, as in aws-vault's fork.
    """
    if not serial:
        return None
    owners = [owner for owner in (profile, *chain) if owner.mfa_serial == serial]
    sources = [one for one in chain[chain.index(owners[-1]) :] if not one.mfa_serial]
    commands = (one.mfa_process for one in (*owners, *sources) if one.mfa_process)
    return Mfa(serial, next(commands, ""))


def _slot(
    kind: str,
    profile: ProfileConfig,
    serial: str,
    settings: Sequence[str],
    own: bool,
    of_server: bool = False,
) -> SessionSlot:
    """Name the place of a session: aws-vault's own where it would make the same one, else one it
    never serves."""
    variant = [
        text for name, value in profile.variant if name in settings for text in (name, value)
    ]
    variant += ["server"] if of_server else []
    if not (variant or own):
        return SessionSlot(SESSION_TYPES[kind], profile.name, serial)
    third = f"{serial}#{digest(*variant)[:16]}" if variant else serial
    return SessionSlot(f"awsvault.{SESSION_TYPES[kind]}", profile.name, third)


def _session_token(
    source: Provider, choice: SessionChoice, chain: Sequence[ProfileConfig]
) -> SessionToken:
    profile = choice.holder
    chained = choice.chained or profile is not chain[0]
    ttl = "chained_session_ttl" if chained else "session_ttl"
    return SessionToken(
        source=source,
        slot=_slot(
            "session", profile, choice.serial, ("mfa_serial", ttl, "endpoint_url"), choice.own
        ),
        endpoint=profile.endpoint,
        duration=_checked(choice.duration, MAX_SESSION, "a session"),
        explicit_duration=bool(choice.duration.origin),
        mfa=_mfa(choice.serial, profile, chain),
    )


ROLE_VARIANT_SETTINGS = tuple(name for name in VARIANT_SETTINGS if not name.endswith("session_ttl"))


def _assume_role(
    source: Provider,
    profile: ProfileConfig,
    choice: SessionChoice | None,
    chain: Sequence[ProfileConfig],
    notes: list[str],
) -> AssumeRole:
    duration = _checked(
        profile.role_duration, MAX_ROLE, "a role", capped=not isinstance(source, StoredKeys)
    )
    if duration < profile.role_duration.length:
        notes.append(
            f"role {printable(profile.name)!r} is assumed from a session, so AWS allows it one "
            "hour at most"
        )
    serial = "" if choice and profile.mfa_serial == choice.serial else profile.mfa_serial
    # aws-vault keeps no role session that was made without an MFA code. Only a server has a session
    # first without one, and its roles and those of `exec` shall not push each other out.
    own = not serial
    of_server = own and bool(choice and not choice.serial)
    return AssumeRole(
        source=source,
        slot=_slot("role", profile, serial, ROLE_VARIANT_SETTINGS, own, of_server),
        endpoint=profile.endpoint,
        duration=duration,
        explicit_duration=bool(profile.role_duration.origin),
        mfa=_mfa(serial, profile, chain),
        role_arn=profile.role_arn,
        role_session_name=profile.role_session_name,
        external_id=profile.external_id,
        session_tags=profile.session_tags,
        transitive_tags=profile.transitive_tags,
        source_identity=profile.source_identity,
    )


def _checked(
    duration: Duration, maximum: datetime.timedelta, what: str, *, capped: bool = False
) -> datetime.timedelta:
    """Refuse what AWS would refuse (UsageError); cut to an hour where AWS allows no more."""
    length = min(duration.length, MAX_CHAINED_ROLE) if capped else duration.length
    if length < MIN_SESSION or length > maximum:
        limit = (
            "at least 15 minutes"
            if length < MIN_SESSION
            else f"at most {maximum.total_seconds() / 3600:.0f} hours"
        )
        raise UsageError(
            f"{duration.origin}: {format_duration(duration.length)} is out of bounds: {what} "
            f"lasts {limit}"
        )
    return length


# ======================================================================
# Servers
# ======================================================================
# Credentials over HTTP, on http.server, for SDKs that ask again: the container endpoint and
# instance metadata, on one loopback port. The server is a process of its own that holds the current
# session and the one it renews from, and nothing of the vault. Only that process imports
# http.server, beside the command, which does not wait for it.

LOOPBACK = "127.0.0.1"
MAX_HEAD_BYTES = 16 * 1024
MAX_TARGET_BYTES = 4096
MAX_HEADERS = 64
MAX_CONNECTIONS = 128
MAX_ROLE_ARNS = 32
MAX_ROLE_RENEWALS = 4
SPARE_DESCRIPTORS = 16  # for what is no client's: listeners, pidfd, netlink, a renewal's pipes
HEAD_SECONDS = 5.0
IDLE_SECONDS = 120.0
DRAIN_SECONDS = 1.0
MAX_DRAIN_BYTES = 1024 * 1024
RENEWAL_SECONDS = 240.0  # a lock, a prompt and AWS
RENEW_SPACING = 60.0
FIRST_SPACING = 5.0  # between attempts while nothing was ever held: SDKs try for four seconds or so
MAX_METADATA_TOKEN_TTL = 21600
METADATA_ROLE = "local-credentials"  # aws-vault's name for it
LEAST_LEFT = 1.0
TOO_SHORT_FOR_SERVER = datetime.timedelta(hours=1)
REASONS = {
    200: b"OK", 400: b"Bad Request", 401: b"Unauthorized", 403: b"Forbidden", 404: b"Not Found",
    405: b"Method Not Allowed", 408: b"Request Timeout", 414: b"URI Too Long",
    417: b"Expectation Failed", 431: b"Request Header Fields Too Large",
    503: b"Service Unavailable",
}  # fmt: skip
JSON_TYPE, TEXT_TYPE = b"application/json", b"text/plain"


class ServerMode(Value):
    """What a server offers, and to whom."""

    container: bool = True
    metadata: bool = True
    lazy: bool = False
    imds_v1: bool = False
    imds_any_user: bool = False
    strict_peer: bool = False
    check_peer: bool = True
    link_local: bool = False
    process: bool = False


class ServedChain(Value):
    """A profile whose credentials are served: ``links`` are the roles from ``source`` to
    ``current``.

    ``life`` is for how long credentials are asked for, ``renewer`` the command line that renews,
    ``hint`` what the user can do when that needs the user.
    """

    profile: str
    life: datetime.timedelta
    current: Credentials | None
    source: Credentials | None
    links: tuple[AssumeRole, ...]
    renewer: tuple[str, ...]
    hint: str = ""


class ServerState(Value):
    """All that the server's process is given; ``role`` is the form of the roles of /role-arn/."""

    mode: ServerMode
    command: ProcessIdentity
    region: str
    token: Secret
    hosts: tuple[str, ...]
    chains: tuple[ServedChain, ...]
    role: AssumeRole
    folder: str = ""


class RenewTask(Value):
    """What the process that renews is to do: assume ``links`` from ``source`` or, without one, open
    the vault; ``quiet``: without asking for a code."""

    quiet: bool
    source: Credentials | None = None
    links: tuple[AssumeRole, ...] = ()
    held_until: datetime.datetime | None = None


class Failure(Value):
    """Why there are no new credentials. ``never``: asking again is of no use; ``restart``: not even
    later."""

    message: str
    never: bool = False
    needs_user: bool = False
    restart: bool = False
    expired: bool = False
    asked: bool = False


class Renewed(Value):
    """What the process that renews answers: credentials, and the session that they were made from
    if that is new too, or why there are none."""

    current: Credentials | None = None
    source: Credentials | None = None
    failure: Failure | None = None


def split_chain(provider: Provider) -> tuple[SessionToken | None, list[AssumeRole]]:
    """Return the session that a server renews from, and the roles from there to what is served."""
    roles: list[AssumeRole] = []
    while isinstance(provider, AssumeRole):
        roles.insert(0, provider)
        provider = provider.source
    return (provider, roles) if isinstance(provider, SessionToken) else (None, roles)


def unfiled(role: AssumeRole) -> AssumeRole:
    """Return a role as it goes to another process: it can be requested there, and is not cached."""
    return role.replace(source=Provider(), slot=SessionSlot("", ""))


def container_document(credentials: Credentials, _now: datetime.datetime) -> bytes:
    """Write what the container endpoint answers (AWS SDKs and Tools Reference Guide, "Container
    credential provider").

    All four members that SDKs insist on are there; botocore takes no answer without a Token or an
    Expiration.
    """
    return _document(credentials)


def metadata_document(credentials: Credentials, now: datetime.datetime) -> bytes:
    """Write what instance metadata answers (EC2 User Guide, "Retrieve security credentials from
    instance metadata")."""
    described = {"Code": "Success", "LastUpdated": format_time(now), "Type": "AWS-HMAC"}
    return _document(credentials, **described)


def _document(credentials: Credentials, **described: str) -> bytes:
    token, expiration = credentials.session_token, credentials.expiration
    members = {
        **described,
        "AccessKeyId": credentials.access_key_id,
        "SecretAccessKey": credentials.secret_access_key.reveal(),
        "Token": token.reveal() if token else "",
        "Expiration": format_time(expiration) if expiration else "",
        **({"AccountId": credentials.account_id} if credentials.account_id else {}),
    }
    return (go_json(members) + "\n").encode("utf-8", "surrogateescape")


def process_document(credentials: Credentials, _now: datetime.datetime | None = None) -> bytes:
    """Write what credential_process promises (AWS SDKs and Tools Reference Guide, "Process
    credential provider")."""
    document: dict[str, object] = {
        "Version": 1,
        "AccessKeyId": credentials.access_key_id,
        "SecretAccessKey": credentials.secret_access_key.reveal(),
    }
    if credentials.session_token:
        document["SessionToken"] = credentials.session_token.reveal()
    if credentials.expiration:
        document["Expiration"] = format_time(credentials.expiration)
    if credentials.account_id:
        document["AccountId"] = credentials.account_id
    return (go_json(document) + "\n").encode("utf-8", "surrogateescape")


class AnswerKind(Value):
    """How clients of one kind are answered: the document, how many seconds credentials must have
    left while better ones can be had, and how long a request may wait for those."""

    write: Callable[[Credentials, datetime.datetime], bytes]
    least: float
    wait: float


# botocore waits for 2 s.
CONTAINER = AnswerKind(container_document, LEAST_LEFT, 1.5)
# botocore and the JavaScript SDK wait for 1 s, once. botocore stretches what it gets with less than
# ten minutes left, and then signs with dead credentials.
METADATA = AnswerKind(metadata_document, 600.0, 0.8)
# SDK for Go gives a credential_process a minute.
PROCESS = AnswerKind(process_document, LEAST_LEFT, 55.0)
ANSWER_KINDS = (CONTAINER, METADATA, PROCESS)


# -- HTTP ----------------------------------------------------------------


class Refusal(Exception):
    """An answer that refuses: HTTP status and a word why. ``final`` ones end the connection."""

    def __init__(self, status: int, why: str, *, final: bool = False, headers: bytes = b"") -> None:
        super().__init__(why)
        self.status = status
        self.why = why
        self.final = final
        self.headers = headers


class Request:
    """A request's head: method, target, and the headers by their names in lower case."""

    __slots__ = ("headers", "keep", "method", "path")

    def __init__(self, method: bytes, target: bytes, minor: bytes, headers: dict[bytes, bytes]):
        self.method = method
        self.path = target.partition(b"?")[0]
        self.headers = headers
        wish = headers.get(b"connection", b"").lower()
        self.keep = b"close" not in wish and (minor == b"1" or b"keep-alive" in wish)


_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
HEAD = rb"(%b) (/[!-~]*) HTTP/1\.([01])\r\n((?:%b:[^\x00-\x08\x0a-\x1f\x7f]*\r\n)*)\r\n" % (
    _TOKEN,
    _TOKEN,
)


def parse_head(head: bytes) -> Request:
    """Read a whole head; Refusal for all that is not one request without a body, or that two HTTP
    implementations might read in two ways."""
    match = re.fullmatch(HEAD, head)
    if match is None:
        raise Refusal(400, "malformed request", final=True)
    method, target, minor, fields = match.groups()
    if len(target) > MAX_TARGET_BYTES:
        raise Refusal(414, "the path is too long", final=True)
    lines = fields.split(b"\r\n")[:-1]
    if len(lines) > MAX_HEADERS:
        raise Refusal(431, "too many headers", final=True)
    headers = {}
    for line in lines:
        name, _, value = line.partition(b":")
        headers[name.lower()] = value.strip(b" \t")
    if len(headers) != len(lines):
        raise Refusal(400, "a header is repeated", final=True)
    if b"transfer-encoding" in headers or headers.get(b"content-length", b"0") != b"0":
        raise Refusal(400, "no request here has a body", final=True)
    if b"expect" in headers:
        raise Refusal(417, "nothing can be expected", final=True)
    return Request(method, target, minor, headers)


def check_beginning(data: bytes) -> None:
    """Refuse what can't become a request any more, before more of it comes."""
    if b"\n" not in data and len(data) > MAX_TARGET_BYTES + 64:
        raise Refusal(414, "the path is too long", final=True)
    if len(data) > MAX_HEAD_BYTES:
        raise Refusal(431, "the headers are too long", final=True)
    if data.count(b"\n") != data.count(b"\r\n"):
        raise Refusal(400, "malformed request", final=True)


# What browsers and proxies add, and no SDK does.
FOREIGN_HEADERS = frozenset((b"origin", b"referer", b"x-forwarded-for", b"forwarded", b"via"))


def check_origin(request: Request, hosts: frozenset[bytes]) -> None:
    """Refuse what a web page, a proxy, or a name that was bound to this address sent."""
    if request.headers.get(b"host") not in hosts:
        raise Refusal(403, "access denied for this host", final=True)
    for name in request.headers:
        if name in FOREIGN_HEADERS or name.startswith(b"sec-fetch-"):
            raise Refusal(403, f"access denied with {name.decode()}", final=True)


def check_method(request: Request, allowed: bytes) -> None:
    """Refuse any method but one."""
    if request.method != allowed:
        raise Refusal(405, "method not allowed", final=True, headers=b"Allow: %b\r\n" % allowed)


def format_answer(
    status: int, body: bytes, kind: bytes, date: bytes, *, keep: bool, headers: bytes = b""
) -> bytes:
    """Write a whole answer: head and body leave in one piece, because Go repeats a request whose
    answer comes in two."""
    return b"HTTP/1.1 %d %b\r\nDate: %b\r\n%b%bContent-Length: %d\r\nConnection: %b\r\n\r\n%b" % (
        status,
        REASONS[status],
        date,
        b"Content-Type: %b\r\nCache-Control: no-store\r\n" % kind if body else b"",
        headers,
        len(body),
        b"keep-alive" if keep else b"close",
        body,
    )


class MetadataTokens:
    """IMDSv2's session tokens: each carries its own end, so that none has to be remembered."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.key = world.random(32)

    def make(self, seconds: int) -> bytes:
        """Return a token that is good for so many seconds."""
        end = b"%x" % (int(self.world.monotonic()) + seconds)
        return end + b"-" + self._seal(end)

    def good(self, token: bytes) -> bool:
        """Return True if a token is ours and has not ended."""
        end, _, seal = token.partition(b"-")
        if not hmac.compare_digest(self._seal(end), seal):
            return False
        return int(end, 16) >= self.world.monotonic()

    def _seal(self, end: bytes) -> bytes:
        return hmac.new(self.key, end, "sha256").hexdigest().encode()


# -- who asks ----------------------------------------------------------------

NETLINK_SOCK_DIAG = 4
SOCK_DIAG_BY_FAMILY = 20
NO_COOKIE = b"\xff" * 8


class PeerCheck:
    """Tells whose process is at the other end of a loopback connection, by Linux's sock_diag(7).

    /proc/net/tcp would not show an IPv4 connection of an IPv6 socket, and is slow with thousands of
    sockets.
    """

    def __init__(
        self, world: World, address: str, port: int, *, strict: ProcessIdentity | None = None
    ) -> None:
        self.world = world
        self.address = address
        self.port = port
        self.strict = strict
        self.sequence = 0
        self.asking = threading.Lock()
        self.netlink = socket.socket(
            socket.AF_NETLINK, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, NETLINK_SOCK_DIAG
        )
        self.netlink.settimeout(0.5)

    def allows(self, peer: tuple[str, int]) -> bool:
        """Return True if the peer's socket was made by this user and, if ``strict``, is held by the
        command's family only."""
        try:
            found = self.owner(peer)
        except OSError:
            return False
        if found is None or found[0] != self.world.uid():
            return False
        return self.strict is None or self._is_family(found[1], self.strict)

    def owner(self, peer: tuple[str, int]) -> tuple[int, int] | None:
        """Return the uid and the inode of a connected socket; None if it is closed or missing."""
        ends = struct.pack("!HH", peer[1], self.port) + b"".join(
            socket.inet_aton(address).ljust(16, b"\0") for address in (peer[0], self.address)
        )
        # struct inet_diag_req_v2 of linux/inet_diag.h: any state, one socket by its four numbers.
        body = struct.pack("=BBBxI", socket.AF_INET, socket.IPPROTO_TCP, 0, 0xFFFFFFFF) + ends
        body += struct.pack("=I", 0) + NO_COOKIE
        with self.asking:
            kind, answer = self._ask(body)
        if kind != SOCK_DIAG_BY_FAMILY:
            return None
        uid, inode = struct.unpack_from("=II", answer, 16 + 4 + 48 + 12)
        # A socket that was closed meanwhile has no inode, and says that it is root's.
        return (uid, inode) if inode else None

    def _ask(self, body: bytes) -> tuple[int, bytes]:
        self.sequence += 1
        head = struct.pack("=IHHII", 16 + len(body), SOCK_DIAG_BY_FAMILY, 1, self.sequence, 0)
        self.netlink.send(head + body)
        while True:
            answer = self.netlink.recv(4096)
            _, kind, _, sequence, _ = struct.unpack_from("=IHHII", answer)
            if sequence == self.sequence:
                return kind, answer

    def _is_family(self, inode: int, ancestor: ProcessIdentity) -> bool:
        holders = self.world.socket_holders(inode)
        return bool(holders) and all(descends(self.world, pid, ancestor) for pid in holders)


def descends(world: World, pid: int, ancestor: ProcessIdentity) -> bool:
    """Return True if a process is, or descends from, another."""
    seen = 0
    while pid > 0 and seen < 1000:
        parent, started = world.process_stat(pid)
        if pid == ancestor.pid:
            return bool(started) and started == ancestor.started
        pid, seen = parent, seen + 1
    return False


def can_see_peers(world: World) -> bool:
    """Return True if this machine says who is at the other end of a connection (AwsVaultError where
    no port is free)."""
    if not sys.platform.startswith("linux"):
        return False
    port = ServerPort()
    try:
        with socket.create_connection((LOOPBACK, port.number)) as theirs:
            check = PeerCheck(world, LOOPBACK, port.number)
            with check.netlink:
                return check.allows(theirs.getsockname())
    except OSError:
        return False
    finally:
        port.close()


# -- what is served -------------------------------------------------------------


class ServedCredentials:
    """One set of credentials that is served: what is held of it, and its renewal.

    A request is answered from what is held, so that it never waits for AWS. Only where that won't
    do does it wait on ``changed``, for as long as its SDK waits. A renewal is a blocking run of
    another process, in a thread of its own; never two at once, and none soon after another one.
    ``changed`` guards everything here, and is notified at the end of each renewal.
    """

    def __init__(self, world: World, life: datetime.timedelta) -> None:
        self.world = world
        self.life = life
        self.changed = threading.Condition()
        self.current: Credentials | None = None
        self.documents: dict[Callable[[Credentials, datetime.datetime], bytes], bytes] = {}
        self.tried: float | None = None  # when a renewal began, by World.monotonic()
        self.busy = False
        self.failure: Failure | None = None

    def fetch(self) -> Renewed:
        """Get new credentials from the process that renews, and wait for it."""
        raise NotImplementedError

    def advice(self, failure: Failure) -> str:  # noqa: ARG002
        """Return what the user can do where nothing else helps."""
        return ""

    def put(self, credentials: Credentials, *, fresh: bool) -> None:
        """Serve these from now on. ``fresh``: made just now, so that their life is known."""
        now = self.world.now()
        self.current = credentials
        self.documents = {one.write: one.write(credentials, now) for one in ANSWER_KINDS}
        if fresh and credentials.expiration:
            self.life = credentials.expiration - now

    def left(self) -> float:
        """Return for how many seconds what is held will be valid; 0 without any."""
        if self.current is None or self.current.expiration is None:
            return 0.0
        return (self.current.expiration - self.world.now()).total_seconds()

    def pause(self) -> float:
        """Return after how many seconds new ones are to be fetched."""
        ahead = min(RENEW_AHEAD, self.life / 3).total_seconds()
        due = self.left() - ahead
        if self.tried is not None:
            spacing = RENEW_SPACING if self.current else FIRST_SPACING
            due = max(due, self.tried + spacing - self.world.monotonic())
        return due

    def answer(self, kind: AnswerKind) -> bytes:
        """Return the document; Refusal if there are no valid credentials, nor soon will be."""
        with self.changed:
            if self.pause() <= 0 or self.left() < kind.least:
                self.renew()
            ends = self.world.monotonic() + kind.wait
            while self.busy and self.left() < kind.least:
                rest = ends - self.world.monotonic()
                if rest <= 0:
                    break
                self.world.wait(self.changed, rest)
            if self.left() >= LEAST_LEFT:
                return self.documents[kind.write]
            failure = self.failure
        if failure is None:
            raise Refusal(503, "no credentials yet, try again")
        # 5xx means "not now" to an SDK, 4xx "never".
        status = 403 if failure.never or failure.restart else 503
        raise Refusal(status, self.advice(failure) or failure.message)

    def renew(self) -> None:
        """Start a renewal, unless one is under way or was a moment ago."""
        with self.changed:
            clock = self.world.monotonic()
            spacing = RENEW_SPACING if self.current else FIRST_SPACING
            if self.busy or (self.tried is not None and clock < self.tried + spacing):
                return
            self.tried, self.busy = clock, True
            try:
                self.world.start_thread(self._renew)
            except OSError as error:
                self.busy = False
                self.failure = Failure(f"can't start a thread: {os_reason(error)}")

    def _renew(self) -> None:
        renewed = Renewed(failure=Failure("the renewal failed"))
        try:
            renewed = self.fetch()
        finally:
            with self.changed:
                self.busy, self.failure = False, renewed.failure
                if renewed.current:
                    self.put(renewed.current, fresh=True)
                self.changed.notify_all()


def run_renewer(world: World, renewer: Sequence[str], task: RenewTask) -> Renewed:
    """Run the process that renews to its end, and return what it answered."""
    stdin = Secret(go_json(task.members()))
    try:
        result = world.run(renewer, stdin=stdin, timeout=RENEWAL_SECONDS, environ=world.environ)
        renewed = Renewed.from_members(parse_json_object(result.output.reveal()))
    except ToolTimeout:
        return Renewed(failure=Failure("AWS did not answer in time"))
    except ToolError as error:
        return Renewed(failure=Failure(error.message))
    except ValueError:
        return Renewed(failure=Failure("the process that renews died"))
    if renewed.failure:
        return Renewed(failure=renewed.failure)
    if not renewed.current or not renewed.current.expiration:
        return Renewed(failure=Failure("credentials without an end can't be served"))
    if renewed.current.expiration <= world.now():
        return Renewed(failure=Failure("the new credentials have ended already"))
    return renewed


class ServedProfile(ServedCredentials):
    """The credentials of a chain. They are renewed before they end, whether a client asks or not,
    and the user is told on the terminal what only he can do."""

    def __init__(self, world: World, chain: ServedChain, terminal: int) -> None:
        super().__init__(world, chain.life)
        self.chain = chain
        self.terminal = terminal
        self.source = chain.source
        self.quiet = False
        self.hopeless = False
        self.told = ""
        if chain.current:
            self.put(chain.current, fresh=False)

    def fetch(self) -> Renewed:
        source, held = self.source, self.current
        task = RenewTask(self.quiet, held_until=held.expiration if held else None)
        ends = source.expiration if source else None
        if self.chain.links and ends and (ends - self.world.now()).total_seconds() > 60:
            task = RenewTask(self.quiet, source, self.chain.links)
        renewed = run_renewer(self.world, self.chain.renewer, task)
        failure = renewed.failure
        if failure:
            # What the user cancelled is not put before him again; a session that he makes elsewhere
            # is adopted.
            self.quiet = self.quiet or failure.asked or failure.needs_user
            self.hopeless = failure.restart
            if failure.expired:
                self.source = None
        elif task.source is None:
            self.source, self.quiet = renewed.source, False
        return renewed

    def renew(self) -> None:
        if not self.hopeless:
            super().renew()

    def keep_renewed(self) -> NoReturn:
        """Renew when it is time to, and tell the user when that fails; for a thread of its own."""
        while True:
            with self.changed:
                if self.current and self.pause() <= 0:
                    self.renew()
                self._tell()
                waits = self.current is None or self.busy or self.hopeless
                pause = LOOK_SECONDS if waits else min(max(self.pause(), 0.0), LOOK_SECONDS)
                self.world.wait(self.changed, pause)

    def _tell(self) -> None:
        """Tell the user once what only he can do, or that credentials are about to end and no new
        ones come."""
        failure = self.failure
        if failure is None:
            self.told = ""
            return
        text = self.advice(failure)
        if not text and self.left() < 300 and self.current:
            what = f"the session of {printable(self.chain.profile)!r} can't be renewed for now"
            text = f"{what}: {printable(failure.message)}"
        if text and text != self.told:
            self.told = text
            self.world.post_notice(self.terminal, text)

    def advice(self, failure: Failure) -> str:
        what = f"the session of {printable(self.chain.profile)!r} can't be renewed"
        if failure.restart:
            return f"{what}: restart the command to renew"
        if failure.needs_user:
            return f"{what} without you: {self.chain.hint}"
        return ""


class ServedRole(ServedCredentials):
    """The credentials of a role that a client has named. They are fetched when a client asks, and
    from those that are served then."""

    def __init__(self, main: ServedProfile, role: AssumeRole, slots: threading.Semaphore) -> None:
        super().__init__(main.world, role.duration)
        self.main = main
        self.role = role
        self.slots = slots

    def fetch(self) -> Renewed:
        task = RenewTask(True, self.main.current, (self.role,))
        with self.slots:
            return run_renewer(self.world, self.main.chain.renewer, task)

    def renew(self) -> None:
        if self.main.left() >= LEAST_LEFT:
            super().renew()
        elif self.left() < LEAST_LEFT:
            self.main.renew()
            raise Refusal(503, "no credentials yet, try again")


class CredentialService:
    """Answers requests, however they have come: what there is at which path, and for whom."""

    def __init__(self, world: World, state: ServerState, terminal: int) -> None:
        self.world = world
        self.mode = state.mode
        self.region = state.region
        self.role = state.role
        self.token = state.token.reveal_bytes()
        self.tokens = MetadataTokens(world)
        self.profiles = {one.profile: ServedProfile(world, one, terminal) for one in state.chains}
        self.main = self.profiles[state.chains[0].profile]
        self.roles: dict[str, ServedRole] = {}
        self.choosing = threading.Lock()
        self.slots = threading.Semaphore(MAX_ROLE_RENEWALS)

    def answer(self, request: Request) -> tuple[bytes, bytes, bytes]:
        """Return a body, its type, and headers (Refusal)."""
        if self.mode.process:
            return self._answer_process(request), JSON_TYPE, b""
        if request.path.startswith(b"/latest/"):
            return self._answer_metadata(request)
        return self._answer_container(request), JSON_TYPE, b""

    def _answer_process(self, request: Request) -> bytes:
        check_method(request, b"GET")
        profile = self.profiles.get(request.path[1:].decode())
        if profile is None:
            raise Refusal(404, "the command was started without --process for this profile")
        return profile.answer(PROCESS)

    def is_for_any_user(self, request: Request) -> bool:
        """Return True if it does not matter who asks."""
        return self.mode.imds_any_user and request.path.startswith(b"/latest/")

    # -- the container endpoint ---------------------------------------------------

    def _answer_container(self, request: Request) -> bytes:
        if not self.mode.container:
            raise Refusal(404, "no such path")
        check_method(request, b"GET")
        if not hmac.compare_digest(request.headers.get(b"authorization", b""), self.token):
            raise Refusal(403, "invalid Authorization token")
        if request.path == b"/":
            return self.main.answer(CONTAINER)
        if request.path.startswith(b"/role-arn/"):
            return self._role(request.path).answer(CONTAINER)
        raise Refusal(404, "no such path")

    def _role(self, path: bytes) -> ServedRole:
        from urllib.parse import unquote_to_bytes

        arn = unquote_to_bytes(path[len(b"/role-arn/") :]).decode("ascii", "replace")
        if not re.fullmatch(r"arn:aws[a-z-]*:iam::\d{12}:role/[\w+=,.@/-]{1,576}", arn, re.ASCII):
            raise Refusal(400, "no ARN of a role")
        with self.choosing:
            if arn not in self.roles:
                self._forget_roles()
                role = self.role.replace(role_arn=arn)
                self.roles[arn] = ServedRole(self.main, role, self.slots)
            return self.roles[arn]

    def _forget_roles(self) -> None:
        # The oldest go first; for one that is being fetched a client waits.
        for arn in [arn for arn, role in self.roles.items() if not role.busy]:
            if len(self.roles) < MAX_ROLE_ARNS:
                return
            del self.roles[arn]
        if len(self.roles) >= MAX_ROLE_ARNS:
            raise Refusal(503, "too many roles at once")

    # -- instance metadata ----------------------------------------------------------

    def _answer_metadata(self, request: Request) -> tuple[bytes, bytes, bytes]:
        if not self.mode.metadata:
            raise Refusal(404, "no such path")
        if request.path == b"/latest/api/token":
            return self._metadata_token(request)
        check_method(request, b"GET")
        self._check_metadata_token(request)
        path = request.path[len(b"/latest/") :].rstrip(b"/").decode()
        if path == f"meta-data/iam/security-credentials/{METADATA_ROLE}":
            return self.main.answer(METADATA), JSON_TYPE, b""
        body = self._metadata(path)
        if not body:
            raise Refusal(404, "no such path")
        return body.encode(), JSON_TYPE if body[0] == "{" else TEXT_TYPE, b""

    def _metadata_token(self, request: Request) -> tuple[bytes, bytes, bytes]:
        check_method(request, b"PUT")
        text = request.headers.get(b"x-aws-ec2-metadata-token-ttl-seconds", b"")
        if not (text.isdigit() and len(text) < 6 and 1 <= int(text) <= MAX_METADATA_TOKEN_TTL):
            raise Refusal(400, "the token's life is missing or wrong")
        headers = b"X-Aws-Ec2-Metadata-Token-Ttl-Seconds: %b\r\n" % text
        return self.tokens.make(int(text)), TEXT_TYPE, headers

    def _check_metadata_token(self, request: Request) -> None:
        token = request.headers.get(b"x-aws-ec2-metadata-token")
        if token is None and self.mode.imds_v1:
            return
        if token is None or not self.tokens.good(token):
            raise Refusal(401, "a token is needed")

    def _metadata(self, path: str) -> str:
        """Return what stands at a path below /latest/ that SDKs read; nothing at any other."""
        current = self.main.current
        account = current.account_id if current else ""
        identity = {"region": self.region, **({"accountId": account} if account else {})}
        info = {"Code": "Success", "LastUpdated": format_time(self.world.now())}
        known = {
            "meta-data/iam/security-credentials": METADATA_ROLE,
            "meta-data/iam/info": go_json(info),
            "meta-data/instance-id": "aws-vault",
            "meta-data/placement/region": self.region,
            "meta-data/placement/availability-zone": f"{self.region}a" if self.region else "",
            "dynamic/instance-identity/document": go_json(identity),
        }
        return known.get(path, "")


# -- on http.server ---------------------------------------------------------------


class Client:
    """A client's connection, in the form that http.server reads and writes: a line is a whole head.

    When there are too many, the one to give up is the least by ``worth``: one that is kept for
    nothing, then one that has not said enough yet, last one that waits for us; of these the one
    that has said the least for the longest time.
    """

    __slots__ = ("checked", "data", "peer", "served", "sock", "world", "worth")
    closed = False  # for http.server

    def __init__(self, world: World, sock: socket.socket, peer: tuple[str, int]) -> None:
        self.world = world
        self.sock = sock
        self.peer = peer
        self.data = b""
        self.checked = False
        self.served = False
        self.worth = (1, world.monotonic())

    def readline(self, _limit: int = 0) -> bytes:
        """Return the next request's head, nothing if none comes; Refusal where it takes too long,
        or can't become one."""
        self.data = b""
        ends = self.world.monotonic() + (IDLE_SECONDS if self.served else HEAD_SECONDS)
        while True:
            try:
                self.sock.settimeout(max(ends - self.world.monotonic(), 0.001))
                more = self.sock.recv(MAX_HEAD_BYTES + 1)
            except socket.timeout:
                if self.data:
                    raise Refusal(408, "the request took too long", final=True) from None
                return b""
            if not more:
                return b""
            if not self.data:
                now = self.world.monotonic()
                ends, self.worth = now + HEAD_SECONDS, (1, now)
            self.data += more
            end = self.data.find(b"\r\n\r\n")
            if end >= 0:
                return self._whole(end + 4)
            check_beginning(self.data)

    def _whole(self, end: int) -> bytes:
        if end != len(self.data):
            raise Refusal(400, "more than one request, or a body", final=True)
        if end > MAX_HEAD_BYTES:
            raise Refusal(431, "the headers are too long", final=True)
        self.worth = (2, self.worth[1])
        return self.data

    def write(self, answer: bytes) -> None:
        """Send an answer in one piece; OSError for a client that asks, and takes nothing."""
        self.served, self.worth = True, (0, self.world.monotonic())
        self.sock.settimeout(0)
        if self.sock.send(answer) != len(answer):
            raise BrokenPipeError

    def flush(self) -> None:
        """Do nothing: what was written has been sent."""

    def drain(self) -> None:
        """Say that nothing more comes, and throw away what still arrives: a close at once would
        destroy the answer."""
        self.shutdown(1)  # SHUT_WR
        ends, rest = self.world.monotonic() + DRAIN_SECONDS, MAX_DRAIN_BYTES
        while rest > 0:
            self.sock.settimeout(max(ends - self.world.monotonic(), 0.001))
            data = self.sock.recv(65536)
            if not data:
                return
            rest -= len(data)

    def shutdown(self, how: int) -> None:
        """End one direction, or both (OSError if the client has gone)."""
        self.sock.shutdown(how)

    def close(self) -> None:
        """Close the connection."""
        self.sock.close()


if TYPE_CHECKING:
    from http.server import BaseHTTPRequestHandler as _Handler
    from http.server import ThreadingHTTPServer as _Server
else:
    _Handler = _Server = object  # make_http_server() puts the real ones below


class ClientHandler(_Handler):
    """http.server's handler for one client, with a strict parser and one write for each answer."""

    server: CredentialServer
    request: Client
    raw_requestline: bytes

    def setup(self) -> None:
        """Read from and write to the client itself."""
        self.rfile = self.wfile = self.request  # type: ignore[assignment]

    def handle_one_request(self) -> None:
        """Answer one request, or refuse it."""
        try:
            super().handle_one_request()
        except Refusal as refusal:
            self.close_connection = self.close_connection or refusal.final
            metadata = b" /latest/" in self.request.data[:64]
            text = "" if metadata else go_json({"Message": refusal.why})
            body = text.encode("utf-8", "surrogateescape")
            self._send(refusal.status, body, JSON_TYPE, refusal.headers)

    def parse_request(self) -> bool:
        """Read the head, and refuse what this user's own SDKs would not send (Refusal)."""
        self.head = parse_head(self.raw_requestline)
        self.close_connection = not self.head.keep
        self.command = "GET"  # the service refuses the other methods
        check_origin(self.head, self.server.hosts)
        if not self.server.service.is_for_any_user(self.head):
            self.server.check_peer(self.request)
        return True

    def do_GET(self) -> None:
        """Answer what was parsed."""
        self._send(200, *self.server.service.answer(self.head))

    def _send(self, status: int, body: bytes, kind: bytes, headers: bytes) -> None:
        second = int(self.request.world.monotonic())
        if self.server.date[0] != second:
            self.server.date = (second, self.date_time_string().encode())
        keep, date = not self.close_connection, self.server.date[1]
        answer = format_answer(status, body, kind, date, keep=keep, headers=headers)
        self.request.write(answer)

    def finish(self) -> None:
        """End the conversation in a way that leaves the client its answer."""
        if self.request.data:  # else it has ended it
            self.request.drain()


class ClientPool:
    """The clients of all listeners, and a pool of threads that grows with their number.

    Each client has a thread for as long as it is connected, so none waits for another one. Their
    number is bounded, and a new one takes the place of the one that is worth the least: idle kept
    connections shut nobody out.
    """

    def __init__(self, world: World, most: int) -> None:
        import queue

        self.world = world
        self.most = most
        self.changed = threading.Condition(threading.Lock())
        self.clients: set[Client] = set()
        self.free = 0
        self.work: queue.SimpleQueue[tuple[Client, Callable[[], None]]] = queue.SimpleQueue()

    def make_room(self, most: int) -> None:
        """Give up clients until there are fewer than ``most``."""
        with self.changed:
            while len(self.clients) >= max(most, 1):
                client = min(self.clients, key=lambda one: one.worth)
                self.clients.discard(client)
                try:
                    client.shutdown(2)  # SHUT_RDWR: its thread ends what it does
                except OSError:
                    continue

    def wait_for_room(self) -> None:
        """Where descriptors have run out: give up a client, and wait for its descriptor a bit."""
        self.make_room(len(self.clients))
        with self.changed:
            self.changed.wait(0.1)

    def serve(self, client: Client, work: Callable[[], None]) -> None:
        """Have a thread do the work for a client."""
        self.make_room(self.most)
        with self.changed:
            self.clients.add(client)
            grows = self.free == 0
            self.free -= 0 if grows else 1
        try:
            if grows:
                self.world.start_thread(lambda: self._serve_all(client, work))
                return
        except OSError:
            with self.changed:
                self.free -= 1  # the next thread that is free has this to do
        self.work.put((client, work))

    def _serve_all(self, client: Client, work: Callable[[], None]) -> None:
        while True:
            try:
                work()
            finally:
                with self.changed:
                    self.clients.discard(client)
                    client.close()
                    self.free += 1
                    self.changed.notify_all()
            client, work = self.work.get()


class CredentialServer(_Server):
    """http.server's server for one listening socket, with a bounded pool of threads."""

    def __init__(
        self,
        handler: type[ClientHandler],
        service: CredentialService,
        pool: ClientPool,
        listener: socket.socket,
        hosts: Iterable[str],
        peers: PeerCheck | None,
        address: str = "",
    ) -> None:
        super().__init__(("", 0), handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener
        self.service = service
        self.pool = pool
        self.hosts = frozenset(host.encode() for host in hosts)
        self.peers = peers
        self.address = address  # the only one that clients come from
        self.date = (0, b"")  # a second, and its name

    def accept_clients(self) -> None:
        """Serve until the listening socket is closed; for a thread of its own."""
        listening = True
        while listening:
            try:
                client, peer = self.get_request()
                if self.verify_request(client, peer):
                    self.process_request(client, peer)
                else:
                    client.close()
            except OSError as error:
                listening = error.errno not in (errno.EBADF, errno.EINVAL)
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    self.pool.wait_for_room()

    def get_request(self) -> tuple[Any, Any]:
        """Accept a client."""
        sock, peer = self.socket.accept()
        return Client(self.pool.world, sock, peer), peer

    def verify_request(self, client: Any, _peer: Any) -> bool:
        """Keep half of the room for this user, so that nobody else's flood cuts what is his."""
        crowded = len(self.pool.clients) >= self.pool.most // 2
        return not crowded or self.service.mode.imds_any_user or self._allows(client)

    def process_request(self, client: Any, peer: Any) -> None:
        """Hand a client to the pool."""
        self.pool.serve(client, lambda: self.process_request_thread(client, peer))

    def handle_error(self, _client: Any, _peer: Any) -> None:
        """Say nothing: a client has gone."""

    def check_peer(self, client: Client) -> None:
        """Refuse another user's process. Who made a socket can't change; who holds it can."""
        if client.checked and not self.service.mode.strict_peer:
            return
        if not self._allows(client):
            raise Refusal(403, "access denied for this user or process", final=True)
        client.checked = True

    def _allows(self, client: Client) -> bool:
        if self.service.mode.process:
            return self.pool.world.peer_is_ours(client.sock)
        if self.address and client.peer[0] != self.address:
            return False  # of another host: this address is of the loopback device
        return self.peers is None or self.peers.allows(client.peer)


def make_http_server(
    service: CredentialService,
    pool: ClientPool,
    listener: socket.socket,
    hosts: Iterable[str],
    peers: PeerCheck | None,
    address: str = "",
) -> CredentialServer:
    """Put a server together with http.server's classes, which take 20 ms to import."""
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    handler = type("Handler", (ClientHandler, BaseHTTPRequestHandler), {})
    server = type("Server", (CredentialServer, ThreadingHTTPServer), {})
    return server(handler, service, pool, listener, hosts, peers, address)  # type: ignore[no-any-return]


# -- starting one ----------------------------------------------------------------------


class ServerPort:
    """A loopback port that stays ours: one socket listens, for the server; the other only holds the
    port's number.

    The command's process keeps the second one, so that nobody can take the port when the server has
    died, and clients are refused at once instead of waiting for a process that never accepts.
    Only Linux lets two sockets share a port in this way; elsewhere there is no second one.
    """

    def __init__(self) -> None:
        self.sockets: list[socket.socket] = []
        try:
            first = self._bound(0)
            if sys.platform == "linux":
                self._bound(first.getsockname()[1])
            self._listen()
        except OSError as error:
            self.close()
            raise AwsVaultError(
                f"no local port for the server: {os_reason(error)}", "try again"
            ) from None
        self.number: int = first.getsockname()[1]

    @property
    def listener(self) -> socket.socket:
        """The socket that clients connect to."""
        return self.sockets[-1]

    def _bound(self, number: int) -> socket.socket:
        self.sockets.append(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
        if sys.platform == "linux":
            self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind((LOOPBACK, number))
        return self.listener

    def _listen(self) -> None:
        self.listener.listen(MAX_CONNECTIONS)
        self.listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # From here on nobody shares it, whatever option he sets.
        for sock in self.sockets:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)

    def close(self) -> None:
        """Give the port back."""
        for sock in self.sockets:
            sock.close()

    def keep_for_command(self) -> None:
        """Leave the number reserved by the process that becomes the command; the listening socket
        is the server's alone."""
        for holder in self.sockets[:-1]:
            holder.set_inheritable(True)
            holder.detach()


def server_variables(mode: ServerMode, port: int, token: Secret) -> dict[str, str]:
    """Return the variables that lead SDKs to a server. The token by its variable only: older SDKs
    know no file."""
    served = {}
    if mode.container:
        served["AWS_CONTAINER_CREDENTIALS_FULL_URI"] = f"http://{LOOPBACK}:{port}"
        served["AWS_CONTAINER_AUTHORIZATION_TOKEN"] = token.reveal()
    if mode.metadata:
        # botocore before 1.21 glues the path on without a slash.
        served["AWS_EC2_METADATA_SERVICE_ENDPOINT"] = f"http://{LOOPBACK}:{port}/"
    return served


def start_server(
    world: World,
    state: ServerState,
    listener: socket.socket,
    borrowed: Sequence[socket.socket] = (),
) -> None:
    """Start the server for this process, which becomes the command; AwsVaultError if it can't be
    started. It gets what was ``borrowed`` from root, and so ends the loan when it ends."""
    board = world.open_terminal_for_notices()
    try:
        # To wait would cost as much as our own start; if it dies early, clients are refused.
        world.spawn_detached(
            "the server",
            [*world.self_command(bare=True), SERVE_COMMAND, str(state.command.pid)],
            Secret(go_json(state.members())),
            server_environ(world),
            [listener.fileno(), board, *(sock.fileno() for sock in borrowed)],
        )
    finally:
        os.close(board)
        for sock in (listener, *borrowed):
            sock.close()


SERVE_COMMAND, RENEW_COMMAND, PROCESS_COMMAND = "_serve", "_renew", "_process"
PROCESS_HOST = "awsvault"
PROCESS_SECONDS = 60.0


def server_environ(world: World) -> dict[str, str]:
    """Return the server's own environment: no secret, but all that decides how the same credentials
    are made again."""
    settings = {name for setting in SETTINGS.values() for name in setting.env}
    kept = {name: world.environ[name] for name in settings if name in world.environ}
    return {**scrubbed(world.environ), **kept}


def read_task(world: World, kind: type[V]) -> V:
    """Return what a process of ours that started this one wrote for it (UsageError)."""
    try:
        data = world.read_descriptor(0, MAX_ITEM_BYTES)
        return kind.from_members(parse_json_object(data.decode("utf-8", "surrogateescape")))
    except ValueError:
        raise UsageError(
            "awsvault itself starts this command, and tells it on standard input"
        ) from None


def serve(world: World) -> None:
    """Be the server: descriptor 0 has the state, 3 listens, 4 is the terminal, 5 listens at the
    link-local address, and 6 is open for as long as that is lent."""
    world.forbid_memory_access()
    descriptors = world.allow_descriptors(MAX_CONNECTIONS + 64)
    state = read_task(world, ServerState)
    start_serving(world, state, socket.socket(fileno=3), 4, descriptors - SPARE_DESCRIPTORS)
    world.wait_for_end(state.command)
    world.remove_run_folder(state.folder)


def start_serving(
    world: World, state: ServerState, listener: socket.socket, terminal: int, most: int
) -> None:
    """Serve to at most so many clients at once, in threads that end with this process; notices for
    the user go to the descriptor ``terminal``."""
    service = CredentialService(world, state, terminal)
    pool = ClientPool(world, min(MAX_CONNECTIONS, most))
    strict = state.command if state.mode.strict_peer else None
    ways = [(listener, LOOPBACK, "")]
    if state.mode.link_local:
        ways.append((socket.socket(fileno=5), LINK_LOCAL, LINK_LOCAL))
    for sock, address, peer in ways:
        peers = None
        if state.mode.check_peer:
            peers = PeerCheck(world, address, sock.getsockname()[1], strict=strict)
        server = make_http_server(service, pool, sock, state.hosts, peers, peer)
        world.start_thread(server.accept_clients)
    for profile in service.profiles.values():
        world.start_thread(profile.keep_renewed)


def ask_server(world: World, folder: str, profile: str) -> str:
    """Return what the server in a command's folder answers for a profile (AwsVaultError)."""
    head = f"GET /{profile} HTTP/1.1\r\nHost: {PROCESS_HOST}\r\nConnection: close\r\n\r\n"
    answer = world.ask_privately(folder, head.encode(), PROCESS_SECONDS)
    status, _, body = answer.decode("utf-8", "surrogateescape").partition("\r\n\r\n")
    if status.startswith("HTTP/1.1 200 "):
        return body
    if not status:
        raise AwsVaultError(
            "the command that these credentials were for has ended", "start it again"
        )
    raise AwsVaultError(printable(parse_json_object(body)["Message"]))


# -- 169.254.169.254 ----------------------------------------------------------------------

LINK_LOCAL = "169.254.169.254"
LINK_LOCAL_PORT = 80
# Only root can open it, and holds it for as long as the address is lent.
LINK_LOCK = "/var/run/awsvault.lock" if sys.platform == "darwin" else "/run/awsvault.lock"
LINK_COMMAND, LINK_NAME = "_link-local", "link"
# Where a machine says that it is Amazon's, and how such a text begins.
MACHINE_FILES = (
    ("/sys/class/dmi/id/sys_vendor", "amazon ec2"),
    ("/sys/class/dmi/id/bios_vendor", "amazon ec2"),
    ("/sys/class/dmi/id/product_uuid", "ec2"),
    ("/sys/class/dmi/id/board_asset_tag", "i-"),
    ("/sys/hypervisor/uuid", "ec2"),
)
# Root's tools are not looked for on anybody's PATH.
ADDRESS_TOOLS = ("/usr/sbin/ip", "/sbin/ip", "/usr/bin/ip", "/bin/ip", "/sbin/ifconfig")
# How they add the address to the loopback device, and remove it: only this host has it then.
ALIAS_WORDS = {
    "linux": (
        ["addr", "add", f"{LINK_LOCAL}/32", "dev", "lo"],
        ["addr", "del", f"{LINK_LOCAL}/32", "dev", "lo"],
    ),
    "darwin": (
        ["lo0", "alias", LINK_LOCAL, "netmask", "255.255.255.255"],
        ["lo0", "-alias", LINK_LOCAL],
    ),
}


class LinkNote(Value):
    """What stands in the lock file: the process that has the address, and if we added it."""

    pid: int = 0
    added: bool = False


class LinkLocal:
    """Root's part of a link-local server: the address on the loopback device, and its port, lent to
    one process at a time.

    As a context manager it takes the address, and gives it back unless keep() does so later.
    """

    def __init__(self, world: World, pid: int) -> None:
        self.world = world
        self.note = LinkNote(pid)
        self.fd = -1

    def __enter__(self) -> Self:
        self.fd, text = self.world.lock_at_once(LINK_LOCK)
        try:
            left = LinkNote.from_members(parse_json_object(to_text(text)))
        except ValueError:
            left = LinkNote()
        if self.fd < 0:
            owned = f"{LINK_LOCAL} is in use by process {left.pid}"
            raise AwsVaultError(
                owned if left.pid else f"{LINK_LOCAL} is in use by another process",
                "one command at a time can have it: try --ec2-server alone",
            )
        self._write(self.note.replace(added=left.added))
        refuse_real_metadata(self.world)
        there = has_alias(self.world)
        # Without a clean end, what the last one added is ours to remove.
        self.note = self.note.replace(added=left.added or not there)
        if not self.note.added:
            self.world.say(f"note: {LINK_LOCAL} was on the loopback device before; it stays there")
        self._write(self.note)
        try:
            if not there:
                add_alias(self.world)
        except BaseException:
            self.give_back()
            raise
        return self

    def __exit__(self, *_exception: object) -> None:
        if self.fd >= 0:
            self.give_back()

    def listen(self) -> socket.socket:
        """Return a socket that listens at the address (AwsVaultError)."""
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            if sys.platform == "linux":
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo\0")
            else:
                ip_bound_if = 25  # netinet/in.h of macOS
                listener.setsockopt(socket.IPPROTO_IP, ip_bound_if, socket.if_nametoindex("lo0"))
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((LINK_LOCAL, LINK_LOCAL_PORT))
            listener.listen(MAX_CONNECTIONS)
        except OSError as error:
            listener.close()
            raise AwsVaultError(
                f"can't listen at {LINK_LOCAL}:{LINK_LOCAL_PORT}: {os_reason(error)}"
            ) from None
        return listener

    def keep(self, connection: socket.socket) -> None:
        """Give the address back when the other end of a connection is closed, in a process of our
        own."""

        def wait() -> None:
            self.world.wait_for_close(connection)
            self.give_back()

        self.world.fork_detached(wait, [self.fd, connection.fileno()])
        self.fd = -1

    def give_back(self) -> None:
        """Remove the address, if we added it, and let go of the lock."""
        if self.note.added:
            remove_alias(self.world)
        self._write(LinkNote())
        self.fd = -1

    def _write(self, note: LinkNote) -> None:
        self.world.write_note(self.fd, to_bytes(go_json(note.members())))


def refuse_real_metadata(world: World) -> None:
    """Refuse to stand in for a metadata service that is really there (AwsVaultError)."""
    hint = "use --ec2-server without --link-local, or --ecs-server"
    for path, beginning in MACHINE_FILES:
        try:
            text = world.read_file(path, 4096).decode("utf-8", "replace")
        except OSError:
            continue
        if text.strip().lower().startswith(beginning):
            raise AwsVaultError("this machine is an EC2 instance with metadata of its own", hint)
    if world.accepts(LINK_LOCAL, LINK_LOCAL_PORT, 1.0):
        raise AwsVaultError(f"something answers at {LINK_LOCAL} already", hint)


def address_tool(world: World) -> str:
    """Return the path of the program that changes a device's addresses (ToolError)."""
    for path in ADDRESS_TOOLS:
        if world.may(os.X_OK, path) and path.endswith("ip") == (sys.platform == "linux"):
            return path
    raise ToolError("no program ip to add an address with", "install iproute2")


def has_alias(world: World) -> bool:
    """Return True if the address was left on the loopback device (AwsVaultError: it is
    another device's)."""
    if sys.platform != "linux":
        return False
    shown = world.run([address_tool(world), "-o", "addr", "show", "to", f"{LINK_LOCAL}/32"])
    lines = shown.output.reveal().splitlines()
    devices = {line.split()[1] for line in lines if len(line.split()) > 1}
    if devices - {"lo"}:
        raise AwsVaultError(f"{LINK_LOCAL} is an address of {printable(devices.pop())}")
    return bool(devices)


def add_alias(world: World) -> None:
    """Put the address on the loopback device."""
    result = world.run([address_tool(world), *ALIAS_WORDS[sys.platform][0]])
    if result.status != 0:
        raise AwsVaultError(f"can't add {LINK_LOCAL}: {printable(result.errors.strip())}")


def remove_alias(world: World) -> None:
    """Take the address off the loopback device; that it fails is said: only a user can help."""
    try:
        result = world.run([address_tool(world), *ALIAS_WORDS[sys.platform][1]])
        problem = result.errors.strip() if result.status else ""
    except ToolError as error:
        problem = error.message
    if problem:
        world.say(f"warning: can't remove {LINK_LOCAL}: {printable(problem)}")


def borrow_link_local(world: World, folder: str) -> list[socket.socket]:
    """Have root lend the address, by sudo if need be; return a socket that listens there, and the
    connection that ends the loan when it is closed (AwsVaultError)."""
    python, *words = world.self_command()
    words = words if words[0] == "-I" else ["-I", *words]  # root takes nothing from around it
    command = [python, *words, LINK_COMMAND, folder]
    sudo = ["sudo", *([] if world.can_ask() else ["-n"]), "--"]
    is_root = world.uid() == 0  # in a shell of sudo's perhaps, whose variables name another user
    with world.listen_privately(folder, LINK_NAME) as door:
        result = world.run(
            command if is_root else [*sudo, *command],
            timeout=PROMPT_WAIT_SECONDS,
            on_terminal=True,
            environ={"SUDO_UID": None} if is_root else None,
        )
        if result.status != 0:
            reason = reported_error(result.errors) if result.errors.strip() else "see above"
            raise AwsVaultError(f"{LINK_LOCAL} can't be had from root: {reason}")
        for line in result.errors.splitlines():
            world.say(printable(line).removeprefix("awsvault: "))
        listener, connection = world.receive_socket(door)
    return [listener, connection]


# ======================================================================
# Child
# ======================================================================
# Environment in, process out.

NESTED_HINT = "leave that shell first, unset AWS_VAULT, or use --nested"


def credential_variables(credentials: Credentials, region: str) -> dict[str, str]:
    """Return the environment variables that SDKs read credentials from. The one place that shows
    them to a command."""
    return {
        name: value
        for name, value in (
            ("AWS_ACCESS_KEY_ID", credentials.access_key_id),
            ("AWS_SECRET_ACCESS_KEY", credentials.secret_access_key.reveal()),
            (
                "AWS_SESSION_TOKEN",
                credentials.session_token.reveal() if credentials.session_token else "",
            ),
            (
                "AWS_CREDENTIAL_EXPIRATION",
                format_time(credentials.expiration) if credentials.expiration else "",
            ),
            ("AWS_REGION", region),
            ("AWS_DEFAULT_REGION", region),
            ("AWS_ACCOUNT_ID", credentials.account_id),
        )
        if value
    }


def child_environment(
    environ: Mapping[str, str], profile: str, credentials: Credentials, region: str
) -> dict[str, str]:
    """Return the command's environment: ours without anybody else's credentials, and with these."""
    return {**scrubbed(environ), "AWS_VAULT": profile, **credential_variables(credentials, region)}


# What else is taken from the command in server and process modes.
REMOVED_WITH_SERVER = ("AWS_CREDENTIAL_PROFILES_FILE", "BOTO_CONFIG", "AWS_EC2_METADATA_DISABLED")
METADATA_ENDPOINT = "AWS_EC2_METADATA_SERVICE_ENDPOINT"
STATIC_KEYS = frozenset(
    ("aws_access_key_id", "aws_secret_access_key", "aws_session_token", "aws_security_token")
)
# In the profile that SDKs use, each of these beats a credential server.
OUTRANKING_KEYS = STATIC_KEYS | {
    "aws_account_id",
    "credential_process",
    "credential_source",
    "login_session",
    "role_arn",
    "source_profile",
    "web_identity_token_file",
    "web_identity_token_process",
}


def outranks(key: str) -> bool:
    """Return True if SDKs prefer a profile's key, in lower case, to any server."""
    return key in OUTRANKING_KEYS or key.startswith("sso_")


class ChildEnvironment(Value):
    """A command's environment; ``folder`` is to be removed when the command has ended, ``notes``
    are for the user."""

    environ: dict[str, str]
    folder: str = ""
    notes: tuple[str, ...] = ()


def private_environment(
    world: World,
    config: ConfigFile,
    targets: Sequence[ProfileConfig],
    served: Mapping[str, str],
    *,
    process: bool = False,
) -> ChildEnvironment:
    """Make the environment of a command whose SDKs shall ask a server, or with ``process`` start
    this program for each of some profiles, of which the first is also [default]; and the files that
    it names.

    ``served`` are the variables that point to the server: the container endpoint's, instance
    metadata's, or both.
    """
    environ = world.environ
    region = targets[0].endpoint.region if len(targets) == 1 else ""
    world.sweep_run_folders()
    folder = world.make_run_folder()
    try:
        given: dict[str, dict[str, str]] = {"default": {}}
        if process:
            given = _process_settings(world, folder, targets)
        private = private_files(world, config, given, folder)
        variables = {
            **({"AWS_REGION": region, "AWS_DEFAULT_REGION": region} if region else {}),
            **({} if METADATA_ENDPOINT in served else {"AWS_EC2_METADATA_DISABLED": "true"}),
            **without_proxy(environ, served.values()),
            **served,
            "AWS_VAULT": targets[0].name,
        }
        child = private.replace(environ={**private.environ, **variables})
        line = given["default"].get("credential_process", "")
        for found, hint in outranking(world, child.environ, served, line):
            raise AwsVaultError(f"{found} would be used instead of awsvault's credentials", hint)
        return child
    except BaseException:
        world.remove_run_folder(folder)
        raise


def without_proxy(environ: Mapping[str, str], urls: Iterable[str]) -> dict[str, str]:
    """Return NO_PROXY in both spellings, extended by the hosts of the URLs among some texts."""
    hosts = {split_url(url)[1] for url in urls if url.startswith("http://")}
    extended = {}
    for name, other in (("NO_PROXY", "no_proxy"), ("no_proxy", "NO_PROXY")):
        text = environ.get(name) or environ.get(other) or ""
        present = [part.strip() for part in text.split(",") if part.strip()]
        extended[name] = ",".join([*present, *sorted(hosts - set(present))])
    return extended if hosts else {}


def private_files(
    world: World,
    config: ConfigFile,
    profiles: Mapping[str, Mapping[str, str]],
    folder: str,
) -> ChildEnvironment:
    """Write the private config file: the user's, with what is given to ``profiles``.

    A credentials file that has one of these profiles too would win, so the command gets an empty
    one instead.
    """
    config_file, empty_file = (os.path.join(folder, name) for name in ("config", "credentials"))
    text = private_config(config.text, profiles)
    files = {config_file: text.encode("utf-8", "surrogateescape")}
    variables, notes, environ = {"AWS_CONFIG_FILE": config_file}, [], world.environ
    shared = environ.get("AWS_SHARED_CREDENTIALS_FILE", "")
    path = credentials_path(world, environ)
    clash = profile_in_credentials(world, path, profiles)
    if clash:
        files[empty_file] = b""
        variables["AWS_SHARED_CREDENTIALS_FILE"] = empty_file
        notes.append(
            f"note: {printable(path)} has a section [{printable(clash)}], which would win: "
            "the command does not see this file"
        )
    for name, data in files.items():
        world.write_new(name, data)
    dropped = (*REMOVED_WITH_SERVER, *(() if shared else ("AWS_SHARED_CREDENTIALS_FILE",)))
    kept = {name: value for name, value in scrubbed(environ).items() if name not in dropped}
    return ChildEnvironment({**kept, **variables}, folder, tuple(notes))


def credentials_path(world: World, environ: Mapping[str, str]) -> str:
    """Return the path of the credentials file that SDKs read in an environment."""
    named = environ.get("AWS_SHARED_CREDENTIALS_FILE", "")
    return world.expand(named) if named else os.path.join(world.home(), ".aws", "credentials")


def profile_in_credentials(world: World, path: str, profiles: Iterable[str]) -> str:
    """Return which of some profiles the credentials file has; the first if that can't be told."""
    try:
        text = world.read_file(path, MAX_CONFIG_BYTES).decode("utf-8", "surrogateescape")
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except OSError:
        return next(iter(profiles))
    lines = [line for line in ini_lines(text) if line.lstrip()[:1] == "["]
    headers = {name for line in lines for name in section_names(line)}
    return next((profile for profile in profiles if profile in headers), "")


def header_names(header: str) -> set[str]:
    """Return every profile that some SDK may take a header for: quotes and blanks differ."""
    inner = header.strip()[1:]
    names = set()
    for text in (inner.partition("]")[0], inner.rpartition("]")[0]):
        names.add(_section_name(text).removeprefix("profile "))
        words = text.translate({34: None, 39: None, 92: None}).split()
        names.add(" ".join(words[1:] if words[:1] == ["profile"] and len(words) > 1 else words))
    return names


def section_names(header: str) -> set[str]:
    """Return the profiles that get a section's keys: botocore gives those of [DEFAULT] to all."""
    names = header_names(header)
    return names | {"default"} if "default" in map(str.lower, names) else names


class ConfigRewriter:
    """Copies a config file's lines, less what would outrank what is given to some profiles.

    SDKs read such files differently (is an indented line a key, a section, or the end of a value?),
    so a line goes if any reading makes it one that must go.
    """

    def __init__(self, given: Mapping[str, Mapping[str, str]]) -> None:
        self.given = given
        self.kept: list[str] = []
        self.sections: set[str] = set()
        self.waiting: list[str] = []
        self.placed: set[str] = set()
        self.dropped_indent = -1
        self.key_indent = MAX_CONFIG_BYTES  # deeper than any line: a section begins without a key

    def copy(self, line: str) -> None:
        """Take the next line."""
        bare = line.strip()
        indent = len(line) - len(line.lstrip())
        if not bare or bare[0] in "#;":
            self.kept.append(line)
        elif bare[0] == "[":
            self._header(line, indent)
        else:
            self._place(line[:indent])
            if not self._drops(bare, indent):
                self.kept.append(line)
            self.key_indent = min(indent, self.key_indent)

    def finish(self) -> str:
        """Return the new text, with sections for the profiles that had none."""
        self._place("")
        for name, settings in self.given.items():
            if settings and name not in self.placed:
                self.kept += ["", profile_header(name), *_setting_lines(settings)]
        return "\n".join(self.kept).rstrip("\n") + "\n"

    def _header(self, line: str, indent: int) -> None:
        names = section_names(line)
        if not line.partition(" #")[0].partition(" ;")[0].rstrip().endswith("]"):
            names |= self.sections  # some SDKs take only what ends in a bracket for a header
        if indent > self.key_indent:
            # For botocore the rest of a value, for others a section.
            self.sections |= names
            if not 0 <= self.dropped_indent < indent:
                self.kept.append(line)
            return
        self._place(line[:indent])
        self.kept.append(line)
        mine = sorted(header_names(line) & set(self.given))
        self.placed.update(mine)
        self.waiting = [text for name in mine for text in _setting_lines(self.given[name])]
        self.sections = names
        self.dropped_indent, self.key_indent = -1, MAX_CONFIG_BYTES

    def _place(self, indent: str) -> None:
        # As far to the right as the section's own lines, which otherwise would continue ours.
        self.kept += [indent + text for text in self.waiting]
        self.waiting = []

    def _drops(self, bare: str, indent: int) -> bool:
        if 0 <= self.dropped_indent < indent:
            return True  # the rest of a value that went
        key = _split_line(bare)[0]
        drops = key in STATIC_KEYS or any(
            outranks(key) or key in self.given[name] for name in self.sections & set(self.given)
        )
        self.dropped_indent = indent if drops else -1
        return drops


def _setting_lines(settings: Mapping[str, str]) -> list[str]:
    return [f"{key} = {value}" for key, value in settings.items()]


def private_config(text: str, given: Mapping[str, Mapping[str, str]]) -> str:
    """Return a config file's text without static keys, and with what is given to some profiles."""
    rewriter = ConfigRewriter(given)
    for line in ini_lines(text):
        rewriter.copy(line)
    return rewriter.finish()


# Files that old SDKs read keys from, before they ask a server.
BOTO_FILES = ("/etc/boto.cfg", "~/.boto")


def outranking(
    world: World, environ: Mapping[str, str], served: Mapping[str, str], process: str
) -> Iterator[tuple[str, str]]:
    """Yield what SDKs would find in an environment before they come to us, each with what helps.
    ``process`` is our own credential_process, where there is no server.

    Reads the files as they are now, and as botocore does: by Python's own parser.
    """
    for name in sorted(set(environ) - set(served)):
        if name in REMOVED_VARIABLES or name.startswith(REMOVED_PREFIX):
            yield f"the variable {name}", f"unset {name}"
    config = environ.get("AWS_CONFIG_FILE", "")
    for key, value in default_settings(world, config):
        if outranks(key) and (key, value) != ("credential_process", process):
            yield (
                f"{printable(key)} in [default] of {printable(config)}",
                "take it out of the config file",
            )
    path = credentials_path(world, environ)
    if profile_in_credentials(world, path, ["default"]):
        yield f"[default] in {printable(path)}", "give that section another name"
    for file in () if process else BOTO_FILES:
        settings = dict(section_settings(world, world.expand(file), "Credentials"))
        if settings.get("aws_access_key_id"):
            yield f"the key in {file}", "take it out of that file"
    if not process and environ.get("AWS_EC2_METADATA_DISABLED") and METADATA_ENDPOINT in served:
        yield "AWS_EC2_METADATA_DISABLED", "unset AWS_EC2_METADATA_DISABLED"


def default_settings(world: World, path: str) -> Iterator[tuple[str, str]]:
    """Yield the keys and values that botocore finds for the default profile."""
    for section in ("default", "profile default"):
        yield from section_settings(world, path, section)


BARE = ("", "#", ";", "[")


def section_settings(world: World, path: str, section: str) -> list[tuple[str, str]]:
    """Return a section's keys and values as configparser reads them; none of what it refuses."""
    parser = configparser.RawConfigParser()
    try:
        text = world.read_file(path, MAX_CONFIG_BYTES).decode("utf-8", "surrogateescape")
        lines = ini_lines(text)
        # Lines that configparser refuses cost it quadratic time: one that begins a line and is no
        # key does for all, and so many that continue a value nobody has.
        bare = [line for line in lines if line.strip()[:1] not in BARE and not {*"=:"} & {*line}]
        if len(bare) > 9999 or any(line[0] > " " for line in bare):
            return []
        # So do long blanks in a key.
        parser.read_string(re.sub(r"(?<=\S)[^\S\n]{99,}", " ", "\n".join(lines)))
        return parser.items(section)
    except (OSError, configparser.Error):
        return []


# Where names stand in a command line that programs of all kinds cut up.
PROCESS_NAME = r"[A-Za-z0-9._@+/][A-Za-z0-9._@+/-]*"
PROCESS_SAFE = r"[A-Za-z0-9._@+/=:,-]+"
PROCESS_BAD = '"\\$`!%'


def process_line(words: Sequence[str]) -> str:
    """Write a command for credential_process; UsageError for what SDKs would read differently.

    They leave the cutting to sh, shlex or cmd, and in some a blank and ``#`` or ``;`` end a value.
    """
    quoted = []
    for word in words:
        if re.fullmatch(PROCESS_SAFE, word):
            quoted.append(word)
        elif set(word) & set(PROCESS_BAD) or re.search(r"\s[#;]", word) or printable(word) != word:
            raise UsageError(
                f"{printable(word)!r} can't be written so that every SDK reads it alike",
                "put this program, its Python and your home folder under plain names",
            )
        else:
            quoted.append(f'"{word}"')
    return " ".join(quoted)


def check_process_names(profile: str, names: Sequence[str], environ: Mapping[str, str]) -> None:
    """Refuse what --process can't do (UsageError)."""
    for name in names:
        if not re.fullmatch(PROCESS_NAME, name):
            raise UsageError(
                f"--process: {printable(name)!r} can't be used in a credential_process",
                "letters, digits and . _ @ + / - are allowed, and no dash at the start",
            )
    if profile:
        raise UsageError(
            f"--process names the profiles, so {printable(profile)!r} can only be the command",
            "put -- before the command",
        )
    if "default" in names[1:] and names[0] != "default":
        raise UsageError(
            "--process: the first profile is the command's default", "name default first"
        )
    if len(set(names)) > 1 and environ.get("AWS_ROLE_ARN"):
        raise UsageError(
            "AWS_ROLE_ARN is set, and would be the role of each of the profiles",
            "unset AWS_ROLE_ARN",
        )


def _process_settings(
    world: World, folder: str, targets: Sequence[ProfileConfig]
) -> dict[str, dict[str, str]]:
    """Return what is given to each profile, and to [default], in the private config file."""
    given: dict[str, dict[str, str]] = {}
    for target in targets:
        words = [*world.self_command(), PROCESS_COMMAND, folder, target.name]
        given[target.name] = {"credential_process": process_line(words)}
        if target.endpoint.region:
            given[target.name]["region"] = target.endpoint.region
    return {**given, "default": given[targets[0].name]}


def default_shell(environ: Mapping[str, str]) -> str:
    """Return the shell that is started where no command is named."""
    return environ.get("SHELL") or "/bin/sh"


def quote_posix(text: str) -> str:
    """Quote for sh, bash and zsh; text that needs no quotes stays as it is."""
    return shlex.quote(text)


def quote_fish(text: str) -> str:
    """Quote for fish."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def quote_powershell(text: str) -> str:
    """Quote for PowerShell, which takes typographic quotes for quotes."""
    for mark in "'\u2018\u2019\u201a\u201b":
        text = text.replace(mark, mark * 2)
    return f"'{text}'"


EXPORTED = (
    "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN",
    "AWS_CREDENTIAL_EXPIRATION", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ACCOUNT_ID",
)  # fmt: skip
# The region that an export left in a shell, where it must not be that of the next profile.
REGION_MARK = "AWS_VAULT_REGION"
REGION_VARIABLES = ("AWS_REGION", "AWS_DEFAULT_REGION")


def forget_regions(environ: dict[str, str], mark: str) -> None:
    """Drop the variables of a region that an export, not the user, has set to ``mark``."""
    for name in REGION_VARIABLES:
        if mark and environ.get(name) == mark:
            del environ[name]


def export_shell(
    template: str, unset: str, quote: Callable[[str], str]
) -> Callable[[str, Credentials, str], str]:
    """Return a writer of a shell's lines, by templates with {name} and {value}: variables that are
    not set, as an earlier export may have left them, are removed."""

    def write(_profile: str, credentials: Credentials, region: str) -> str:
        variables = credential_variables(credentials, region)
        if region:
            variables[REGION_MARK] = region
        lines = [template.format(name=name, value=quote(variables[name])) for name in variables]
        gone = [name for name in (*EXPORTED, REGION_MARK) if name not in variables]
        return "".join([*lines, *(unset.format(name=name) for name in gone)])

    return write


def export_env(_profile: str, credentials: Credentials, region: str) -> str:
    """Write NAME=value lines, as for docker's --env-file (AwsVaultError)."""
    variables = credential_variables(credentials, region)
    return "".join(f"{name}={one_line(name, value)}\n" for name, value in variables.items())


def one_line(name: str, value: str) -> str:
    """Return a value that stands in a line as it is; AwsVaultError for one that a reader would cut
    or strip."""
    if value != value.strip() or any(map(is_control, value)):
        raise AwsVaultError(
            f"{name} has a blank at its edge or a control character, which this format can't keep",
            "use --format=json",
        )
    return value


def export_json(_profile: str, credentials: Credentials, _region: str) -> str:
    """Write what credential_process promises."""
    return process_document(credentials).decode("utf-8", "surrogateescape")


INI_KEYS = (
    ("AWS_ACCESS_KEY_ID", "aws_access_key_id"),
    ("AWS_SECRET_ACCESS_KEY", "aws_secret_access_key"),
    ("AWS_SESSION_TOKEN", "aws_session_token"),
    ("AWS_CREDENTIAL_EXPIRATION", "aws_credential_expiration"),
    ("AWS_REGION", "region"),
)


def export_ini(profile: str, credentials: Credentials, region: str) -> str:
    """Write a section of an AWS credentials file."""
    variables = credential_variables(credentials, region)
    lines = [
        f"{key}={one_line(name, variables[name])}\n" for name, key in INI_KEYS if name in variables
    ]
    return f"[{profile}]\n" + "".join(lines)


EXPORT_FORMATS: dict[str, Callable[[str, Credentials, str], str]] = {
    "env": export_env,
    "export-env": export_shell("export {name}={value}\n", "unset {name}\n", quote_posix),
    "json": export_json,
    "ini": export_ini,
    "fish": export_shell("set -gx {name} {value}\n", "set -e {name}\n", quote_fish),
    "powershell": export_shell(
        "$Env:{name} = {value}\n", "$Env:{name} = $null\n", quote_powershell
    ),
}


# ======================================================================
# Key life
# ======================================================================
# How stored keys are renewed and moved. Each step stands in a journal before it is made, so that a
# crash at any point loses no key and strands none.

# How long a new key may take until all of AWS knows it, and how long is waited between attempts.
KEY_SPREAD_SECONDS = 60.0
FIRST_PAUSE_SECONDS, MAX_PAUSE_SECONDS = 0.5, 4.0
# What AWS says, or does not say, where it may have done what it was asked for.
UNCERTAIN = ("", "InternalFailure", "InternalError", "ServiceFailure", "ServiceUnavailable")
# IAM's clock and the one that answers need not agree to the second.
CLOCK_TOLERANCE = datetime.timedelta(minutes=5)
ROTATE_HINT = "awsvault rotate --resume {0} finishes it, --rollback undoes it"


LISTED_KEY = {"id": "AccessKeyId", "created": "CreateDate", "status": "Status"}
CREATED_KEY = {"access_key_id": "AccessKeyId", "secret_access_key": "SecretAccessKey"}


class AccessKey(Value):
    """A user's access key as IAM lists it."""

    id: str
    created: datetime.datetime
    status: str


class Rotation(Value):
    """The journal of a rotation: all that is needed to finish or to undo it.

    ``profiles`` hold the key of ``user`` (an ARN), ``known`` are the ids that the user had,
    ``started`` is AWS's time, ``new`` is there once AWS has made it.
    """

    profiles: tuple[str, ...]
    user: str
    old: Credentials
    known: tuple[str, ...]
    started: datetime.datetime
    new: Credentials | None = None


class Journals:
    """The unfinished rotations of a vault, kept where no program takes them for credentials."""

    def __init__(self, keystore: Keystore) -> None:
        self.keystore = keystore.journal()

    def profiles(self) -> list[str]:
        """Return the profiles whose rotation is unfinished, as far as that is remembered: nobody is
        asked, and no tool runs unless there is one."""
        return self.all() if any(map(journal_profile, self.keystore.known() or ())) else []

    def all(self) -> list[str]:
        """Return the profiles whose rotation is unfinished."""
        return [name for name in map(journal_profile, self.keystore.keys()) if name]

    def get(self, profile: str) -> Rotation:
        """Return a profile's journal; ItemNotFound if there is none, DamagedItem if it can't be
        read."""
        text = self.keystore.get(journal_name(profile)).data.reveal()
        try:
            # In an array, which aws-vault reads as no session.
            return Rotation.from_members(parse_json_object(text[1:-1]))
        except ValueError:
            raise DamagedItem(f"the journal of the rotation of {printable(profile)!r} is damaged")

    def find(self, profile: str) -> Rotation | None:
        """Return the journal of the rotation of a profile's key, whichever profile it is filed
        under; None if there is none."""
        rotations = map(self.get, self.all())
        return next((one for one in rotations if profile in one.profiles), None)

    def put(self, rotation: Rotation) -> None:
        """Write a journal over the one of its profile."""
        text = Secret(go_json([rotation.members()]))
        label = f"awsvault: unfinished rotation of {rotation.profiles[0]}"
        self.keystore.set(Item(journal_name(rotation.profiles[0]), text, label, trusted=True))

    def drop(self, rotation: Rotation) -> None:
        """Remove a journal; that it is gone is no error."""
        try:
            self.keystore.delete(journal_name(rotation.profiles[0]))
        except ItemNotFound:
            pass


class Iam:
    """What a rotation asks of AWS about the keys of one user (AwsError)."""

    def __init__(self, aws: Aws, iam: Endpoint, sts: Endpoint) -> None:
        self.aws = aws
        self.iam = iam
        self.sts = sts

    def _call(
        self, operation: str, signer: Credentials, endpoint: Endpoint, **params: str
    ) -> dict[str, Any]:
        try:
            return self.aws.call("iam", operation, params, signer, endpoint)
        except AwsError as error:
            if error.code == "AccessDenied":
                error.hint = "awsvault rotate --print-policy prints the policy that it needs"
            raise

    def keys(self, signer: Credentials) -> list[AccessKey]:
        """List the user's keys."""
        answer = self._call("ListAccessKeys", signer, self.iam)
        try:
            rows = list(answer["AccessKeyMetadata"])
            return [AccessKey.from_members(row, LISTED_KEY) for row in rows]
        except (LookupError, TypeError, ValueError):
            raise not_aws("ListAccessKeys") from None

    def create(self, signer: Credentials) -> Credentials:
        """Make a key. Asked once: who asks again after a lost answer has one key too many."""
        answer = self._call("CreateAccessKey", signer, self.iam.replace(max_attempts=1))
        try:
            return Credentials.from_members(answer["AccessKey"], CREATED_KEY)
        except (LookupError, ValueError):
            raise not_aws("CreateAccessKey") from None

    def delete(self, signer: Credentials, key_id: str) -> None:
        """Delete a key; that it is gone is no error."""
        try:
            self._call("DeleteAccessKey", signer, self.iam, AccessKeyId=key_id)
        except AwsError as error:
            if error.code != "NoSuchEntity":
                raise

    def last_use(self, signer: Credentials, key_id: str) -> datetime.datetime | None:
        """Return when a key was last used; None if it never was."""
        answer = self._call("GetAccessKeyLastUsed", signer, self.iam, AccessKeyId=key_id)
        try:
            used = dict(answer["AccessKeyLastUsed"]).get("LastUsedDate")
            return parse_time(used) if used else None
        except (LookupError, TypeError, ValueError):
            raise not_aws("GetAccessKeyLastUsed") from None

    def user(self, signer: Credentials) -> str:
        """Return the ARN of the user whom a key belongs to."""
        answer = self.aws.call("sts", "GetCallerIdentity", {}, signer, self.sts)
        return str(answer.get("Arn", ""))


class Rotator:
    """Renews one stored key. Every method goes on from what the vault, the journal and IAM say, so
    that it does not matter where an earlier run ended.

    ``session`` signs all IAM calls, where MFA is asked for; else the stored keys do.
    """

    def __init__(
        self, world: World, vault: Vault, iam: Iam, session: Credentials | None = None
    ) -> None:
        self.world = world
        self.vault = vault
        self.iam = iam
        self.session = session
        self.journals = Journals(vault.keystore)

    def begin(self, profile: str, doomed: str, least_age: datetime.timedelta) -> Rotation | None:
        """Write the journal of a rotation that may be made (AwsVaultError if not); None where the
        key is younger than ``least_age``.

        ``doomed`` is the id of the user's other key, which goes first.
        """
        old = self.vault.credentials(profile)
        signer = self.session or old
        keys = self.iam.keys(signer)
        now = self.world.now() + self.iam.aws.skew
        own = next((key for key in keys if key.id == old.access_key_id), None)
        if own is None:
            raise AwsVaultError(
                f"IAM does not list the key {masked(old.access_key_id)} stored for "
                f"{printable(profile)!r} among its user's"
            )
        if now - own.created < least_age:
            self._say(f"the key of {printable(profile)!r} is {age(own, now)} old: nothing to do")
            return None
        for other in keys:
            if other.id == doomed and other is not own:
                self.iam.delete(signer, doomed)
                self._say(f"deleted the key {masked(doomed)}, which --replace names")
            elif other is not own:
                raise self._two_keys(profile, keys, own, signer, now)
        same = [
            name for name in self.vault.profiles() if name != profile and self._holds(name, old)
        ]
        known = tuple(key.id for key in keys if key.id != doomed)
        rotation = Rotation((profile, *same), self.iam.user(signer), old, known, now)
        self.journals.put(rotation)
        return rotation

    def _holds(self, profile: str, keys: Credentials) -> bool:
        try:
            return self.vault.credentials(profile).access_key_id == keys.access_key_id
        except (DamagedItem, EndedCredentials, ItemNotFound):
            return False

    def _two_keys(
        self,
        profile: str,
        keys: Sequence[AccessKey],
        own: AccessKey,
        signer: Credentials,
        now: datetime.datetime,
    ) -> AwsVaultError:
        """Show both keys of a user, who can't have a third, and return the error."""
        for key in keys:
            try:
                used = self.iam.last_use(signer, key.id)
                use = f"last used {format_time(used)}" if used else "never used"
            except AwsError as error:
                use = f"last use unknown ({error.code or 'no answer'})"
            stored = ", stored here" if key is own else ""
            self._say(f"{key.id}: {key.status.lower()}, {age(key, now)} old, {use}{stored}")
        other = next(key.id for key in keys if key is not own)
        return AwsVaultError(
            f"the user of {printable(profile)!r} has two access keys, and AWS allows no third",
            f"if nothing uses the other one: awsvault rotate --replace {printable(other)} "
            f"{printable(profile)}",
        )

    def finish(self, rotation: Rotation) -> None:
        """Do all that is left of a rotation but to drop its journal (AwsVaultError: then nothing is
        lost)."""
        rotation = rotation if rotation.new else self._create(rotation)
        new = rotation.new
        assert new is not None
        self._say(f"made the key {masked(new.access_key_id)}; waiting until AWS knows it")
        user = self._until_known(lambda: self.iam.user(new))
        if user != rotation.user:
            raise AwsVaultError(
                f"the new key is {printable(user)}'s, the old one {printable(rotation.user)}'s"
            )
        for profile in rotation.profiles:
            self._store(profile, rotation.old, new)
        self._say(f"stored it for {', '.join(map(printable, rotation.profiles))}")
        signer = self.session or new
        self._until_known(lambda: self.iam.delete(signer, rotation.old.access_key_id))
        self._say(f"deleted the old key {masked(rotation.old.access_key_id)}")

    def undo(self, rotation: Rotation) -> None:
        """Store the old key again, and delete at AWS what was made; the journal stays
        (AwsVaultError)."""
        old, profile = rotation.old, printable(rotation.profiles[0])
        signer = self.session or old
        made = rotation.new
        try:
            listed = self.iam.keys(signer)
        except AwsError as error:
            if error.code != "InvalidClientTokenId":
                raise
            listed = []
        if old.access_key_id not in [key.id for key in listed]:
            raise AwsVaultError(
                f"the old key of {profile!r} is deleted, so it can't be stored again",
                f"awsvault rotate --resume {profile}",
            )
        if made:
            for name in rotation.profiles:
                self._store(name, made, old)
            self.iam.delete(signer, made.access_key_id)
        else:
            self._delete_unknown(rotation, listed, signer)
        self._say(f"the key {masked(old.access_key_id)} stays")

    def _create(self, rotation: Rotation) -> Rotation:
        """Make the new key, and keep it in the journal."""
        signer = self.session or rotation.old
        self._delete_unknown(rotation, self.iam.keys(signer), signer)
        try:
            made = self.iam.create(signer)
        except AwsError as error:
            if error.code not in UNCERTAIN:
                self.journals.drop(rotation)
                raise
            self._say(f"{error.message}; looking whether a key was made")
            self._delete_unknown(rotation, self.iam.keys(signer), signer)
            made = self.iam.create(signer)
        rotation = rotation.replace(new=made)
        try:
            self.journals.put(rotation)
        except BaseException:
            self._say(f"the key {printable(made.access_key_id)} can't be kept; deleting it")
            self.iam.delete(signer, made.access_key_id)
            raise
        return rotation

    def _delete_unknown(
        self, rotation: Rotation, keys: Iterable[AccessKey], signer: Credentials
    ) -> None:
        """Delete the key that an earlier attempt made, whose secret nobody has; one that is not
        surely such a key is an AwsVaultError."""
        for key in keys:
            if key.id in rotation.known:
                continue
            ours = key.created > rotation.started - CLOCK_TOLERANCE
            if not ours or self.iam.last_use(signer, key.id):
                raise AwsVaultError(
                    f"the user got another key meanwhile, {printable(key.id)}, and it is in use",
                    "awsvault rotate --rollback, or delete it first",
                )
            self.iam.delete(signer, key.id)
            self._say(f"deleted the key {masked(key.id)}, whose secret never arrived")

    def _store(self, profile: str, old: Credentials, new: Credentials) -> None:
        """Put one key in the place of another, and read it back."""
        stored = self.vault.credentials(profile)
        if stored.access_key_id not in (old.access_key_id, new.access_key_id):
            raise AwsVaultError(
                f"another key was stored for {printable(profile)!r} meanwhile",
                "remove it, or delete at AWS the key that is not needed",
            )
        keep_key(self.vault, profile, new, replace=True)

    def _until_known(self, act: Callable[[], T]) -> T:
        """Repeat a request until all of AWS knows the key that signs it (AwsError after a
        minute)."""
        pause, end = FIRST_PAUSE_SECONDS, self.world.monotonic() + KEY_SPREAD_SECONDS
        while True:
            try:
                return act()
            except AwsError as error:
                if error.code != "InvalidClientTokenId" or self.world.monotonic() > end:
                    raise
            self.world.pause(pause)
            pause = min(2 * pause, MAX_PAUSE_SECONDS)

    def _say(self, text: str) -> None:
        self.world.say(text)


def masked(key_id: str) -> Printable:
    """Show the end of an access key id, as aws-vault does."""
    return printable("*" * 16 + key_id[-4:])


def age(key: AccessKey, now: datetime.datetime) -> str:
    """Say how old a key is, in days or less."""
    old = max(now - key.created, datetime.timedelta())
    return counted(old.days, "day") if old.days else format_duration(old)


def rotation_policy(partition: str, *, with_mfa: bool) -> str:
    """Return the IAM policy that lets a user rotate their own keys, as JSON."""
    names = ("CreateAccessKey", "DeleteAccessKey", "ListAccessKeys", "GetAccessKeyLastUsed")
    statement: dict[str, object] = {
        "Effect": "Allow",
        "Action": [f"iam:{name}" for name in names],
        "Resource": f"arn:{partition}:iam::*:user/${{aws:username}}",
    }
    if with_mfa:
        statement["Condition"] = {"Bool": {"aws:MultiFactorAuthPresent": "true"}}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]}, indent=2) + "\n"


KEY_ID_FORM = "AKIA and at least 12 more capitals or digits"
SECRET_KEY_LENGTH = 40


def is_key_id(text: str) -> bool:
    """Return True for what has the form of an access key ID, a temporary one's too."""
    return bool(re.fullmatch("(AKIA|ASIA)[A-Z0-9]{12,124}", text.strip()))


def read_key_id(text: Secret) -> str:
    """Return a long-lived access key ID (UsageError, which does not quote it: it may be the
    secret)."""
    word = text.stripped().reveal()
    if not is_key_id(word):
        why, hint = "that is none", f"it is {KEY_ID_FORM}"
        if len(word) == SECRET_KEY_LENGTH:
            why, hint = "that looks like the secret access key", "give the access key ID first"
        elif word.startswith(("AKIA", "ASIA")) and word.isalnum() and word.isupper():
            why = f"it was cut: it has {len(word)} characters"
        elif any(letter <= " " or is_control(letter) for letter in word) or not word:
            why = "it is one word without blanks"
        raise UsageError(f"access key ID: {why}", hint)
    if word.startswith("ASIA"):
        raise UsageError(
            "access key ID: one that begins with ASIA is temporary: it works for hours, with its "
            "session token only, and AWS makes no session from it",
            "store a long-lived key, which begins with AKIA",
        )
    return word


def read_secret_key(world: World, text: Secret) -> Secret:
    """Return a secret access key (UsageError); one of another length is warned of."""
    word = text.stripped()
    letters = word.reveal()
    if not word or any(letter <= " " or is_control(letter) for letter in letters):
        raise UsageError("secret access key: it is one word without blanks", "try again")
    if is_key_id(letters):
        raise UsageError(
            "secret access key: that is an access key ID", "give the secret that belongs to it"
        )
    if len(letters) != SECRET_KEY_LENGTH:
        world.say(
            f"warning: the secret access key has {len(letters)} characters instead of "
            f"{SECRET_KEY_LENGTH}: was it cut?"
        )
    return word


class FoundKey(Value):
    """An access key in a file: whose it shall be, and the numbers of the lines that hold it."""

    profile: str
    keys: Credentials
    lines: tuple[int, ...]


KEY_OPTIONS = {"aws_access_key_id": "access_key_id", "aws_secret_access_key": "secret_access_key"}


def keys_in_credentials(world: World, text: str) -> list[FoundKey]:
    """Return the long-lived keys of an AWS credentials file, as botocore reads it (UsageError).

    A section without a whole key, or with a temporary one, is left out, and that is said.
    """
    found = []
    for section, options in _parse_credentials(text).items():
        if "aws_session_token" in options or not options.keys() & KEY_OPTIONS.keys():
            if "aws_session_token" in options:
                world.say(f"note: [{printable(section)}] is left: its key is temporary")
            continue
        try:
            key_id, secret = (Secret(options.get(option, "")) for option in KEY_OPTIONS)
            keys = Credentials(read_key_id(key_id), read_secret_key(world, secret))
        except UsageError as error:
            world.say(f"note: [{printable(section)}] is left: {error.message}")
            continue
        found.append(FoundKey(section, keys, _lines_of(text, section)))
    return found


def _parse_credentials(text: str) -> dict[str, dict[str, str]]:
    parser = configparser.RawConfigParser(default_section="")
    try:
        parser.read_string(text)
    except configparser.Error as error:
        line = getattr(error, "lineno", None) or next(iter(getattr(error, "errors", [])), [""])[0]
        # What could not be read may be a secret: it is not quoted.
        raise UsageError(
            f"{'line ' + str(line) if line else 'it'} can't be read: {type(error).__name__}",
            "mend it by hand: the AWS CLI can't read it either",
        ) from None
    return {section: dict(parser[section]) for section in parser.sections()}


def is_header(line: str) -> bool:
    """Return True for the line that begins a section."""
    return line.lstrip().startswith("[")


def _lines_of(text: str, section: str) -> tuple[int, ...]:
    """Return the numbers of the lines that hold a section's key."""
    lines, here = [], False
    for number, line in enumerate(text.split("\n")):
        header = re.match(r"\s*\[(.+)\]", line)
        option = re.match(r"\s*([\w-]+?)\s*[=:]", line)
        if header:
            here = header[1] == section
        elif here and option and option[1].lower() in KEY_OPTIONS:
            lines.append(number)
    return tuple(lines)


# The columns and names of the files that the console hands out -> what they hold.
CSV_NAMES = {
    "access key id": "id", "secret access key": "secret", "user name": "user",
    "awsaccesskeyid": "id", "awssecretkey": "secret",
}  # fmt: skip


def keys_in_csv(world: World, text: str, profile: str) -> list[FoundKey]:
    """Return the keys of a CSV file of the AWS console: a user's, with columns, or the root user's,
    with NAME=VALUE lines (UsageError if it is none).

    ``profile`` is whose they shall be, where the file names no user.
    """
    lines = text.removeprefix("\ufeff").split("\n")
    columns = [CSV_NAMES.get(name.strip().lower(), "") for name in _csv_row(lines[0])]
    pairs = [line.partition("=") for line in lines if "=" in line]
    rows: list[tuple[dict[str, str], tuple[int, ...]]] = [
        (dict(zip(columns, _csv_row(line))), (number,))
        for number, line in enumerate(lines[1:], 1)
        if line.strip()
    ]
    if "id" not in columns:
        root = {CSV_NAMES.get(name.strip().lower(), ""): value for name, _, value in pairs}
        rows = [(root, tuple(range(len(lines))))]
    if not all({"id", "secret"} <= row.keys() for row, _ in rows) or not rows:
        raise UsageError("it is no file of access keys from the AWS console")
    found = []
    for row, numbers in rows:
        name = profile or row.get("user", "").strip()
        if not name:
            raise UsageError("it names no user", "name the profile: awsvault import --csv F NAME")
        keys = Credentials(
            read_key_id(Secret(row["id"])), read_secret_key(world, Secret(row["secret"]))
        )
        found.append(FoundKey(name, keys, numbers))
    if profile and len(found) > 1:
        raise UsageError("it has several keys", "name no profile: each has its user's name")
    return found


def _csv_row(line: str) -> list[str]:
    return next(csv.reader([line.rstrip("\r")]), [])


def keep_key(vault: Vault, profile: str, keys: Credentials, *, replace: bool) -> bool:
    """Store a key and read it back; False if another one is there, which stays unless ``replace``
    (AwsVaultError)."""
    vault.refuse_profile(profile)
    try:
        stored = vault.credentials(profile)
    except ItemNotFound:
        stored = None
    if stored == keys:
        return True
    if stored and not replace:
        return False
    vault.store_credentials(profile, keys)
    if vault.credentials(profile) != keys:
        raise KeystoreError(f"what was stored for {printable(profile)!r} is read otherwise")
    return True


class KeyFile:
    """A file of access keys, from which go those that are stored elsewhere."""

    def __init__(self, world: World, path: str) -> None:
        self.world = world
        self.path = os.path.abspath(path)

    def read(self) -> str:
        """Return the file's text (UsageError)."""
        try:
            data = self.world.read_file(self.path, MAX_CONFIG_BYTES)
        except OSError as error:
            raise UsageError(f"can't read {printable(self.path)}: {os_reason(error)}") from None
        return to_text(data)

    def remove(self, text: str, taken: Iterable[FoundKey]) -> None:
        """Write the file without the lines of some keys, and without the headers of sections that
        had nothing else; the rest, its mode and its owner stay (AwsVaultError, if others can have
        changed it, or it was changed meanwhile)."""
        doomed = {number for key in taken for number in key.lines}
        lines = text.split("\n")
        rest = [(number, line) for number, line in enumerate(lines) if number not in doomed]
        rest = [(number, line) for number, line in rest if line.strip()] + [(len(lines), "[")]
        for (number, line), (following, after) in zip(rest, rest[1:]):
            if is_header(line) and is_header(after) and doomed & {*range(number, following)}:
                doomed.add(number)
        kept = "\n".join(line for number, line in enumerate(lines) if number not in doomed)
        hint = "the keys are in the vault: remove them from the file by hand"
        path = printable(self.path)
        try:
            with self.world.lock("file", self.path, doing=f"writing {path}"):
                if self.world.read_own(self.path, MAX_CONFIG_BYTES) != to_bytes(text):
                    raise AwsVaultError(f"{path} was changed meanwhile, so it is left", hint)
                self.world.write_atomic(
                    self.path, to_bytes(kept), os.path.dirname(self.path), keep_mode=True
                )
        except OSError as error:
            raise AwsVaultError(f"can't write {path}: {os_reason(error)}", hint) from None


# ======================================================================
# Commands
# ======================================================================
# One function for each subcommand: keyword arguments in, exit status out.


class Options(Value):
    """The global flags and their variables."""

    backend: str = ""
    prompt: str = ""
    store: StoreSettings = StoreSettings()
    flags: tuple[str, ...] = ()  # all that are not at their default, for a later process
    duration: str = ""


# How much of a new session's life may have passed on its way to us.
ANSWER_DELAY = datetime.timedelta(minutes=1)


def too_short(
    target: ProfileConfig,
    left: datetime.timedelta,
    least: datetime.timedelta,
    hint: str = "ask for a longer one with --duration, or for less with --min-ttl",
) -> AwsVaultError:
    """Return the error of a profile whose new session lasts less than --min-ttl asks for."""
    return AwsVaultError(
        f"a new session of {printable(target.name)!r} lasts {format_duration(left)}, "
        f"--min-ttl asks for {format_duration(least)}",
        hint,
    )


def check_duration(
    target: ProfileConfig, provider: Provider, tools: Tools, least: datetime.timedelta | None
) -> None:
    """Refuse, before anybody is asked for a code, a chain whose new session would last less than
    ``least``, if no cached one lasts longer."""
    if least and isinstance(provider, SessionProvider) and provider.duration < least:
        if provider.cached(tools, least):
            return
        if isinstance(provider, AssumeRole) and isinstance(provider.source, SessionProvider):
            hint = "AWS allows a role no more than an hour from a session: ask for less"
            raise too_short(target, provider.duration, least, hint)
        raise too_short(target, provider.duration, least)


def check_left(
    target: ProfileConfig,
    credentials: Credentials,
    least: datetime.timedelta | None,
    now: datetime.datetime,
) -> None:
    """Refuse credentials that have less than ``least`` left (AwsVaultError)."""
    if least and credentials.expiration and credentials.expiration - now + ANSWER_DELAY < least:
        raise too_short(target, credentials.expiration - now, least)


class App:
    """What commands work with; the config file and the vault are opened when first used."""

    def __init__(self, world: World, options: Options) -> None:
        self.world = world
        self.options = options
        self._config: ConfigFile | None = None
        self._vault: Vault | None = None
        self.choice = Choice("", "")
        self._codes: MfaCodes | None = None

    @property
    def config(self) -> ConfigFile:
        """The AWS config file."""
        if self._config is None:
            self._config = load_config(self.world)
        return self._config

    @property
    def vault(self) -> Vault:
        """The vault in the chosen keystore."""
        if self._vault is None:
            world, store = self.world, self.options.store
            choice = choose_backend(
                world, store, self.options.backend, lambda name: probe_backend(world, store, name)
            )
            if choice.new:
                self._remember(choice)
            self.choice = choice
            self._vault = Vault(BACKENDS[choice.backend](world, store), world)
        return self._vault

    def _remember(self, choice: Choice) -> None:
        self.world.say(
            f"using the keystore {choice.backend}, {choice.why}; awsvault backends shows them all"
        )
        try:
            remember_backend(self.world, choice.backend, automatic=True)
        except AwsVaultError as error:
            self.world.debug(f"the choice can't be remembered: {error}")

    def known_profile(self, name: str) -> str:
        """Return a profile's name: the one given, else $AWS_PROFILE, else ``default`` if that
        exists (UsageError)."""
        environ_name = self.world.environ.get("AWS_PROFILE", "")
        chosen = name or environ_name or "default"
        if self.has_profile(chosen):
            return chosen
        if chosen in self.vault.candidates():
            raise foreign_entry(chosen, "not in aws-vault's form")
        if chosen in self.vault.names():
            raise UsageError(
                f"{printable(chosen)!r} is stored under a name that aws-vault takes for a session's"
                " or token's, and deletes",
                f"take the key over: aws-vault exec -n {quote_posix(printable(chosen))} -- "
                "awsvault add --env NEW-NAME",
            )
        if not (name or environ_name):
            raise UsageError("no profile is named", "name one, or set AWS_PROFILE")
        raise UsageError(
            f"profile {printable(chosen)!r} is neither in {printable(self.config.path)} nor in "
            "the vault",
            self._hint_for_profile(chosen, self.vault.profiles()),
        )

    def tell_unfinished(self) -> None:
        """Say which rotations were interrupted. A place that can't be looked at stops nothing else:
        rotate itself says what is wrong with it."""
        try:
            unfinished = Journals(self.vault.keystore).profiles()
        except AwsVaultError as error:
            self.world.debug(f"journals: {error.message}")
            unfinished = []
        for profile in map(printable, unfinished):
            hint = ROTATE_HINT.format(profile)
            self.world.say_once(f"note: the rotation of {profile!r} was interrupted: {hint}")

    def has_profile(self, name: str) -> bool:
        """Return True if a profile is in the config or in the vault."""
        if self.config.has_profile(name) or name in self.vault.known_profiles():
            return True
        return name in self.vault.profiles()

    def cut_words(self, words: Sequence[str]) -> tuple[str, Sequence[str]]:
        """Cut what stands right of ``--`` into profile and command: the profile is first, as in
        aws-vault, unless $AWS_PROFILE is set and the first word is no profile."""
        if not words or (self.world.environ.get("AWS_PROFILE") and not self.has_profile(words[0])):
            return "", words
        return words[0], words[1:]

    def _hint_for_profile(self, name: str, stored: Sequence[str]) -> str:
        shown = printable(name)
        if self.config.has_section(name):
            return f"the config has [{shown}]: for a profile write [profile {shown}]"
        similar = closest(name, {*self.config.profile_names(), *stored})
        if not similar and self.world.has_program(name):
            return f"the profile comes first, as in awsvault exec PROFILE -- {shown}"
        return similar or f"awsvault add {shown}"

    def resolve(self, profile: str, duration: str = "", region: str = "") -> ProfileConfig:
        """Resolve a profile with the command line's own settings over it.

        A duration that it has without being asked is none: the same sessions serve.
        """
        usual = self._load_profile(profile, {"region": region})
        if not duration:
            return usual
        names = ("duration_seconds", "session_ttl", "chained_session_ttl")
        asked = self._load_profile(profile, {"region": region, **dict.fromkeys(names, duration)})
        if usual.role_arn:
            return usual if asked.role_duration.length == usual.role_duration.length else asked
        return usual if asked.session_duration.length == usual.session_duration.length else asked

    def _load_profile(self, profile: str, flags: Mapping[str, str]) -> ProfileConfig:
        return self._by_names(
            lambda stored: load_profile(self.config, profile, flags, self.world.environ, stored)
        )

    def _by_names(self, decide: Callable[[list[str]], T]) -> T:
        """Decide by the remembered names of stored keys; if that fails, by those that are there."""
        known = self.vault.known_profiles()
        try:
            return decide(known)
        except AwsVaultError:
            stored = self.vault.profiles()
            if sorted(stored) == sorted(known):
                raise
            return decide(stored)

    def retrieve(
        self,
        target: ProfileConfig,
        *,
        no_session: bool,
        mfa_token: Secret | None,
        least: datetime.timedelta | None = None,
        early: bool = False,
    ) -> Credentials:
        """Get a profile's credentials by its chain, and say what the user should know.

        They have ``least`` left (AwsVaultError, before anybody is asked where that can't be), and
        are made anew if ``early`` finds them in the last part of their life.
        """
        self.tell_unfinished()
        tools = self.tools(self.codes(mfa_token), for_server=early, least=least)

        def act(provider: Provider) -> Credentials:
            check_duration(target, provider, tools, least)
            return provider.retrieve(tools)

        credentials = self.carry_out(target, act, no_session=no_session, early=early)
        check_left(target, credentials, least, self.world.now())
        return credentials

    def carry_out(
        self,
        target: ProfileConfig,
        act: Callable[[Provider], T],
        *,
        no_session: bool = False,
        early: bool = False,
    ) -> T:
        """Decide on a chain and act on it; on another one if a remembered name turns out to be
        gone."""
        provider = self.planned(target, no_session=no_session, early=early).provider
        try:
            return act(provider)
        except (ItemNotFound, ForeignEntry) as error:
            try:
                current = plan_chain(
                    target,
                    self.vault.profiles(),
                    no_session=no_session,
                    always_session=early and not no_session,
                ).provider
            except AwsVaultError as without:
                raise (error if isinstance(error, ForeignEntry) else without) from None
            if current == provider:
                raise
            return act(current)

    def planned(self, target: ProfileConfig, *, no_session: bool, early: bool) -> Plan:
        """Decide on a chain, and say what the user should know; ``early``: as a server does."""
        always = early and not no_session
        plan = self._by_names(
            lambda stored: plan_chain(target, stored, no_session=no_session, always_session=always)
        )
        for note in plan.notes:
            self.world.say_once(f"note: {note}")
        if self._codes and self._codes.given and not asks_for_code(plan.provider):
            self.world.say_once(
                f"note: {printable(target.name)!r} has no mfa_serial, so the MFA code is not used"
            )
        self.world.debug(f"chain: {printable(plan.provider.describe())}")
        return plan

    def codes(self, mfa_token: Secret | None) -> MfaCodes:
        """Return where codes come from: the one that was given is for one device, and not given
        twice."""
        self._codes = self._codes or MfaCodes(self.world, mfa_token, self.options.prompt)
        return self._codes

    def tools(
        self,
        codes: MfaCodes,
        *,
        for_server: bool = False,
        least: datetime.timedelta | None = None,
    ) -> Tools:
        """Return what providers act with; the last link has ``least`` left, where that is given."""
        usual = self.min_ttl()
        return Tools(
            self.world,
            self.vault,
            Aws(self.world),
            codes,
            max(usual, least) if least else usual,
            usual if least else None,
            for_server=for_server,
        )

    def remembered_flags(self) -> list[str]:
        """Return the flags that lead a later start in this folder to the same credentials of the
        same vault; no secret."""
        return [*self.options.flags, f"--backend={self.vault.keystore.name}"]

    def renewal_hint(self, profile: str) -> str:
        """Return how the user makes the session anew that a command waits for: one that was made
        for a duration serves only where that is asked for."""
        duration = self.options.duration
        flag = f"--duration={printable(duration)} " if duration else ""
        return f"run awsvault exec {flag}{printable(profile)} in another terminal to renew"

    def min_ttl(self) -> datetime.timedelta:
        """Return how much of its life a cached session must have left."""
        text = self.world.environ.get("AWS_MIN_TTL", "")
        try:
            return parse_duration(text) if text else datetime.timedelta(minutes=5)
        except ValueError as error:
            raise UsageError(
                f"AWS_MIN_TTL: {printable(text)!r} is {error}", getattr(error, "hint", "")
            ) from None

    def refuse_nesting(self, *, nested: bool) -> None:
        """Refuse to hand out credentials inside a command that has some already, unless that is
        meant: then its region is the outer profile's, and not taken."""
        outer = self.world.environ.get("AWS_VAULT", "")
        if outer and nested:
            for name in REGION_VARIABLES:
                self.world.environ.pop(name, None)
        elif outer:
            raise AwsVaultError(
                f"this is already a shell or command with credentials of {printable(outer)!r}",
                NESTED_HINT,
            )

    def dependents(self, profile: str) -> set[str]:
        """Return the profiles whose sessions hang on the keys stored for one, itself included."""
        stored = self.vault.candidates()
        found = {profile}
        for name in {session.profile for session in self.vault.sessions()} - found:
            try:
                chain = find_keys(
                    load_profile(self.config, name, {}, {}, stored), frozenset([*stored, profile])
                )
            except AwsVaultError:
                continue
            if chain[-1].name == profile:
                found.add(name)
        return found


def read_mfa_token(world: World, token: str, fd: str) -> Secret | None:
    """Return the MFA code of --mfa-token (``-`` reads a line of standard input) or --mfa-token-fd,
    if given."""
    if fd:
        return _read_fd(world, "--mfa-token-fd", fd).stripped()
    if token == "-":
        return world.read_line(0).stripped()
    return Secret(token) if token else None


MAX_DESCRIPTOR = 2**24


def _number(name: str, text: str, least: int, most: int, fault: str = "") -> int:
    try:
        return parse_int(text, least, most)
    except ValueError as error:
        raise UsageError(f"{name}: {shortened(text)!r} {fault or f'is {error}'}") from None


def _read_fd(world: World, name: str, text: str) -> Secret:
    fd = _number(name, text, 0, MAX_DESCRIPTOR, "is no descriptor's number")
    if fd in (1, 2):
        raise UsageError(f"{name}: descriptors 1 and 2 are what is printed to")
    try:
        return Secret(world.read_descriptor(fd, MAX_PASSPHRASE_BYTES)).without_newline()
    except OSError as error:
        raise UsageError(f"{name}: can't read descriptor {text}: {os_reason(error)}") from None


def add_command(
    app: App, *, profile: str, env: bool, add_config: bool, force: bool, verify: bool | None
) -> int:
    """Store a profile's long-lived keys, and give it a section in the config file."""
    world = app.world
    with world.quiet_terminal():
        app.vault.refuse_profile(profile)
        if app.config.section(profile_section(profile)).get("source_profile", profile) != profile:
            raise AwsVaultError(
                f"profile {printable(profile)!r} takes its keys from its source_profile, so keys "
                "stored for it would not be used",
                "store them for the source_profile, or remove that line",
            )
        new_section = add_config and not app.config.has_profile(profile)
        replaced = profile in app.vault.profiles()
        if replaced and not force and (world.can_ask() or not env):
            question = f"Replace the credentials stored for {printable(profile)!r}?"
            if not confirmed(world, question, "--force"):
                return 0
        keys = _keys_from_environment(world) if env else _keys_from_user(world)
        mfa_serial = "" if env or not new_section else _mfa_serial_from_user(world)
        if verify is None and not env:
            verify = confirmed(world, "Check the key with AWS before it is stored?", "--no-verify")
        if verify:
            _verify_keys(app, profile, keys)
        app.vault.store_credentials(profile, keys)
    if replaced:
        world.say(f"note: the credentials that were stored for {printable(profile)!r} are replaced")
    removed = app.vault.delete_sessions(app.dependents(profile))
    if new_section:
        _append_section(app, profile, mfa_serial)
    world.out(f'Added credentials to profile "{printable(profile)}" in vault\n')
    if removed:
        world.out(f"Deleted {counted(removed, 'existing session')}\n")
    return 0


def confirmed(world: World, question: str, instead: str) -> bool:
    """Ask a yes-or-no question, whose answer is no unless it is yes."""
    answer = world.ask(f"{question} (y|N)", instead=f"give {instead}", shown=is_word)
    return answer.stripped().reveal().lower() in ("y", "yes")


def is_word(text: str) -> bool:
    """Return True for a text so short that it is no secret."""
    return len(text) < 4


def _verify_keys(app: App, profile: str, keys: Credentials) -> None:
    """Ask AWS whose keys they are, and show it (AwsError if it does not take them)."""
    known = app.config.has_profile(profile)
    target = app.resolve(profile if known else "default")
    answer = Aws(app.world).call("sts", "GetCallerIdentity", {}, keys, target.endpoint)
    account, user = (printable(answer.get(name, "?")) for name in ("Account", "Arn"))
    app.world.out(f"Account {account}, {user}\n")


def _keys_from_environment(world: World) -> Credentials:
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    for name in names:
        if not world.environ.get(name):
            raise UsageError(f"--env: {name} is not set", f"export {' and '.join(names)}")
    key_id, secret = (Secret(world.environ[name]) for name in names)
    return Credentials(read_key_id(key_id), read_secret_key(world, secret))


def _keys_from_user(world: World) -> Credentials:
    instead = "export AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and give --env"
    key_id = ask_until_right(world, "Access key ID", read_key_id, instead=instead, shown=is_key_id)
    secret = ask_until_right(
        world,
        "Secret access key",
        lambda text: read_secret_key(world, text),
        hidden=True,
        instead=instead,
    )
    return Credentials(key_id, secret)


def _mfa_serial_from_user(world: World) -> str:
    def read(text: Secret) -> str:
        answer = text.stripped().reveal()
        try:
            return answer and SETTINGS["mfa_serial"].read(answer)
        except ValueError as error:
            # What is no ARN may be a secret that was meant for another question.
            raise UsageError(f"the device's ARN: that is {error}", "try again") from None

    question = "ARN of the MFA device (empty if there is none)"
    return ask_until_right(world, question, read, instead="give --env", shown=is_arn)


def is_arn(text: str) -> bool:
    """Return True for what begins as an ARN does."""
    return text.startswith("arn:")


def _append_section(app: App, profile: str, mfa_serial: str) -> None:
    """Add a profile's section at the end of the config file, which is never rewritten."""
    world, path = app.world, app.config.path
    text = f"\n{profile_header(profile)}\n" + (f"mfa_serial = {mfa_serial}\n" if mfa_serial else "")
    try:
        if not world.environ.get("AWS_CONFIG_FILE"):
            world.own_home()
        with world.lock("config", world.real_path(path), doing="writing the config file"):
            config = load_config(world)
            if not config.has_profile(profile):
                world.make_folder(os.path.dirname(os.path.abspath(path)))
                empty = not config.text
                world.append_file(
                    path, text.lstrip("\n" if empty else "").encode("utf-8", "surrogateescape")
                )
    except (OSError, AwsVaultError) as error:
        reason = os_reason(error) if isinstance(error, OSError) else str(error)
        raise AwsVaultError(
            f"the keys are stored, but {printable(path)} can't be written: {reason}",
            "add the section by hand",
        ) from None


LIST_HEADER = (("Profile", "Credentials", "Sessions"), ("=======", "===========", "========"))
MAX_COLUMN = 24  # so that two names and a session's words fit 80 columns


def list_command(
    app: App, *, profiles: bool, sessions: bool, credentials: bool, json: bool = False
) -> int:
    """Show profiles, stored keys and sessions; nothing is decrypted, and nobody is asked."""
    world = app.world
    if json:
        world.out(go_json(listed(app)) + "\n")
        return 0
    stored = app.vault.profiles()
    labels = session_labels(app.vault, world.now())
    rows: Iterable[Sequence[str]]
    if credentials:
        rows = [(name,) for name in stored]
    elif profiles:
        rows = [(name,) for name in app.config.profile_names()]
    elif sessions:
        rows = [(owner or "-", label) for owner, label in labels]
    else:
        rows = [*LIST_HEADER, *_list_rows(app.config.profile_names(), stored, labels)]
    world.out(format_table(rows))
    app.tell_unfinished()
    weak = 0 if credentials or profiles or sessions else app.vault.keystore.weak_items()
    if weak:
        world.say(
            f"note: aws-vault's weaker protection is on {counted(weak, 'stored item')}; keys get "
            "ours when they are next read"
        )
    return 0


def listed(app: App) -> dict[str, object]:
    """Return what there is, in the form that docs/reference.md promises."""
    vault, stored, configured = app.vault, app.vault.profiles(), app.config.profile_names()
    now = app.world.now().timestamp()
    times = {name: vault.keystore.stored_since(name) for name in stored}
    since = {name: format_time(time) if time else None for name, time in times.items()}
    rows = [
        {
            "profile": session.profile,
            "kind": session_kind(session),
            "mfa_serial": session.third.partition("#")[0],
            "expires": format_time(unix_time(session.expires)),
            "expired": session.expires <= now,
        }
        for session in vault.sessions()
        if session.expires < 2**40
    ]
    return {
        "version": 1,
        "keystore": vault.keystore.name,
        "profiles": [
            {
                "name": name,
                "in_config": name in configured,
                "stored": name in stored,
                "stored_since": since.get(name),
            }
            for name in dict.fromkeys([*configured, *stored])
        ],
        "sessions": rows,
        "sso_tokens": [key[len(TOKEN_PREFIX) :] for key in vault.tokens()],
        "unfinished_rotations": Journals(vault.keystore).profiles(),
    }


def session_labels(vault: Vault, now: datetime.datetime) -> list[tuple[str, str]]:
    """Return the label of each token and session, with the profile it belongs to ("" for a
    token)."""
    tokens = [("", f"SSO token of {key[len(TOKEN_PREFIX) :]}") for key in vault.tokens()]
    return tokens + [
        (session.profile, _session_label(session, session.expires - int(now.timestamp())))
        for session in vault.sessions()
        if session.expires < 2**40
    ]


def session_kind(session: SessionKey) -> str:
    """Return the word for a kind of session, or its type if it has none."""
    known = session.type.removeprefix("awsvault.")
    return next((words for words, type in SESSION_TYPES.items() if type == known), session.type)


def _session_label(session: SessionKey, left: int) -> str:
    kind = session_kind(session)
    device = " with MFA" if session.third.partition("#")[0] else ""
    return f"{kind}{device}, " + (format_duration(left) if left > 0 else "expired")


def _list_rows(
    profiles: Sequence[str], stored: Sequence[str], labels: Sequence[tuple[str, str]]
) -> Iterator[tuple[str, str, str]]:
    for name in profiles:
        for label in [label for owner, label in labels if owner == name] or ["-"]:
            yield name, name if name in stored else "-", label
    for name in stored:
        if name not in profiles:
            yield "-", name, "-"
    for owner, label in labels:
        if owner not in profiles:
            yield "-", "-", f"{label} ({owner})" if owner else label


def format_table(rows: Iterable[Sequence[str]]) -> str:
    """Write rows in columns with two blanks between them and none at the end.

    A cell of more than MAX_COLUMN characters moves what follows it in its own row only.
    """
    cells = [list(map(printable, row)) for row in rows]
    widths = [
        max((len(cell) for cell in column if len(cell) <= MAX_COLUMN), default=0)
        for column in zip(*cells)
    ]
    widths[-1:] = [0]
    return "".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths)) + "\n" for row in cells
    )


def exec_command(
    app: App,
    *,
    profile: str | None,
    command: Sequence[str],
    duration: str,
    no_session: bool,
    region: str,
    mfa_token: str,
    mfa_token_fd: str,
    json: bool,
    nested: bool = False,
    process: Sequence[str] = (),
    min_ttl: str = "",
    **server_flags: bool,
) -> int:
    """Run a command, or a shell, with a profile's credentials, in place of this process.

    They stand in its environment, or come from a local server if one of ``server_flags`` asks for
    one, or from this program itself, which SDKs start for each profile in ``process``.
    """
    world = app.world
    if profile is None:
        profile, command = ("", command) if process else app.cut_words(command)
    if json:
        refuse_together(
            {**server_flags, "process": bool(process)},
            "--json prints credentials and starts nothing",
        )
        return export_command(
            app, profile=profile, format="json", duration=duration, no_session=no_session,
            region=region, mfa_token=mfa_token, mfa_token_fd=mfa_token_fd, nested=nested,
        )  # fmt: skip
    app.refuse_nesting(nested=nested)
    if process:
        refuse_together(server_flags, "--process starts no server")
        check_process_names(profile, process, world.environ)
    mode = server_mode(world, no_session=no_session, **server_flags)
    token = read_mfa_token(world, mfa_token, mfa_token_fd)
    words = list(command) if command and command[0] else [default_shell(world.environ)]
    profile = profile if process else app.known_profile(profile)
    path = world.find_program(words[0])
    least = parse_duration(min_ttl) if min_ttl else None
    if process:
        flags = {"duration": duration, "no_session": no_session, "region": region}
        child = process_mode(app, process, flags, token, least)
    else:
        target = app.resolve(profile, duration, region)
        if mode:
            child = serve_command(app, target, mode, token, least)
        else:
            found = app.retrieve(target, no_session=no_session, mfa_token=token, least=least)
            region = target.endpoint.region
            child = ChildEnvironment(child_environment(world.environ, target.name, found, region))
    for note in child.notes:
        world.say_once(note)
    if (
        not command
        and world.is_terminal(1)
        and world.environ.get("AWS_VAULT_DISABLE_HELP_MESSAGE") != "1"
    ):
        world.say(
            f"started {printable(words[0])} with credentials of "
            f"{printable(child.environ['AWS_VAULT'])!r}; exit leaves it"
        )
    world.replace_process(path, words, child.environ)


def refuse_together(flags: Mapping[str, bool], why: str) -> None:
    """Refuse flags that are given beside another one, for which ``why`` speaks (UsageError)."""
    given = next((name for name, value in flags.items() if value), "")
    if given:
        raise UsageError(
            f"{why}, so --{given.replace('_', '-')} can't be with it", "leave one of them away"
        )


def process_mode(
    app: App,
    process: Sequence[str],
    flags: Mapping[str, Any],
    token: Secret | None,
    least: datetime.timedelta | None,
) -> ChildEnvironment:
    """Start the server that answers what SDKs start in the command, for each of the profiles, and
    return the command's environment."""
    world = app.world
    targets = [
        app.resolve(app.known_profile(name), flags["duration"], flags["region"])
        for name in dict.fromkeys(process)
    ]
    chains = tuple(
        served_chain(app, target, token, least, lazy=False, no_session=flags["no_session"])
        for target in targets
    )
    child = private_environment(world, app.config, targets, {}, process=True)
    try:
        mode = ServerMode(container=False, metadata=False, check_peer=False, process=True)
        state = ServerState(
            mode, world.life(), "", Secret(""), (PROCESS_HOST,), chains, other_role(targets[0]),
            child.folder,
        )  # fmt: skip
        start_server(world, state, world.listen_privately(child.folder))
    except BaseException:
        world.remove_run_folder(child.folder)
        raise
    return child


def process_command(app: App, *, folder: str, profile: str) -> int:
    """Answer an SDK inside a command (hidden): with what the command's server has."""
    app.world.out(ask_server(app.world, folder, profile))
    return 0


SERVER_FLAGS = (
    "server", "ecs_server", "ec2_server", "lazy", "imds_v1", "imds_any_user", "strict_peer",
    "link_local",
)  # fmt: skip


def server_mode(world: World, *, no_session: bool, **flags: bool) -> ServerMode | None:
    """Return what kind of server the flags ask for, None for no server; UsageError for what can't
    be together."""
    given = [f"--{name.replace('_', '-')}" for name in SERVER_FLAGS if flags[name]]
    if not given:
        return None
    container = flags["server"] or flags["ecs_server"]
    metadata = flags["ec2_server"] or (flags["server"] and not flags["lazy"])
    for wrong, why, hint in (
        (not (container or metadata), f"{given[0]} is about a server", "add --server"),
        (no_session, f"{given[0]} needs a session to renew from", "leave --no-session away"),
        (
            flags["lazy"] and metadata,
            "--lazy can't be with instance metadata, whose clients wait for one second",
            "use --ecs-server",
        ),
        (
            (flags["imds_v1"] or flags["imds_any_user"] or flags["link_local"]) and not metadata,
            f"{given[-1]} is about instance metadata",
            "use --ec2-server" + (" without --lazy" if flags["lazy"] else ""),
        ),
        (
            flags["link_local"] and sys.platform not in ALIAS_WORDS,
            "--link-local: not on this system",
            "use --ec2-server alone",
        ),
    ):
        if wrong:
            raise UsageError(why, hint)
    sees = can_see_peers(world)
    if flags["strict_peer"] and not sees:
        raise UsageError("--strict-peer: this system does not tell who asks", "leave it away")
    if metadata and not sees and not flags["imds_any_user"]:
        _refuse_open_metadata(world, container)
        metadata = False
    return ServerMode(
        container, metadata, flags["lazy"], flags["imds_v1"], flags["imds_any_user"],
        flags["strict_peer"], sees, flags["link_local"],
    )  # fmt: skip


def _refuse_open_metadata(world: World, container: bool) -> None:
    why = (
        "this system does not tell who asks for instance metadata, "
        "so every user of it would get the credentials"
    )
    if not container:
        raise UsageError(why, "use --ecs-server, or --imds-any-user if that is no harm")
    world.say(f"note: only the container endpoint is served: {why} (--imds-any-user serves both)")


def serve_command(
    app: App,
    target: ProfileConfig,
    mode: ServerMode,
    mfa_token: Secret | None,
    least: datetime.timedelta | None = None,
) -> ChildEnvironment:
    """Start the server for the command that this process becomes, and return the command's
    environment.

    The session that the server renews from is made first, so that whatever the user must do is done
    now.
    """
    world = app.world
    chain = served_chain(app, target, mfa_token, least, lazy=mode.lazy)
    port = ServerPort()
    token = Secret(b64url(world.random(30)))
    child = private_environment(
        world, app.config, [target], server_variables(mode, port.number, token)
    )
    state = ServerState(
        mode, world.life(), target.endpoint.region, token, server_hosts(mode, port.number),
        (chain,), other_role(target), child.folder,
    )  # fmt: skip
    try:
        borrowed = borrow_link_local(world, child.folder) if mode.link_local else []
        start_server(world, state, port.listener, borrowed)
        port.keep_for_command()
    except BaseException:
        world.remove_run_folder(child.folder)
        raise
    if mode.link_local:
        unproxied = without_proxy(child.environ, [f"http://{LINK_LOCAL}/"])
        return child.replace(environ={**child.environ, **unproxied})
    return child


def served_chain(
    app: App,
    target: ProfileConfig,
    mfa_token: Secret | None,
    least: datetime.timedelta | None,
    *,
    lazy: bool,
    no_session: bool = False,
) -> ServedChain:
    """Make the credentials that a server begins with, and say how it renews them; ``lazy``: not the
    roles yet. Long-lived keys are refused: the server holds none."""
    tools = app.tools(app.codes(mfa_token), for_server=True, least=least)

    def act(provider: Provider) -> ServedChain:
        check_duration(target, provider, tools, least)
        session, roles = split_chain(provider)
        if not isinstance(provider, SessionProvider):
            raise AwsVaultError(
                f"the keys of {printable(target.name)!r} without a session would be long-lived "
                "ones, which no process beside the command may hold",
                "leave --no-session away, or --process",
            )
        source = session.retrieve(tools) if session else None
        return ServedChain(
            target.name,
            provider.duration,
            None if lazy and roles else provider.retrieve(tools),
            source,
            tuple(map(unfiled, roles)),
            (*app.world.self_command(), RENEW_COMMAND, *app.remembered_flags(), "--", target.name),
            app.renewal_hint(target.name),
        )

    chain = app.carry_out(target, act, early=True, no_session=no_session)
    held = chain.current or chain.source
    if held:
        check_left(target, held, least, app.world.now())
    if chain.life < TOO_SHORT_FOR_SERVER:
        app.world.say(
            f"warning: {format_duration(chain.life)} is too short for a server: "
            "some SDKs then ask at every call, or sign with what has ended"
        )
    return chain


def server_hosts(mode: ServerMode, port: int) -> tuple[str, ...]:
    """Return the Host headers that a server answers to."""
    own = (f"{LOOPBACK}:{port}",)
    return (*own, LINK_LOCAL, f"{LINK_LOCAL}:{LINK_LOCAL_PORT}") if mode.link_local else own


def link_local_command(app: App, *, folder: str) -> int:
    """Lend 169.254.169.254 to the command whose folder this is, as root, until its server ends."""
    world = app.world
    if world.uid() != 0:
        raise AwsVaultError("root alone can add an address", "exec --link-local starts this itself")
    connection, pid = world.connect_to(folder, LINK_NAME, sudo_id(world, "SUDO_UID"))
    with RaisedSignals(), connection, LinkLocal(world, pid) as link:
        with link.listen() as listener:
            world.send_socket(connection, listener)
        link.keep(connection)
    return 0


def sudo_id(world: World, name: str) -> int:
    """Return who called sudo; root himself if nobody did."""
    return _number(name, world.environ.get(name, "0"), 0, 2**32 - 2, "is no user's number")


def other_role(target: ProfileConfig) -> AssumeRole:
    """Return the form of the roles that /role-arn/ assumes: the profile's duration, at most an
    hour, and nothing else of it."""
    length = min(max(target.role_duration.length, MIN_SESSION), MAX_CHAINED_ROLE)
    return AssumeRole(StoredKeys(""), SessionSlot("", ""), target.endpoint, length)


def background_command(work: Callable[[World], None]) -> Callable[..., int]:
    """Return the hidden command that does this. Its word, the id of the process that it belongs to,
    shows in a list of processes."""

    def run(app: App, *, pid: str) -> int:  # noqa: ARG001
        work(app.world)
        return 0

    return run


# AWS's words for what asking again does not change, and for a session that is over.
FINAL_REFUSALS = frozenset(
    ("AccessDenied", "ValidationError", "MalformedPolicyDocument", "RegionDisabledException")
)
ENDED_SESSION = frozenset(("ExpiredToken", "ExpiredTokenException", "InvalidClientTokenId"))


class CarefulCodes(MfaCodes):
    """MFA codes for a process without a terminal: from mfa_process or a window, and not at all when
    ``quiet``."""

    def __init__(self, world: World, prompter: str, *, quiet: bool) -> None:
        super().__init__(world, None, prompter)
        self.quiet = quiet
        self.asked = False

    def code(self, mfa: Mfa) -> Secret:
        chosen = choose_prompter(self.world, self.prompter)
        if self.quiet or (chosen == "terminal" and not mfa.process):
            raise NeedsUser(f"MFA code for {printable(mfa.serial)}: nobody is asked now")
        self.asked = True
        return super().code(mfa)


def renew_command(app: App, *, profile: str, duration: str, region: str, no_session: bool) -> int:
    """Fetch credentials for a server (hidden): the task on standard input, the answer on standard
    output."""
    world = app.world
    world.forbid_memory_access(die_with_parent=True)
    task = read_task(world, RenewTask)
    codes = CarefulCodes(world, app.options.prompt, quiet=task.quiet)
    try:
        if task.source:
            answer = _renew_from_session(app, codes, task.source, task.links)
        else:
            target = app.resolve(profile, duration, region)
            answer = _remake(app, codes, target, task.held_until, no_session=no_session)
    except AwsVaultError as error:
        code = error.code if isinstance(error, AwsError) else ""
        answer = Renewed(
            failure=Failure(
                error.message,
                never=code in FINAL_REFUSALS,
                needs_user=isinstance(error, NeedsUser),
                restart=isinstance(error, VaultClosed),
                expired=code in ENDED_SESSION,
                asked=codes.asked,
            )
        )
    world.out(go_json(answer.members()))
    return 0


class VaultClosed(NeedsUser):
    """The vault does not open without the user."""


def _renew_from_session(
    app: App, codes: MfaCodes, source: Credentials, links: Iterable[AssumeRole]
) -> Renewed:
    tools = app.tools(codes)
    for link in links:
        source = link.request(tools, source)
    return Renewed(source)


def _remake(
    app: App,
    codes: MfaCodes,
    target: ProfileConfig,
    held_until: datetime.datetime | None,
    *,
    no_session: bool,
) -> Renewed:
    """Make the session that a server renews from once more, or adopt one that was made in
    another terminal."""
    stored = app.vault.profiles()
    plan = plan_chain(target, stored, no_session=no_session, always_session=not no_session)
    session, _ = split_chain(plan.provider)
    tools = app.tools(codes, for_server=True)
    try:
        plan.provider.made_from(tools)
    except NeedsUser as error:
        raise VaultClosed(error.message, error.hint) from None
    try:
        source = session.retrieve(tools) if session else None
        return Renewed(plan.provider.retrieve(tools), source)
    except NeedsUser:
        # What `exec` without a server keeps is not always the session that a server starts from.
        quiet = CarefulCodes(app.world, app.options.prompt, quiet=True)
        usual = plan_chain(target, stored, no_session=no_session)
        current = usual.provider.retrieve(app.tools(quiet))
        if held_until and current.expiration and current.expiration <= held_until:
            raise
        return Renewed(current)


def export_command(
    app: App,
    *,
    profile: str,
    format: str,
    duration: str,
    no_session: bool,
    region: str,
    mfa_token: str,
    mfa_token_fd: str,
    nested: bool = False,
) -> int:
    """Print a profile's credentials on standard output in a chosen form."""
    app.refuse_nesting(nested=nested)
    token = read_mfa_token(app.world, mfa_token, mfa_token_fd)
    target = app.resolve(app.known_profile(profile), duration, region)
    credentials = app.retrieve(target, no_session=no_session, mfa_token=token)
    app.world.out(EXPORT_FORMATS[format](target.name, credentials, target.endpoint.region))
    return 0


def remove_command(app: App, *, profile: str, sessions_only: bool, force: bool) -> int:
    """Remove a profile's stored keys and every session that hangs on them, or the sessions only."""
    world = app.world
    if sessions_only:
        removed = app.vault.delete_sessions([profile])
        world.out(f"Deleted {counted(removed, 'session')} of {printable(profile)!r}.\n")
        return 0
    if profile not in app.vault.candidates():
        raise ItemNotFound(
            f"no credentials are stored for profile {printable(profile)!r}",
            closest(profile, app.vault.profiles()),
        )
    if not force:
        question = f"Delete the credentials of {printable(profile)!r} and its sessions?"
        if not confirmed(world, question, "--force"):
            return 0
    dependents = app.dependents(profile)
    owners = sorted({session.profile for session in app.vault.sessions()} & dependents)
    app.vault.delete_credentials(profile)
    removed = app.vault.delete_sessions(dependents)
    world.out(f"Deleted the credentials of {printable(profile)!r}.\n")
    if removed:
        world.out(
            f"Deleted {counted(removed, 'session')} of "
            f"{', '.join(map(repr, map(printable, owners)))}.\n"
        )
    if not force:
        _offer_to_remove_section(app, profile)
    return 0


def _offer_to_remove_section(app: App, profile: str) -> None:
    """Ask whether the section that `add` made for a profile shall go, if nothing was written into
    it."""
    world, path = app.world, app.world.real_path(app.config.path)
    header = profile_header(profile).encode("utf-8", "surrogateescape")
    # A blank line before it is of `add`, too; behind it there is another section, or nothing.
    empty = re.compile(rb"(?m)(?:^\n)?^" + re.escape(header) + rb"\n(?=\s*(?:\[|\Z))")
    if len(empty.findall(world.read_file(path, MAX_CONFIG_BYTES) if app.config.text else b"")) != 1:
        return
    if app.config.section(profile_section(profile)):
        return  # merged with another one of that name
    question = f"Remove its empty section from {printable(app.config.path)}?"
    if not confirmed(world, question, "--force"):
        return
    with world.lock("config", path, doing="writing the config file"):
        data = empty.sub(b"", world.read_file(path, MAX_CONFIG_BYTES), count=1)
        world.write_atomic(path, data, os.path.dirname(path), keep_mode=True)
    world.out(f"Removed {printable(profile_header(profile))}.\n")


def import_command(
    app: App, *, profiles: Sequence[str], csv: str, keep: bool, dry_run: bool, replace: bool
) -> int:
    """Take access keys from the AWS credentials file, or from the console's CSV file, into the
    vault."""
    world, vault = app.world, app.vault
    path = world.expand(csv) if csv else credentials_path(world, world.environ)
    file = KeyFile(world, path)
    text = file.read()
    try:
        if csv:
            if len(profiles) > 1:
                raise UsageError("--csv takes one profile at most")
            found = keys_in_csv(world, text, "".join(profiles))
        else:
            found = keys_in_credentials(world, text)
    except UsageError as error:
        raise UsageError(f"{printable(path)}: {error.message}", error.hint) from None
    names = [key.profile for key in found]
    for name in profiles if not csv else ():
        if name not in names:
            raise UsageError(
                f"{printable(path)} has no long-lived key of {printable(name)!r}",
                closest(name, names),
            )
    chosen = [key for key in found if csv or not profiles or key.profile in profiles]
    taken = []
    for key in chosen:
        shown = f"{printable(key.profile)}: {masked(key.keys.access_key_id)}"
        if dry_run:
            there = key.profile in vault.profiles()
            world.out(f"{shown} {'is in the vault' if there else 'would be stored'}\n")
        elif keep_key(vault, key.profile, key.keys, replace=replace):
            taken.append(key)
            vault.delete_sessions(app.dependents(key.profile))
            world.out(f"{shown} is stored\n")
        else:
            world.say(f"note: {shown} is left: another key is in the vault (--replace)")
    if taken and not keep:
        file.remove(text, taken)
        world.out(f"Removed {counted(len(taken), 'key')} from {printable(path)}.\n")
    return 0 if dry_run or len(taken) == len(chosen) else 1


def migrate_command(
    app: App,
    *,
    to: str,
    profile: str,
    dry_run: bool,
    overwrite: bool,
    delete_source: bool,
    **source: str,
) -> int:
    """Copy stored keys from one keystore to another. A second run finishes an interrupted one."""
    world, settings, place = app.world, app.options.store, source["from"]
    for name in (flag for flag, text in (("--from", place), ("--to", to)) if not text):
        raise UsageError(f"{name} is missing", "awsvault backends shows the keystores")
    if place == to:
        raise UsageError("--from and --to name the same keystore", "name two")
    vault, target = (Vault(BACKENDS[name](world, settings), world) for name in (place, to))
    names = sorted(vault.profiles())
    if profile and profile not in names:
        raise ItemNotFound(
            f"no credentials are stored for {printable(profile)!r} in {place}",
            closest(profile, names),
        )
    names = [profile] if profile else names
    if dry_run or not names:
        world.out(f"{counted(len(names), 'key')} to copy from {place} to {to}\n")
        world.out("".join(f"  {printable(name)}\n" for name in names))
        return 0
    for name in names:
        target.refuse_profile(name)
    copied: dict[str, Credentials] = {}
    for name in names:
        keys = vault.credentials(name)
        if keep_key(target, name, keys, replace=overwrite):
            target.delete_sessions(app.dependents(name))
            copied[name] = keys
            world.out(f"{printable(name)} is in {to}\n")
        else:
            world.say(f"note: {printable(name)} is left: {to} has another key (--overwrite)")
    for name, keys in copied.items() if delete_source else ():
        if vault.credentials(name) != keys:
            raise AwsVaultError(
                f"another key was stored for {printable(name)!r} in {place} meanwhile",
                "run it again with --overwrite",
            )
        vault.delete_credentials(name)
        vault.delete_sessions([name])
    gone = f", and removed from {place}" if delete_source else ""
    world.out(f"{counted(len(copied), 'key')} copied and compared{gone}.\n")
    world.say(f"note: awsvault backends --use {to} uses it from now on")
    return 0 if [*copied] == names else 1


def rekey_command(app: App, *, new_passphrase_fd: str, new_passphrase_command: str) -> int:
    """Change the file vault's passphrase, and seal every item as strongly as new ones are."""
    world = app.world
    vault = open_file_keystore(world, app.options.store)
    folder = printable(vault.folder)
    if vault.finish_rekey():
        world.out(f"An earlier rekey of {folder} is finished: its new passphrase opens it.\n")
        return 0
    keys = [key for key in vault.keys() if is_credential_name(key)]
    if not keys:
        raise AwsVaultError(f"no credentials are stored in {folder}", "awsvault add PROFILE")
    for profile in map(printable, Journals(vault).profiles()):
        raise AwsVaultError(
            f"the rotation of {profile!r} is not finished", ROTATE_HINT.format(profile)
        )
    vault.get(keys[0])
    fd = new_passphrase_fd
    given = _read_fd(world, "--new-passphrase-fd", fd) if fd else None
    passphrase = Passphrase(world, given, new_passphrase_command)
    if passphrase.get(vault.folder, new=True) == vault.passphrase.get(vault.folder, new=False):
        raise UsageError("the new passphrase is the old one", "choose another one")
    count = vault.rekey(passphrase)
    world.out(f"Sealed {counted(count, 'stored item')} in {folder} by the new passphrase.\n")
    if world.environ.get(PASSPHRASE_VARIABLE):
        world.say(f"note: {PASSPHRASE_VARIABLE} has the old one")
    return 0


class RotateOptions(Value):
    """What was asked for about the rotation of each key."""

    doomed: str  # the id of the user's other key, which goes first
    resume: bool
    rollback: bool
    least_age: datetime.timedelta
    no_session: bool
    region: str


def rotate_command(
    app: App,
    *,
    profile: str,
    all: bool,
    replace: str,
    resume: bool,
    rollback: bool,
    older_than: str,
    print_policy: bool,
    no_session: bool,
    region: str,
    mfa_token: str,
    mfa_token_fd: str,
) -> int:
    """Put a new access key in the place of a stored one, and delete the old one at AWS."""
    if resume:
        refuse_together({"rollback": rollback}, "--resume finishes what --rollback undoes")
    if all:
        refuse_together({"replace": bool(replace)}, "--all rotates every stored key")
        if profile:
            raise UsageError("--all rotates every stored key", "name no profile beside it")
    if print_policy:
        target = app.resolve(app.known_profile(profile), region=region)
        text = rotation_policy(partition(target.endpoint.region), with_mfa=bool(target.mfa_serial))
        app.world.out(text)
        return 0
    app.codes(read_mfa_token(app.world, mfa_token, mfa_token_fd))
    least = parse_duration(older_than) if older_than else datetime.timedelta()
    options = RotateOptions(replace, resume, rollback, least, no_session, region)
    if not all:
        rotate_key(app, app.known_profile(profile), options)
        return 0
    status = 0
    done: set[str] = set()
    for name in app.vault.profiles():
        try:
            done |= set() if name in done else {*rotate_key(app, name, options)}
        except NeedsUser:
            raise
        except AwsVaultError as error:
            status = 1
            app.world.say(f"error: {printable(name)}: {error.message}")
            if error.hint:
                app.world.say(f"hint: {error.hint}")
    return status


def rotate_key(app: App, profile: str, options: RotateOptions) -> tuple[str, ...]:
    """Rotate the key that a profile's credentials come from, its own or a source's; return the
    profiles that it is stored for."""
    world, vault = app.world, app.vault
    chain = find_keys(app.resolve(profile, region=options.region), frozenset(vault.profiles()))
    keys = chain[-1]
    if keys.name != profile:
        world.say(
            f"note: {printable(profile)!r} gets its credentials from the key of "
            f"{printable(keys.name)!r}, which is rotated"
        )
    with world.lock("rotate", vault.keystore.identity(), doing="rotating a key"):
        journals = Journals(vault.keystore)
        rotation = journals.find(keys.name)
        if rotation and not (options.resume or options.rollback):
            shown = printable(rotation.profiles[0])
            raise AwsVaultError(
                f"an earlier rotation of {shown!r} was interrupted", ROTATE_HINT.format(shown)
            )
        if not rotation and (options.resume or options.rollback):
            world.say(f"there is no unfinished rotation of {printable(keys.name)!r}")
            return ()
        url = endpoint_url(Lookup(app.config, keys.name, {}, world.environ, active=True), "iam")
        iam = Iam(Aws(world), keys.endpoint.replace(url=url, regional=""), keys.endpoint)
        session = None if options.no_session else plan_key_session(chain)
        signer = session.retrieve(app.tools(app.codes(None))) if session else None
        rotator = Rotator(world, vault, iam, signer)
        if not rotation:
            rotation = rotator.begin(keys.name, options.doomed, options.least_age)
        if not rotation:
            return ()
        try:
            (rotator.undo if options.rollback else rotator.finish)(rotation)
        except AwsVaultError as error:
            if journals.profiles():
                further = ROTATE_HINT.format(printable(rotation.profiles[0]))
                error.hint = f"{error.hint}; {further}".lstrip("; ")
            raise
        for name in rotation.profiles:
            vault.delete_sessions(app.dependents(name))
        journals.drop(rotation)
        return rotation.profiles


def clear_command(app: App, *, profile: str) -> int:
    """Remove all sessions and SSO tokens, or those of one profile."""
    if profile and not any(session.profile == profile for session in app.vault.sessions()):
        app.known_profile(profile)
    removed = app.vault.delete_sessions([profile]) if profile else app.vault.delete_all_sessions()
    app.world.out(f"Cleared {counted(removed, 'session')}.\n")
    return 0


def backends_command(app: App, *, use: str, force: bool, verbose: bool) -> int:
    """Show which keystores can be used and what is in them, or choose one for every later run."""
    world, settings = app.world, app.options.store
    if use:
        refusal = probe_backend(world, settings, use).refusal
        if refusal and not (force or isinstance(refusal, LockedKeystore)):
            raise KeystoreError(
                f"{use} can't be used: {refusal.message}",
                f"{refusal.hint}; --force chooses it all the same".lstrip("; "),
            )
        if refusal:
            world.say(f"warning: {use} can't be used now: {refusal.message}")
        try:
            before = remembered_backend(world)[0] or app.options.backend
        except KeystoreError:  # what can't be read is what this mends
            before = ""
        remember_backend(world, use)
        world.out(f"{use} is used from now on\n")
        if before not in ("", use):
            world.say(
                f"note: keys in {before} stay there: awsvault migrate-backend --from {before} "
                f"--to {use} copies them"
            )
        if app.options.backend not in ("", use):
            world.say(f"note: --backend or AWS_VAULT_BACKEND names {app.options.backend}, and wins")
        return 0
    probes = {name: probe_backend(world, settings, name) for name in BACKENDS}
    try:
        choice = choose_backend(world, settings, app.options.backend, probes.__getitem__)
    except KeystoreError as error:
        choice = Choice("", "")
        world.say(f"warning: {error.message}")
    rows = [("Keystore", "Usable", "Credentials", "Sessions", "Used")]
    reasons = []
    for name, probe in probes.items():
        counts, why = _backend_state(world, settings, name, probe)
        used = name == choice.backend
        rows.append((name, "yes" if counts else "no", *(counts or "--"), "yes" if used else "-"))
        whys = (why, f"used: {choice.why}" if used else "")
        reasons += [f"{name}: {reason}" for reason in whys if reason]
    world.out(format_table(rows))
    if verbose:
        world.out("".join(f"{printable(line)}\n" for line in ["", *reasons]))
    return 0


def _backend_state(
    world: World, settings: StoreSettings, name: str, probe: Probe
) -> tuple[tuple[str, str] | None, str]:
    """Return how many credentials and sessions a keystore holds, as far as nobody is asked, or None
    if it can't be used; and the reason."""
    if probe.refusal:
        return None, probe.refusal.message
    if probe.state:  # listing could ask
        return ("-", "-"), probe.state
    try:
        vault = Vault(BACKENDS[name](world, settings), world)
        return (str(len(vault.profiles())), str(len(vault.sessions()))), ""
    except AwsVaultError as error:
        return None, error.message


def version_command(app: App, *, json: bool, verify: bool) -> int:
    """Print the version, every vendored version, or what a check of the packed file against its
    cache found."""
    world = app.world
    if verify:
        if world.bundle is None:
            raise UsageError("only the packed awsvault.pyz can be verified", "make pyz")
        findings = world.bundle.verify()
        try:
            world.load_library("cryptography")
        except AwsVaultError as error:
            findings.append(error.message)
        for finding in findings:
            world.say(f"error: {printable(finding)}")
        if not findings:
            world.out(f"{world.bundle.sha256()}  {printable(world.bundle.path)}\n")
            world.out("intact, not authentic: compare the sum with the published one\n")
        return 1 if findings else 0
    if json:
        own = {"awsvault": __version__, "python": sys.version.split()[0]}
        parts = world.bundle.manifest() if world.bundle else {}
        world.out(go_json({**own, "openssl": openssl_version(world), **parts}) + "\n")
    else:
        world.out(f"{__version__}\n")
    return 0


# ======================================================================
# Command line
# ======================================================================
# COMMANDS table, argv -> command, errors -> one line and an exit code.


class Option(Value):
    """One flag: its names, the variable that stands in for it, and how its text is checked."""

    names: tuple[str, ...]
    help: str
    env: str = ""
    boolean: bool = False
    default: object = ""
    choices: tuple[str, ...] = ()
    check: Callable[[str], object] | None = None
    hidden: bool = False
    repeated: bool = False
    value: str = ""  # what help calls its value, if not by the last word of the flag

    @property
    def dest(self) -> str:
        """The keyword argument that gets its value."""
        return self.names[0].lstrip("-").replace("-", "_")

    def takes_value(self) -> bool:
        """Return True if a word follows it."""
        return not self.boolean


class Command(Value):
    """One subcommand: its function, its flags, and the words it takes (``?``: may be left out;
    ``...``: a command)."""

    name: str
    run: Callable[..., int]
    help: str
    words: tuple[str, ...] = ()
    options: tuple[Option, ...] = ()
    aliases: tuple[str, ...] = ()
    hidden: bool = False


def switch(
    names: tuple[str, ...], text: str, *, default: bool = False, hidden: bool = False
) -> Option:
    """Return a boolean flag; its help is that of the form that is not the default."""
    return Option(names, text, boolean=True, default=default, hidden=hidden)


GLOBAL_OPTIONS = (
    switch(("--debug",), "say what happens, without secrets, on standard error"),
    Option(("--backend",), "the keystore", "AWS_VAULT_BACKEND", choices=tuple(BACKENDS)),
    Option(
        ("--prompt",),
        f"how to ask for a code: {', '.join(PROMPTERS)}",
        "AWS_VAULT_PROMPT",
        check=check_prompter,
    ),
    switch(("--input",), "never ask the user ($AWS_VAULT_NO_INPUT)", default=True),
    Option(
        ("--file-dir",),
        "folder of the file vault",
        "AWS_VAULT_FILE_DIR",
        default=StoreSettings.file_dir,
    ),
    Option(
        ("--file-passphrase-fd",),
        "read the file vault's passphrase from this descriptor ($AWS_VAULT_FILE_PASSPHRASE_FD)",
    ),
    Option(
        ("--file-passphrase-command",),
        "program that prints the file vault's passphrase ($AWS_VAULT_FILE_PASSPHRASE_COMMAND)",
    ),
    Option(
        ("--keychain",),
        "name of the macOS keychain",
        "AWS_VAULT_KEYCHAIN_NAME",
        default=StoreSettings.keychain,
    ),
    Option(
        ("--secret-service-collection",),
        "keyring of the Secret Service",
        "AWS_VAULT_SECRET_SERVICE_COLLECTION_NAME",
        default=StoreSettings.secret_service_collection,
    ),
    Option(
        ("--kwallet",), "name of KDE's wallet", "AWS_VAULT_KWALLET", default=StoreSettings.kwallet
    ),
    Option(
        ("--kwallet-folder",),
        "folder in KDE's wallet",
        "AWS_VAULT_KWALLET_FOLDER",
        default=StoreSettings.kwallet_folder,
    ),
    Option(("--pass-dir",), "folder of the password store", "AWS_VAULT_PASS_PASSWORD_STORE_DIR"),
    Option(("--pass-cmd",), "name of the pass or passage program", "AWS_VAULT_PASS_CMD"),
    Option(("--pass-prefix",), "folder in the password store", "AWS_VAULT_PASS_PREFIX"),
    switch(("--version",), "print the version"),
)
DURATION_OPTION = Option(
    ("--duration", "-d"),
    "how long the credentials shall last: 90m, 1h30m",
    "AWS_VAULT_DURATION",
    check=parse_duration,
)
REGION_OPTION = Option(("--region",), "the AWS region ($AWS_REGION, $AWS_DEFAULT_REGION)")
NO_SESSION_OPTION = switch(
    ("--no-session", "-n"), "no GetSessionToken: a profile without a role gives its stored keys"
)
# What a later process that gets the same credentials is told of them.
SESSION_OPTIONS = (DURATION_OPTION, NO_SESSION_OPTION, REGION_OPTION)
MFA_OPTIONS = (
    Option(("--mfa-token", "-t"), "the MFA code; - reads it from standard input"),
    Option(("--mfa-token-fd",), "read the MFA code from this descriptor"),
)
CREDENTIAL_OPTIONS = (
    *SESSION_OPTIONS,
    *MFA_OPTIONS,
    switch(("--nested",), "also inside a command or shell that has credentials already"),
)
ADD_OPTIONS = (
    switch(("--env",), "take the key from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
    switch(("--add-config",), "add no section to the AWS config file", default=True),
    switch(("--force", "-f"), "replace stored keys without asking"),
    Option(
        ("--verify",),
        "ask AWS whose key it is, before it is stored (--no-verify: do not offer it)",
        boolean=True,
        default=None,
    ),
)
MIGRATE_OPTIONS = (
    Option(("--from",), "the keystore that has the keys", choices=tuple(BACKENDS)),
    Option(("--to",), "the keystore that gets them", choices=tuple(BACKENDS)),
    Option(("--profile",), "only this one"),
    switch(("--dry-run",), "only show what would be done"),
    switch(("--overwrite",), "also over another key there"),
    switch(("--delete-source",), "remove the keys where they were, when all are copied"),
)
REKEY_OPTIONS = (
    Option(("--new-passphrase-fd",), "read the new passphrase from this descriptor"),
    Option(("--new-passphrase-command",), "program that prints the new passphrase"),
)
IMPORT_OPTIONS = (
    Option(("--csv",), "take the key from a CSV file of the AWS console", value="FILE"),
    switch(("--keep",), "leave the keys in the file"),
    switch(("--dry-run",), "only show what would be done"),
    switch(("--replace",), "also over another key in the vault"),
)
ROTATE_OPTIONS = (
    NO_SESSION_OPTION,
    REGION_OPTION,
    *MFA_OPTIONS,
    Option(("--replace",), "delete the user's other key first", value="KEYID"),
    switch(("--resume",), "finish a rotation that was interrupted"),
    switch(("--rollback",), "undo a rotation that was interrupted"),
    Option(
        ("--older-than",),
        "only if the key is older: 90d",
        check=parse_duration,
        value="DURATION",
    ),
    switch(("--all",), "every stored key"),
    switch(("--print-policy",), "print the IAM policy that a rotation needs"),
)
LIST_OPTIONS = (
    switch(("--json",), "as JSON, for programs"),
    switch(("--profiles",), "only the profiles of the config file"),
    switch(("--sessions",), "only the sessions"),
    switch(("--credentials",), "only the profiles with stored keys"),
)
SERVER_OPTIONS = (
    switch(("--server", "-s"), "serve the credentials, renewed for as long as the command runs"),
    switch(("--ecs-server",), "the container endpoint only"),
    switch(("--ec2-server",), "instance metadata only"),
    switch(("--lazy",), "fetch the role at the first request: container endpoint only"),
    switch(("--imds-v1",), "instance metadata also without its token"),
    switch(("--imds-any-user",), "instance metadata for every user of this machine"),
    switch(("--strict-peer",), "serve the command and what descends from it only"),
    switch(("--link-local",), f"with --ec2-server or --server: at {LINK_LOCAL} too, by sudo"),
)
EXEC_OPTIONS = (
    *CREDENTIAL_OPTIONS,
    switch(("--json", "-j"), "print credentials, as export --format=json does"),
    *SERVER_OPTIONS,
    Option(
        ("--process",),
        "let SDKs start awsvault for this profile; the first is the default, others may follow",
        repeated=True,
        default=(),
        value="PROFILE",
    ),
    Option(
        ("--min-ttl",),
        "how long the credentials must last at least, or the command is not started",
        check=parse_duration,
        value="DURATION",
    ),
)
EXPORT_OPTIONS = (
    *CREDENTIAL_OPTIONS,
    Option(("--format",), "the form", default="env", choices=tuple(EXPORT_FORMATS)),
)
REMOVE_OPTIONS = (
    switch(("--force", "-f"), "do not ask"),
    switch(("--sessions-only", "-s"), "keep the keys"),
)
BACKENDS_OPTIONS = (
    Option(("--use",), "use this keystore from now on", choices=tuple(BACKENDS)),
    switch(("--force", "-f"), "choose it even if it can't be used now"),
    switch(("--verbose", "-v"), "with the reasons"),
)
VERSION_OPTIONS = (
    switch(("--json",), "with the version of every part"),
    switch(("--verify",), "compare the file with what is unpacked of it"),
)
PROFILE, MAYBE_PROFILE = ("profile",), ("profile?",)
EXEC_WORDS, MANY_PROFILES = ("profile?", "command..."), ("profiles...",)
COMMANDS = (
    Command("add", add_command, "store a profile's access key", PROFILE, ADD_OPTIONS),
    Command("list", list_command, "show what is stored", (), LIST_OPTIONS, ("ls",)),
    Command("exec", exec_command, "run a command with credentials", EXEC_WORDS, EXEC_OPTIONS),
    Command("export", export_command, "print credentials", MAYBE_PROFILE, EXPORT_OPTIONS),
    Command("import", import_command, "take keys from a file", MANY_PROFILES, IMPORT_OPTIONS),
    Command(
        "migrate-backend", migrate_command, "copy keys to another keystore", (), MIGRATE_OPTIONS
    ),
    Command("rekey", rekey_command, "change the file vault's passphrase", (), REKEY_OPTIONS),
    Command(
        "rotate", rotate_command, "put a new access key in place", MAYBE_PROFILE, ROTATE_OPTIONS
    ),
    Command("remove", remove_command, "remove stored keys", PROFILE, REMOVE_OPTIONS, ("rm",)),
    Command("clear", clear_command, "remove sessions", MAYBE_PROFILE),
    Command("backends", backends_command, "show the keystores", (), BACKENDS_OPTIONS),
    Command("version", version_command, "print the version", (), VERSION_OPTIONS),
    Command(
        SERVE_COMMAND,
        background_command(serve),
        "be the server of a command",
        ("pid",),
        hidden=True,
    ),
    Command(PROCESS_COMMAND, process_command, "answer an SDK", ("folder", "profile"), hidden=True),
    Command(LINK_COMMAND, link_local_command, f"lend {LINK_LOCAL}", ("folder",), hidden=True),
    Command(
        RENEW_COMMAND,
        renew_command,
        "fetch credentials for a server",
        PROFILE,
        SESSION_OPTIONS,
        hidden=True,
    ),
)


# Commands of aws-vault's -> what helps those who know them.
NOT_HERE = {
    **dict.fromkeys(
        ("server", "proxy"), "exec --server needs none, exec --link-local starts its own"
    ),
    "login": "it is not there yet",
}


class ParsedLine(Value):
    """A command line cut up: the command, its flags as tokens, its words."""

    command: Command | None
    flags: tuple[str, ...]
    words: tuple[str, ...]
    before_marker: int = 0  # how many of the words stand before the --
    help: bool = False


def find_command(name: str) -> Command:
    """Return the subcommand of that name or alias (UsageError)."""
    for command in COMMANDS:
        if name == command.name or name in command.aliases:
            return command
    shown = [command for command in COMMANDS if not command.hidden]
    names = [name for command in shown for name in (command.name, *command.aliases)]
    # Not so far a cast that a mistyped word leads to remove.
    hint = NOT_HERE.get(name) or closest(name, [*names, "help"], 0.7) or "awsvault help"
    raise UsageError(f"no command {printable(name)!r}", hint)


def cut_line(argv: Sequence[str]) -> ParsedLine:
    """Cut up a command line: flags may stand anywhere before the first ``--``, what follows it is
    taken as it is."""
    end = argv.index("--") if "--" in argv else len(argv)
    tokens, literal = list(argv[:end]), list(argv[end + 1 :])
    command: Command | None = None
    flags: list[str] = []
    words: list[str] = []
    asked_help = False
    while tokens:
        token = tokens.pop(0)
        if token.startswith("-") and token != "-":
            _refuse_late_flag(command, words, token, end == len(argv))
            if token in ("--help", "-h"):
                asked_help = True
            elif token != "--no-help":
                flags += _flag_with_value(token, tokens, command)
        elif command is not None:
            words.append(token)
        elif token == "help":
            named = [word for word in tokens if word != "help" and not word.startswith("-")]
            command, asked_help = find_command(named[0]) if named else None, True
            tokens = []
        else:
            command = find_command(token)
    return ParsedLine(command, tuple(flags), tuple(words + literal), len(words), asked_help)


def _refuse_late_flag(
    command: Command | None, words: Sequence[str], token: str, no_marker: bool
) -> None:
    # Known to us or not: `exec prod kubectl get pods -n x` must not be read as our --no-session.
    if (
        command is not None
        and command.words[-1:] == ("command...",)
        and no_marker
        and len(words) > 1
    ):
        raise UsageError(
            f"the flag {printable(token)} stands after the command's first word",
            "put -- before the command",
        )


def _flag_with_value(token: str, rest: list[str], command: Command | None) -> list[str]:
    """Return a flag as argparse can't misread it: joined to the word that is its value
    (UsageError)."""
    options = (*GLOBAL_OPTIONS, *(command.options if command else ()))
    known = {name for option in options for name in option.names}
    if token.partition("=")[0] in {"--profile", "-p"} - known:
        raise UsageError(
            f"unknown flag {printable(token)}",
            "the profile is the first word, as in awsvault exec prod",
        )
    if token == "-v" and token not in known:
        return ["--version"]
    valued = {name for option in options if option.takes_value() for name in option.names}
    if token.startswith("--"):
        return [f"{token}={rest.pop(0)}"] if token in valued and rest else [token]
    for position, letter in enumerate(token[1:], 1):
        if f"-{letter}" in valued:
            if position == len(token) - 1 and rest:
                value = rest.pop(0)
                return [token + value] if value else [token, value]
            return [token]
    return [token]


def help_hint(command: Command | None) -> str:
    """Return the command line that shows the help in question."""
    return f"awsvault help {command.name}" if command else "awsvault help"


def make_parser(command: Command | None) -> argparse.ArgumentParser:
    """Build the parser of one subcommand's flags and the global ones."""
    # Our messages are English, and to look for a translation takes a millisecond of every start.
    argparse._ = str  # type: ignore[attr-defined]

    class Parser(argparse.ArgumentParser):
        def error(self, message: str) -> NoReturn:
            # argparse 3.9 to 3.15: "argument --region: expected one argument"
            flag, _, wrong = message.removeprefix("argument ").partition(": ")
            flag = max(flag.split("/"), key=len) if flag.startswith("-") else flag
            wrong = {
                "expected one argument": f"{flag} needs a value",
                "expected at least one argument": f"{flag} needs a value",
            }.get(wrong, f"{flag} takes no value" if "explicit argument" in wrong else message)
            raise UsageError(printable(wrong), help_hint(command))

    words = " ".join(_shown_word(word) for word in command.words) if command else "COMMAND ..."
    parser = Parser(
        prog=f"awsvault {command.name}" if command else "awsvault",
        usage=f"awsvault {command.name if command else ''} [flags] {words}".replace(
            "  ", " "
        ).rstrip(),
        description=command.help if command else None,
        add_help=False,
        allow_abbrev=False,
    )
    for title, options in (
        ("flags", command.options if command else ()),
        ("global flags", GLOBAL_OPTIONS),
    ):
        group = parser.add_argument_group(title)
        for option in options:
            _add_option(group, option)
    return parser


def _shown_word(word: str) -> str:
    if word.endswith("..."):
        return "[-- COMMAND ...]" if word == "command..." else f"[{word[:-4].upper()} ...]"
    return f"[{word[:-1].upper()}]" if word.endswith("?") else word.upper()


def _add_option(group: Any, option: Option) -> None:
    if not option.boolean:
        group.add_argument(
            *option.names,
            dest=option.dest,
            action="append",
            help=argparse.SUPPRESS if option.hidden else _option_help(option),
            metavar=option.value or option.dest.rpartition("_")[2].upper(),
        )
        return
    # Help shows the form that changes something; the other one is there as well.
    # aws-vault takes --no-no-session, too.
    negative = {opposite(option.names[0]): None, f"--no-{option.names[0][2:]}": None}
    for names, value in ((option.names, True), (tuple(negative), False)):
        shown = value is not option.default and not option.hidden
        group.add_argument(
            *names,
            dest=option.dest,
            action="append_const",
            const=value,
            help=_option_help(option) if shown else argparse.SUPPRESS,
        )


def opposite(name: str) -> str:
    """Return the form of a boolean flag that means the contrary."""
    return f"--{name[5:]}" if name.startswith("--no-") else f"--no-{name[2:]}"


def _option_help(option: Option) -> str:
    choices = f": {', '.join(option.choices)}" if option.choices else ""
    variable = f" (${option.env})" if option.env else ""
    return f"{option.help}{choices}{variable}"


def option_values(
    options: Iterable[Option], parsed: Mapping[str, Any], environ: Mapping[str, str]
) -> dict[str, Any]:
    """Return each flag's value: from the command line, else its variable if not empty, else its
    default (UsageError)."""
    values = {}
    for option in options:
        value, where = parsed.get(option.dest), option.names[0]
        if value is None and option.env and environ.get(option.env):
            value, where = environ[option.env], option.env
        if option.choices and value and value not in option.choices:
            raise UsageError(
                f"{where}: {shortened(value)!r} is none of {', '.join(option.choices)}"
            )
        if option.check and value:
            try:
                option.check(value)
            except ValueError as error:
                raise UsageError(
                    f"{where}: {shortened(value)!r} is {error}", getattr(error, "hint", "")
                ) from None
        values[option.dest] = option.default if value is None or value == "" else value
    return values


def check_words(command: Command, words: Sequence[str], before_marker: int) -> dict[str, Any]:
    """Return a command's words by name (UsageError for too few or too many); the profile of a
    command is None where all stands right of the ``--``."""
    values: dict[str, Any] = {}
    rest = list(words)
    for word in command.words:
        if word.endswith("..."):
            values[word[:-3]], rest = rest, []
        elif word == "profile?" and "command..." in command.words and not before_marker:
            values["profile"] = None
        elif rest:
            values[word.rstrip("?")] = rest.pop(0)
        elif word.endswith("?"):
            values[word.rstrip("?")] = ""
        else:
            raise UsageError(
                f"awsvault {command.name} needs a {word}", f"awsvault help {command.name}"
            )
    if rest:
        raise UsageError(
            f"awsvault {command.name} takes no {printable(rest[0])!r}",
            f"awsvault help {command.name}",
        )
    return values


def parse_environment_bool(environ: Mapping[str, str], name: str) -> bool:
    """Read a boolean variable; unset and empty are False (UsageError for what is no boolean)."""
    text = environ.get(name, "")
    try:
        return parse_bool(text) if text else False
    except ValueError as error:
        raise UsageError(f"{name}: {shortened(text)!r} is {error}") from None


def store_settings(world: World, values: Mapping[str, Any]) -> StoreSettings:
    """Return what flags and variables say about the keystores; a passphrase's descriptor is read
    and closed now.

    A flag beats any variable; among equals the descriptor comes first, then the command, then the
    passphrase itself.
    """
    environ = world.environ
    flag_fd, flag_command = values["file_passphrase_fd"], values["file_passphrase_command"]
    by_fd, by_command = "AWS_VAULT_FILE_PASSPHRASE_FD", "AWS_VAULT_FILE_PASSPHRASE_COMMAND"
    places = (
        ("--file-passphrase-fd", flag_fd),
        ("--file-passphrase-command", flag_command),
        *((name, environ.get(name)) for name in (by_fd, by_command)),
    )
    source, text = next((place for place in places if place[1]), (PASSPHRASE_VARIABLE, ""))
    passphrase: Secret | None = None
    if source.lower().endswith("fd"):
        passphrase = _read_fd(world, source, text)
    elif not text and source in environ:
        passphrase = Secret(environ[source])
    if environ.get(by_fd) and source != by_fd:
        _close_unread(world, environ[by_fd])
    return StoreSettings(
        passphrase=passphrase,
        passphrase_command="" if passphrase is not None else text,
        passphrase_source=source,
        iterations=_iterations(environ.get("AWS_VAULT_FILE_ITERATIONS", "")),
        **{name: value for name, value in values.items() if name in StoreSettings._fields},
    )


def _close_unread(world: World, fd: str) -> None:
    # A flag won, but the command must not find a passphrase in an open descriptor.
    try:
        world.read_descriptor(parse_int(fd, 0, MAX_DESCRIPTOR), MAX_PASSPHRASE_BYTES)
    except (OSError, ValueError):
        return


def _iterations(text: str) -> int:
    if not text:
        return DEFAULT_ITERATIONS
    return _number("AWS_VAULT_FILE_ITERATIONS", text, MIN_ITERATIONS, MAX_ITERATIONS)


# What can be read only once, or does not concern a later process.
UNREPEATED = ("file_passphrase_fd", "debug", "version")


def repeated_flags(options: Iterable[Option], values: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the flags, and the variables as flags, for a process that does the same later."""
    flags = []
    for option in options:
        name, value = option.names[0], values[option.dest]
        # A variable may say something else to the later process: what has one is always repeated.
        if (value == option.default and not option.env) or option.dest in UNREPEATED:
            continue
        if option.boolean:
            flags.append(name if value else opposite(name))
        else:
            flags.append(f"{name}={value}")
    return tuple(flags)


def help_text(command: Command | None) -> str:
    """Return the help of a subcommand, or of the whole."""
    if command is not None:
        return make_parser(command).format_help()
    usage, _, flags = make_parser(None).format_help().partition("\n\n")
    shown = [command for command in COMMANDS if not command.hidden]
    rows = [(", ".join([command.name, *command.aliases]), command.help) for command in shown]
    rows.append(("help [COMMAND]", "show the flags of a command"))
    commands = "".join(f"  {names:<22}{text}\n" for names, text in rows)
    return f"{usage}\n\ncommands:\n{commands}\n{flags}"


def parse_flags(command: Command | None, flags: Sequence[str]) -> dict[str, Any]:
    """Return the flags' texts by their options' names, None for one not given (UsageError)."""
    if not flags:  # argparse is 9 ms of a start
        return {}
    parser = make_parser(command)
    given, unknown = parser.parse_known_args(flags)
    if unknown:
        known = {name for action in parser._actions for name in action.option_strings}
        hint = closest(unknown[0].partition("=")[0], known, 0.7) or help_hint(command)
        raise UsageError(f"unknown flag {printable(unknown[0])}", hint)
    values = vars(given)
    for option in (*GLOBAL_OPTIONS, *(command.options if command else ())):
        texts = values[option.dest]
        if texts and not option.repeated:
            if len({*texts}) > 1:
                raise UsageError(
                    f"{option.names[0]} is given more than once, and says different things",
                    "give it once",
                )
            values[option.dest] = texts[-1]
    return values


# Variables of aws-vault's fork that mean nothing here -> what to do instead.
IGNORED_VARIABLES = {
    "AWS_VAULT_PROFILE_ENV": "exec --process gives the command profiles instead of keys",
    "AWS_VAULT_STDOUT": "nothing is opened in a browser",
    "AWS_VAULT_BIOMETRICS": "macOS asks where the keychain's access control says so",
    "AWS_VAULT_AUTO_LOGOUT": "nothing is logged in to",
}


def tell_ignored(world: World) -> None:
    """Say which variables are set for nothing."""
    for name, instead in IGNORED_VARIABLES.items():
        try:
            is_set = parse_environment_bool(world.environ, name)
        except UsageError:
            is_set = True
        if is_set:
            world.say(f"note: {name} is ignored: {instead}")


PRINTING = ("list", "export", "backends", "version")


def run_line(world: World, argv: Sequence[str]) -> int:
    """Do what a command line says and return the exit status. AwsVaultError is for the caller to
    show."""
    line = cut_line(argv)
    options = (*GLOBAL_OPTIONS, *(line.command.options if line.command else ()))
    if line.help or (line.command is None and not line.flags):
        world.out(help_text(line.command))
        return 0
    parsed = parse_flags(line.command, line.flags)
    forget_regions(world.environ, world.environ.pop(REGION_MARK, ""))
    values = option_values(options, parsed, world.environ)
    world.debugging = values["debug"]
    world.may_ask = values["input"] and not parse_environment_bool(
        world.environ, "AWS_VAULT_NO_INPUT"
    )
    world.guard_memory()
    settings = store_settings(world, values)
    if values["version"]:
        world.out(f"{__version__}\n")
        return 0
    if line.command is None:
        raise UsageError("no command is named", "awsvault help")
    own = {option.dest: values[option.dest] for option in line.command.options}
    if line.command.name in PRINTING and 1 in world.closed:
        raise AwsVaultError("standard output is closed", "redirect it to /dev/null instead")
    words = check_words(line.command, line.words, line.before_marker)
    if not line.command.hidden:
        tell_ignored(world)
    known = [one for one in (*GLOBAL_OPTIONS, *SESSION_OPTIONS) if one.dest in values]
    flags = repeated_flags(known, values)
    duration = values.get("duration", "")
    app = App(world, Options(values["backend"], values["prompt"], settings, flags, duration))
    try:
        return line.command.run(app, **words, **own)
    except KeystoreError as error:
        if not isinstance(error, ItemNotFound):
            app.choice.explain(error)
        raise


def main(argv: Sequence[str] | None = None, world: World | None = None) -> int:
    """Run a command line (``sys.argv`` by default) and return the exit status; every error is shown
    here."""
    world = world or World()
    arguments = sys.argv[1:] if argv is None else list(argv)
    # A start makes much and drops little; at its default the collector takes 1 ms of 30.
    if hasattr(gc, "set_threshold"):  # PyPy has none
        gc.set_threshold(50_000)
    try:
        world.fill_standard_descriptors()
        return run_line(world, arguments)
    except AwsVaultError as error:
        show_error(world, error)
        return error.exit_code
    except BrokenPipeError:
        return EXIT_BROKEN_PIPE
    except KeyboardInterrupt:
        world.say("error: interrupted")
        return EXIT_INTERRUPTED
    except Ended as end:
        world.say(f"error: {end}")
        return end.exit_code
    except ImportError as error:
        show_error(world, AwsVaultError(f"{sys.executable}: {error}", INCOMPLETE_HINT))
        return 1
    except OSError as error:
        where = f"{printable(error.filename)}: " if error.filename else ""
        show_error(world, AwsVaultError(f"{where}{os_reason(error)}"))
        return 1
    except Exception as error:
        if world.debugging:
            world.say(f"debug: {without_url_secrets(traceback.format_exc())}")
        show_error(
            world,
            AwsVaultError(
                f"a bug in awsvault: {type(error).__name__}",
                "run it with --debug and report what it prints",
            ),
        )
        return EXIT_BUG
    finally:
        if world.bundle is not None:
            world.bundle.cleanup()


INCOMPLETE_HINT = "install all of this Python (Debian: apt-get install python3), or name another"


def program_name() -> str:
    """Return how this program was started, as it would be typed again."""
    name = os.path.basename(sys.argv[0])
    if name.endswith((".pyz", ".py")):
        return f"python3 {printable(sys.argv[0])}"
    return "awsvault" if name in ("", "-c", "-m") else printable(name)


def show_error(world: World, error: AwsVaultError) -> None:
    """Write an error as one line, and a hint that names the program as it was called."""
    world.say(f"error: {error.message}")
    if error.hint:
        named = re.sub(r"(?<![\w./-])awsvault(?= [a-z])", lambda _: program_name(), error.hint)
        world.say(f"hint: {named}")


if __name__ == "__main__":
    raise SystemExit(main())
