"""A small AWS on loopback, as strict as the real one: STS, and of IAM what key rotation needs.

It recomputes the SigV4 signature of every request from the bytes that arrived, issues session
credentials and remembers them, and refuses what AWS refuses, in AWS's words. Tests use it as a
context manager (`with FakeAws() as fake:`); `python -m tests.fake_aws` prints its URL and serves
until its standard input ends. Other processes steer it by JSON at `/_admin`.

Two rules of AWS that surprise: role credentials never carry MFA, so no MFA code may come with
them and a role whose trust asks for MFA can't be reached through another role; and an AssumeRole
signed by temporary credentials, GetSessionToken's too, gets one hour at most.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import dataclasses
import fnmatch
import hashlib
import hmac
import json
import re
import secrets
import signal
import socketserver
import string
import sys
import threading
import time
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, quote, unquote, urlsplit
from xml.sax.saxutils import escape

ACCOUNT = "111111111111"
KEY_ID = "AKIADUMMYEXAMPLE0001"
SECRET = "dummy/secret+key/EXAMPLE0001/not/real000"
MFA_SERIAL = f"arn:aws:iam::{ACCOUNT}:mfa/jon"
MFA_CODES = ("123456", "234567", "345678", "456789", "567890")
STS, IAM = "2011-06-15", "2010-05-08"
NAMESPACES = {
    STS: "https://sts.amazonaws.com/doc/2011-06-15/",
    IAM: "https://iam.amazonaws.com/doc/2010-05-08/",
}
REGION = re.compile(r"(us|eu|ap|sa|ca|me|af|il|mx|cn|us-gov|eusc|eusc-de)-[a-z]+-\d")
IAM_REGIONS = ("us-east-1", "us-gov-west-1", "cn-north-1", "eusc-de-east-1")
SKEW = timedelta(minutes=5)
TEXT_BAD_TOKEN = "The security token included in the request is invalid."
TEXT_BAD_CODE = "MultiFactorAuthentication failed with invalid MFA one time pass code. "
TEXT_NO_DEVICE = (
    "MultiFactorAuthentication failed, unable to validate MFA code.  "
    "Please verify your MFA serial number is valid and associated with this user."
)
TEXT_CODE_ALONE = (
    "MultiFactorAuthentication failed, must provide both MFA serial number and one time pass code."
)
TEXT_CHAINED = (
    "The requested DurationSeconds exceeds the 1 hour session limit "
    "for roles assumed by role chaining"
)
TEXT_SIGNATURE = (
    "The request signature we calculated does not match the signature you provided. "
    "Check your AWS Secret Access Key and signing method. "
    "Consult the service documentation for details."
)


class AwsError(Exception):
    """An answer that refuses: HTTP status, AWS error code and text."""

    def __init__(self, status, code, message):
        super().__init__(f"{code}: {message}")
        self.status, self.code, self.message = status, code, message


def denied(message):
    return AwsError(403, "AccessDenied", message)


def invalid(message):
    return AwsError(400, "ValidationError", message)


# ======================================================================
# Who there is
# ======================================================================


@dataclasses.dataclass
class Device:
    """An MFA device; each of its codes is good once."""

    serial: str
    codes: set
    used: set = dataclasses.field(default_factory=set)

    def spend(self, code):
        if code not in self.codes or code in self.used:
            raise denied(TEXT_BAD_CODE)
        self.used.add(code)


@dataclasses.dataclass
class Key:
    """A long-lived access key; `dormant` requests signed by it are refused before it has spread.

    `used` is (time, service, region) of the last request that it signed.
    """

    secret: str
    created: datetime
    dormant: int = 0
    status: str = "Active"
    used: tuple | None = None


@dataclasses.dataclass
class User:
    name: str
    account: str
    keys: dict
    devices: dict
    denied: set

    @property
    def arn(self):
        return f"arn:aws:iam::{self.account}:user/{self.name}"

    @property
    def id(self):
        return "AIDADUMMY" + self.name.upper().ljust(11, "0")


@dataclasses.dataclass
class Role:
    """`trust` holds patterns of principal ARNs, an account's `:root`, or OIDC issuers."""

    name: str
    account: str
    trust: tuple
    mfa: bool
    max_duration: int
    external_id: str
    denied: set

    @property
    def arn(self):
        return f"arn:aws:iam::{self.account}:role/{self.name}"

    @property
    def id(self):
        return "AROADUMMY" + re.sub(r"\W", "", self.name).upper().ljust(11, "0")


@dataclasses.dataclass
class Session:
    """Temporary credentials that were issued, and what was asked for when they were."""

    action: str
    key_id: str
    secret: str
    token: str
    expires: datetime
    caller: Caller
    asked: dict


@dataclasses.dataclass
class Caller:
    """Who signed: `principal` is what a trust policy names, `arn` what GetCallerIdentity says."""

    arn: str
    principal: str
    user_id: str
    account: str
    user: object = None
    role: object = None
    temporary: bool = False
    mfa: bool = False


@dataclasses.dataclass
class Call:
    """One request as it arrived. `code` is AWS's error code, empty for success."""

    action: str
    parameters: dict
    headers: dict
    method: str
    path: str
    key_id: str = ""
    signer: str = ""
    region: str = ""
    service: str = ""
    status: int = 0
    code: str = ""


@dataclasses.dataclass
class Fault:
    """What the next `times` requests (of `action`, if set) meet instead of an answer."""

    kind: str
    times: int
    action: str = ""
    status: int = 500
    code: str = "InternalFailure"
    message: str = "The request processing has failed."
    body: str = ""


# ======================================================================
# SigV4, from AWS's description
# ======================================================================


@dataclasses.dataclass
class Signed:
    """The parts of an Authorization header."""

    key_id: str
    day: str
    region: str
    service: str
    headers: list
    signature: str


def parse_authorization(headers):
    text = headers.get("authorization")
    if not text:
        raise AwsError(403, "MissingAuthenticationToken", "Request is missing Authentication Token")
    match = re.fullmatch(
        r"AWS4-HMAC-SHA256 +Credential=([^/,]+)/(\d{8})/([^/,]+)/([^/,]+)/aws4_request, *"
        r"SignedHeaders=([a-z0-9;-]+), *Signature=([0-9a-f]{64})",
        text,
    )
    if not match or "x-amz-date" not in headers:
        raise AwsError(400, "IncompleteSignature", "Authorization header is incomplete.")
    key_id, day, region, service, names, signature = match.groups()
    return Signed(key_id, day, region, service, names.split(";"), signature)


def canonical_request(method, target, headers, names, body):
    """The text whose hash is signed; `target` is the path and query exactly as sent."""
    parts = urlsplit(target)
    query = sorted(
        (quote(name, safe="-_.~"), quote(value, safe="-_.~"))
        for name, value in parse_qsl(parts.query, keep_blank_values=True)
    )
    lines = [f"{name}:{' '.join(headers.get(name, '').split())}" for name in names]
    return "\n".join(
        [
            method,
            quote(parts.path or "/", safe="/-_.~"),
            "&".join("=".join(pair) for pair in query),
            *lines,
            "",
            ";".join(names),
            hashlib.sha256(body).hexdigest(),
        ]
    )


def signature_of(secret, signed, stamp, canonical):
    key = ("AWS4" + secret).encode()
    for part in (signed.day, signed.region, signed.service, "aws4_request"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    text = "\n".join(
        [
            "AWS4-HMAC-SHA256",
            stamp,
            f"{signed.day}/{signed.region}/{signed.service}/aws4_request",
            hashlib.sha256(canonical.encode()).hexdigest(),
        ]
    )
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()


def check_time(stamp, day, now):
    """Refuse a request signed more than five minutes from `now`, as STS words it."""
    signed_at, oldest, newest = parse_stamp(stamp), now - SKEW, now + SKEW
    wrong = ""
    if stamp[:8] != day:
        wrong = (
            f"Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date "
            f"from HTTP: '{day}' != '{stamp[:8]}', from '{stamp}'."
        )
    elif signed_at < oldest:
        said = f"{stamped(oldest)} ({stamped(now)} - 5 min.)"
        wrong = f"Signature expired: {stamp} is now earlier than {said}"
    elif signed_at > newest:
        said = f"{stamped(newest)} ({stamped(now)} + 5 min.)"
        wrong = f"Signature not yet current: {stamp} is still later than {said}"
    if wrong:
        raise AwsError(403, "SignatureDoesNotMatch", wrong)


def stamped(moment):
    return moment.strftime("%Y%m%dT%H%M%SZ")


def parse_stamp(stamp):
    try:
        return datetime.strptime(stamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=timezone.utc)
    except ValueError:
        raise AwsError(400, "IncompleteSignature", f"Date must be ISO-8601: '{stamp}'") from None


# ======================================================================
# Parameters and answers
# ======================================================================


def members(parameters, name):
    """`Name.member.N` and `Name.member.N.Part`, in order, as texts and dicts."""
    found = {}
    for key, value in parameters.items():
        match = re.fullmatch(rf"{name}\.member\.(\d+)(?:\.(\w+))?", key)
        if match and match[2]:
            found.setdefault(int(match[1]), {})[match[2]] = value
        elif match:
            found[int(match[1])] = value
    return [found[number] for number in sorted(found)]


def constraint(name, value, rule):
    member = name[0].lower() + name[1:]
    return invalid(
        f"1 validation error detected: Value '{value}' at '{member}' failed to satisfy "
        f"constraint: Member must {rule}"
    )


PATTERNS = {
    "RoleSessionName": (2, 64, r"[\w+=,.@-]*"),
    "ExternalId": (2, 1224, r"[\w+=,.@:\/-]*"),
    "SerialNumber": (9, 256, r"[\w+=/:,.@-]*"),
    "TokenCode": (6, 6, r"[\d]*"),
    "SourceIdentity": (2, 64, r"[\w+=,.@-]*"),
    "RoleArn": (20, 2048, r"[\u0009\u000A\u000D\u0020-\u007E\u0085\u00A0-\uD7FF]+"),
    "Name": (2, 32, r"[\w+=,.@-]*"),
    "WebIdentityToken": (4, 20000, r"[\s\S]*"),
}


def check_texts(parameters):
    """Length and alphabet of every parameter that has a rule."""
    for name, (least, most, pattern) in PATTERNS.items():
        value = parameters.get(name)
        if value is None:
            continue
        shown = "****" if name == "WebIdentityToken" else value
        if len(value) < least:
            raise constraint(name, shown, f"have length greater than or equal to {least}")
        if len(value) > most:
            raise constraint(name, shown, f"have length less than or equal to {most}")
        if not re.fullmatch(pattern, value, re.ASCII):
            raise constraint(name, shown, f"satisfy regular expression pattern: {pattern}")
    if "Policy" in parameters:
        check_policy(parameters["Policy"])


def check_policy(text):
    try:
        good = isinstance(json.loads(text).get("Statement"), (list, dict))
    except (ValueError, AttributeError):
        good = False
    if not good:
        raise AwsError(400, "MalformedPolicyDocument", "Syntax errors in policy.")


def required(parameters, *names):
    for name in names:
        if name not in parameters:
            member = name[0].lower() + name[1:]
            raise invalid(
                f"1 validation error detected: Value null at '{member}' failed to satisfy "
                "constraint: Member must not be null"
            )
    return [parameters[name] for name in names]


def seconds(parameters, default, most, least=900):
    """DurationSeconds within AWS's bounds, as an int."""
    value = parameters.get("DurationSeconds", str(default))
    if not re.fullmatch(r"-?\d+", value):
        raise AwsError(400, "MalformedInput", "Invalid value for DurationSeconds")
    if int(value) < least:
        raise constraint("DurationSeconds", value, f"have value greater than or equal to {least}")
    if int(value) > most:
        raise constraint("DurationSeconds", value, f"have value less than or equal to {most}")
    return int(value)


def rendered(tag, value):
    if isinstance(value, dict):
        value = "".join(rendered(*item) for item in value.items())
    elif isinstance(value, list):
        value = "".join(rendered("member", item) for item in value)
    else:
        value = escape(str(value))
    return f"<{tag}>{value}</{tag}>"


def success(version, action, result):
    inner = "" if result is None else rendered(f"{action}Result", result)
    request = rendered("ResponseMetadata", {"RequestId": request_id()})
    return f'<{action}Response xmlns="{NAMESPACES[version]}">{inner}{request}</{action}Response>'


def failure(version, error):
    body = rendered(
        "Error",
        {
            "Type": "Sender" if error.status < 500 else "Receiver",
            "Code": error.code,
            "Message": error.message,
        },
    )
    namespace = NAMESPACES.get(version, NAMESPACES[STS])
    request = rendered("RequestId", request_id())
    return f'<ErrorResponse xmlns="{namespace}">{body}{request}</ErrorResponse>'


def request_id():
    text = secrets.token_hex(16)
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


def dummy_id(prefix):
    alphabet = string.ascii_uppercase + "234567"
    return prefix + "".join(secrets.choice(alphabet) for _ in range(20 - len(prefix)))


def dummy_text(prefix, size):
    """As long as AWS's, and with `/`, `+` and `=` in it, which quoting must survive."""
    raw = base64.b64encode(secrets.token_bytes(size)).decode()
    return (prefix + "/+" + raw)[: size - 2] + "=="


def iso(moment):
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


# ======================================================================
# The service
# ======================================================================


class FakeAws:
    """The fake. Use it with `with`; `url` is its address. All times are by its own clock.

    Knobs, to be set at any moment: `skew` (seconds its clock is ahead), `lifetime` (seconds that
    credentials really live, whatever was asked for; None: as asked), `propagation` (requests
    that a newly created key is refused for), `regions` (names that a signature may be scoped to;
    None: any that looks like one). Faults: `fail`, `drop`, `lose_answer`, `garbage`, `hold`.
    """

    def __init__(self, *, port=0, tls=None, account=ACCOUNT):
        self.account = account
        self.users, self.roles, self.sessions, self.issuers = {}, {}, {}, {}
        self.calls, self.faults = [], []
        self.skew, self.lifetime, self.propagation, self.regions = 0.0, None, 0, None
        self._changed = threading.Condition(threading.RLock())
        self._gate = threading.Event()
        self._gate.set()
        self._server = _Server(("127.0.0.1", port), _Handler)
        self._server.fake = self
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_address[1]
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), daemon=True, name="fake-aws"
        )

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._gate.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)

    # -- what there is --------------------------------------------------

    def add_user(self, name, key_id, secret, *, mfa=None, account=None, deny=()):
        """A user with one key. `mfa` maps serials to valid codes; `deny` names `iam:GetUser`s."""
        devices = {serial: Device(serial, set(codes)) for serial, codes in (mfa or {}).items()}
        keys = {key_id: Key(secret, self.now())}
        self.users[name] = User(name, account or self.account, keys, devices, set(deny))
        return self.users[name]

    def add_role(
        self, name, *, trust=None, mfa=False, max_duration=3600, external_id="",
        account=None, deny=(),
    ):  # fmt: skip
        """A role that `trust` may assume: by default everybody in the fake's own account."""
        principals = (f"arn:aws:iam::{self.account}:root",) if trust is None else tuple(trust)
        role = Role(
            name, account or self.account, principals, mfa, max_duration, external_id, set(deny)
        )
        self.roles[role.arn] = role
        return role

    def add_issuer(self, url, *, audience="sts.amazonaws.com"):
        """An OIDC provider whose tokens roles may trust by naming its URL."""
        self.issuers[url] = audience

    def new_code(self, serial):
        """A code that was never used, valid from now on."""
        with self._changed:
            device = self._device(serial)
            code = next(c for c in iter(_random_code, None) if c not in device.codes)
            device.codes.add(code)
            return code

    def _device(self, serial):
        return next(u.devices[serial] for u in self.users.values() if serial in u.devices)

    def now(self):
        return datetime.now(timezone.utc) + timedelta(seconds=self.skew)

    # -- what happened ----------------------------------------------------

    def actions(self):
        """Names of the actions asked for, in the order in which they arrived."""
        with self._changed:
            return [call.action for call in self.calls]

    def count(self, action=None):
        return sum(action in (None, name) for name in self.actions())

    def wait_for(self, count, action=None, timeout=30.0):
        """Block until `count` requests have arrived; AssertionError when they do not."""
        with self._changed:
            if not self._changed.wait_for(lambda: self.count(action) >= count, timeout):
                raise AssertionError(f"{count} of {action or 'any'} expected: {self.actions()}")

    def clear(self):
        """Forget the requests seen so far, not the sessions issued."""
        with self._changed:
            self.calls.clear()

    # -- faults -----------------------------------------------------------

    def fail(self, times=1, status=500, code="InternalFailure", message="failed", action=""):
        """Refuse the next requests with this status and code, before looking at them."""
        self._add(Fault("error", times, action, status, code, message))

    def drop(self, times=1, action=""):
        """Close the connection instead of answering; nothing is done."""
        self._add(Fault("drop", times, action))

    def lose_answer(self, times=1, action=""):
        """Do what is asked, then close the connection without the answer."""
        self._add(Fault("lost", times, action))

    def garbage(self, times=1, body="<html>not AWS</html>", status=200, action=""):
        """Answer with this text. botocore trips over well-formed HTML in a way of its own."""
        self._add(Fault("garbage", times, action, status, body=body))

    def _add(self, fault):
        with self._changed:
            self.faults.append(fault)

    @contextlib.contextmanager
    def hold(self):
        """Requests that arrive inside this block wait, unanswered, until it ends."""
        self.close_gate()
        try:
            yield self
        finally:
            self.open_gate()

    def close_gate(self):
        self._gate.clear()

    def open_gate(self):
        self._gate.set()

    def set(self, **knobs):
        """Set knobs by name, for `/_admin`."""
        for name, value in knobs.items():
            if name not in ("skew", "lifetime", "propagation", "regions"):
                raise ValueError(f"no knob {name}")
            setattr(self, name, value)

    def _fault_for(self, action):
        for fault in self.faults:
            if fault.times > 0 and fault.action in ("", action):
                fault.times -= 1
                return fault
        return None

    # -- one request ------------------------------------------------------

    def answer(self, method, target, headers, body):
        """(status, body) for a request, or None to close the connection."""
        parameters = dict(parse_qsl(urlsplit(target).query, keep_blank_values=True))
        if headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
            parameters.update(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True))
        action = parameters.pop("Action", "")
        call = Call(action, parameters, headers, method, target)
        with self._changed:
            self.calls.append(call)
            self._changed.notify_all()
        self._gate.wait()
        with self._changed:
            return self._answer(call, body)

    def _answer(self, call, body):
        fault = self._fault_for(call.action)
        kind = fault.kind if fault else ""
        version = call.parameters.get("Version")
        if kind == "drop":
            return None
        if kind == "garbage":
            return fault.status, fault.body
        try:
            if kind == "error":
                raise AwsError(fault.status, fault.code, fault.message)
            result = self._perform(version, call, body)
            call.status, text = 200, success(version, call.action, result)
        except AwsError as error:
            call.status, call.code = error.status, error.code
            text = failure(version, error)
        return None if kind == "lost" else (call.status, text)

    def _perform(self, version, call, body):
        operation = OPERATIONS.get((version, call.action))
        if operation is None:
            raise AwsError(
                400,
                "InvalidAction",
                f"Could not find operation {call.action} for version {version}",
            )
        parameters = call.parameters
        if call.action == "AssumeRoleWithWebIdentity":
            check_texts(parameters)
            return operation(self, None, parameters)
        caller = self._authenticate(call, body, "sts" if version == STS else "iam")
        check_texts(parameters)
        self._authorize(caller, call)
        return operation(self, caller, parameters)

    def _authenticate(self, call, body, service):
        """The Caller whose signature stands on the request."""
        signed = parse_authorization(call.headers)
        call.key_id, call.region, call.service = signed.key_id, signed.region, signed.service
        self._check_scope(signed, service)
        token = call.headers.get("x-amz-security-token", "")
        caller, secret = self._credentials(signed.key_id, token)
        call.signer = caller.arn
        check_time(call.headers["x-amz-date"], signed.day, self.now())
        unsigned = {n for n in call.headers if n == "host" or n.startswith("x-amz-")}
        canonical = canonical_request(call.method, call.path, call.headers, signed.headers, body)
        expected = signature_of(secret, signed, call.headers["x-amz-date"], canonical)
        if unsigned - set(signed.headers) or not hmac.compare_digest(expected, signed.signature):
            raise AwsError(403, "SignatureDoesNotMatch", TEXT_SIGNATURE)
        self._check_alive(signed.key_id)
        key = self.key(signed.key_id)
        if key is not None:
            key.used = (self.now(), service, signed.region)
        return caller

    def _check_scope(self, signed, service):
        wrong = ""
        if signed.service != service:
            wrong = f"Credential should be scoped to correct service: '{service}'. "
        elif service == "iam" and signed.region not in IAM_REGIONS:
            wrong = "Credential should be scoped to a valid region. "
        elif not REGION.fullmatch(signed.region) or (
            self.regions is not None and signed.region not in self.regions
        ):
            wrong = f"Credential should be scoped to a valid region, not '{signed.region}'. "
        if wrong:
            raise AwsError(403, "SignatureDoesNotMatch", wrong)

    def _credentials(self, key_id, token):
        session = self.sessions.get(key_id)
        if session is not None and hmac.compare_digest(session.token.encode(), token.encode()):
            return session.caller, session.secret
        for user in self.users.values():
            if key_id in user.keys and not token:
                return user_caller(user), user.keys[key_id].secret
        raise AwsError(403, "InvalidClientTokenId", TEXT_BAD_TOKEN)

    def key(self, key_id):
        """The long-lived key of that id; None if there is none."""
        return next((u.keys[key_id] for u in self.users.values() if key_id in u.keys), None)

    def _check_alive(self, key_id):
        session = self.sessions.get(key_id)
        if session is not None and session.expires <= self.now():
            raise AwsError(
                403, "ExpiredToken", "The security token included in the request is expired"
            )
        key = self.key(key_id)
        if key is not None and (key.dormant > 0 or key.status != "Active"):
            key.dormant = max(key.dormant - 1, 0)
            raise AwsError(403, "InvalidClientTokenId", TEXT_BAD_TOKEN)

    def _authorize(self, caller, call):
        name = f"{call.service}:{call.action}"
        owner = caller.role or caller.user
        if owner is not None and name in owner.denied:
            raise not_authorized(caller, name, "*")

    # -- credentials --------------------------------------------------------

    def issue(self, action, caller, duration, asked):
        """New temporary credentials for `caller`, as the Credentials element of an answer."""
        lifetime = duration if self.lifetime is None else self.lifetime
        session = Session(
            action,
            dummy_id("ASIADUMMY"),
            dummy_text("dummy/secret", 40),
            dummy_text("FakeSessionToken", 356),
            self.now() + timedelta(seconds=lifetime),
            dataclasses.replace(caller, temporary=True),
            dict(asked, duration=duration),
        )
        self.sessions[session.key_id] = session
        return {
            "AccessKeyId": session.key_id,
            "SecretAccessKey": session.secret,
            "SessionToken": session.token,
            "Expiration": iso(session.expires),
        }

    def spend_code(self, caller, parameters):
        """Check the MFA parameters of a request; True when there are some."""
        serial, code = parameters.get("SerialNumber"), parameters.get("TokenCode")
        if serial is None and code is None:
            return False
        if serial is None or code is None:
            raise denied(TEXT_CODE_ALONE)
        if caller.user is None or serial not in caller.user.devices:
            raise denied(TEXT_NO_DEVICE)
        caller.user.devices[serial].spend(code)
        return True

    def state(self):
        """What `/_admin` tells: everything but secrets."""
        with self._changed:
            return {
                "url": self.url,
                "now": iso(self.now()),
                "users": {u.name: sorted(u.keys) for u in self.users.values()},
                "roles": sorted(self.roles),
                "sessions": {s.key_id: s.caller.arn for s in self.sessions.values()},
                "calls": [dataclasses.asdict(call) for call in self.calls],
            }


def _random_code():
    return f"{secrets.randbelow(10**6):06d}"


def user_caller(user):
    return Caller(user.arn, user.arn, user.id, user.account, user=user)


def not_authorized(caller, action, resource):
    return denied(
        f"User: {caller.arn} is not authorized to perform: {action} on resource: {resource}"
    )


# ======================================================================
# STS
# ======================================================================


def get_caller_identity(fake, caller, parameters):
    return {"Arn": caller.arn, "UserId": caller.user_id, "Account": caller.account}


def get_session_token(fake, caller, parameters):
    if caller.temporary:
        raise denied("Cannot call GetSessionToken with session credentials")
    duration = seconds(parameters, 43200, 129600)
    mfa = fake.spend_code(caller, parameters)
    caller = dataclasses.replace(caller, mfa=mfa)
    return {"Credentials": fake.issue("GetSessionToken", caller, duration, parameters)}


def get_federation_token(fake, caller, parameters):
    if caller.temporary:
        raise denied("Cannot call GetFederationToken with session credentials")
    (name,) = required(parameters, "Name")
    duration = seconds(parameters, 43200, 129600)
    arn = f"arn:aws:sts::{caller.account}:federated-user/{name}"
    user_id = f"{caller.account}:{name}"
    federated = Caller(arn, arn, user_id, caller.account)
    return {
        "Credentials": fake.issue("GetFederationToken", federated, duration, parameters),
        "FederatedUser": {"FederatedUserId": user_id, "Arn": arn},
        "PackedPolicySize": len(parameters.get("Policy", "")) * 100 // 2048,
    }


def assume_role(fake, caller, parameters):
    arn, name = required(parameters, "RoleArn", "RoleSessionName")
    if not re.fullmatch(r"arn:[a-z-]+:iam::\d{12}:role/\S+", arn):
        raise invalid(f"{arn} is invalid")
    duration = seconds(parameters, 3600, 43200)
    role = trusted_role(fake, caller, arn, parameters)
    if caller.temporary and duration > 3600:
        raise invalid(TEXT_CHAINED)
    return role_session(fake, role, "AssumeRole", name, duration, parameters)


def trusted_role(fake, caller, arn, parameters):
    """The role, once its trust policy lets `caller` in."""
    refused = not_authorized(caller, "sts:AssumeRole", arn)
    role = fake.roles.get(arn)
    if role is None or (caller.user is None and caller.role is None):
        raise refused
    account = f"arn:aws:iam::{caller.account}:root"
    if not any(p == account or fnmatch.fnmatchcase(caller.principal, p) for p in role.trust):
        raise refused
    mfa = fake.spend_code(caller, parameters) or caller.mfa
    if role.mfa and not mfa:
        raise refused
    if role.external_id and parameters.get("ExternalId") != role.external_id:
        raise refused
    return role


def role_session(fake, role, action, name, duration, parameters):
    if duration > role.max_duration:
        raise invalid(
            "The requested DurationSeconds exceeds the MaxSessionDuration set for this role."
        )
    short = role.name.rsplit("/", 1)[-1]
    arn = f"arn:aws:sts::{role.account}:assumed-role/{short}/{name}"
    user_id = f"{role.id}:{name}"
    caller = Caller(arn, role.arn, user_id, role.account, role=role)
    asked = dict(parameters, tags=members(parameters, "Tags"))
    answer = {
        "Credentials": fake.issue(action, caller, duration, asked),
        "AssumedRoleUser": {"AssumedRoleId": user_id, "Arn": arn},
    }
    if "SourceIdentity" in parameters:
        answer["SourceIdentity"] = parameters["SourceIdentity"]
    if "Policy" in parameters or members(parameters, "Tags"):
        answer["PackedPolicySize"] = 1 + len(parameters.get("Policy", "")) * 100 // 2048
    return answer


def assume_role_with_web_identity(fake, caller, parameters):
    arn, name, token = required(parameters, "RoleArn", "RoleSessionName", "WebIdentityToken")
    duration = seconds(parameters, 3600, 43200)
    claims = claims_of(token)
    issuer = claims.get("iss", "")
    if issuer not in fake.issuers:
        raise AwsError(
            400,
            "InvalidIdentityToken",
            f"No OpenIDConnect provider found in your account for {issuer}",
        )
    if claims.get("aud") != fake.issuers[issuer]:
        raise AwsError(400, "InvalidIdentityToken", "Incorrect token audience")
    if claims.get("exp", 0) <= fake.now().timestamp():
        raise AwsError(
            400,
            "ExpiredTokenException",
            f"Token expired: current date/time {int(fake.now().timestamp())} must be before "
            f"the expiration date/time {claims.get('exp')}",
        )
    role = fake.roles.get(arn)
    if role is None or issuer not in role.trust:
        raise denied("Not authorized to perform sts:AssumeRoleWithWebIdentity")
    answer = role_session(fake, role, "AssumeRoleWithWebIdentity", name, duration, parameters)
    answer.update(SubjectFromWebIdentityToken=claims.get("sub", ""), Provider=issuer)
    return answer


def claims_of(token):
    """The claims of a JWT. Its signature is not checked: no test has the issuer's key."""
    try:
        _, payload, _ = token.split(".")
        return dict(json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4))))
    except (ValueError, TypeError):
        raise AwsError(
            400,
            "InvalidIdentityToken",
            "The ID Token provided is not a valid JWT. (You may see this error if you sent an "
            "Access Token)",
        ) from None


def web_token(issuer, *, subject="repo:example", audience="sts.amazonaws.com", lives=600):
    """A JWT such as a CI system hands out, `lives` seconds from now, with a dummy signature."""
    claims = {"iss": issuer, "sub": subject, "aud": audience, "exp": int(time.time() + lives)}
    parts = ({"alg": "RS256", "typ": "JWT"}, claims)
    encoded = [base64.urlsafe_b64encode(json.dumps(p).encode()).rstrip(b"=") for p in parts]
    return b".".join([*encoded, base64.urlsafe_b64encode(b"dummy" * 50).rstrip(b"=")]).decode()


# ======================================================================
# IAM
# ======================================================================


def iam_user(fake, caller, parameters):
    """The user that an IAM request is about."""
    if caller.temporary and caller.role is None and not caller.mfa:
        # IAM does not know sessions that GetSessionToken made without MFA.
        raise AwsError(403, "InvalidClientTokenId", TEXT_BAD_TOKEN)
    name = parameters.get("UserName")
    if name is None and caller.user is None:
        raise invalid("Must specify userName when calling with non-User credentials")
    user = caller.user if name is None else fake.users.get(name)
    if user is None:
        raise AwsError(404, "NoSuchEntity", f"The user with name {name} cannot be found.")
    return user


def get_user(fake, caller, parameters):
    user = iam_user(fake, caller, parameters)
    described = {"Path": "/", "UserName": user.name, "UserId": user.id, "Arn": user.arn}
    return {"User": dict(described, CreateDate="2020-01-01T00:00:00Z")}


def create_access_key(fake, caller, parameters):
    user = iam_user(fake, caller, parameters)
    if len(user.keys) >= 2:
        raise AwsError(409, "LimitExceeded", "Cannot exceed quota for AccessKeysPerUser: 2")
    key_id, secret = dummy_id("AKIADUMMY"), dummy_text("dummy/secret", 40)
    user.keys[key_id] = Key(secret, fake.now(), fake.propagation)
    described = {"UserName": user.name, "AccessKeyId": key_id, "Status": "Active"}
    return {
        "AccessKey": dict(described, SecretAccessKey=secret, CreateDate=iso(fake.now())),
    }


def delete_access_key(fake, caller, parameters):
    user = iam_user(fake, caller, parameters)
    (key_id,) = required(parameters, "AccessKeyId")
    if user.keys.pop(key_id, None) is None:
        raise AwsError(404, "NoSuchEntity", f"The Access Key with id {key_id} cannot be found.")


def list_access_keys(fake, caller, parameters):
    user = iam_user(fake, caller, parameters)
    keys = [
        {
            "UserName": user.name,
            "AccessKeyId": key_id,
            "Status": key.status,
            "CreateDate": iso(key.created),
        }
        for key_id, key in user.keys.items()
    ]
    return {"AccessKeyMetadata": keys, "IsTruncated": "false"}


def get_access_key_last_used(fake, caller, parameters):
    (key_id,) = required(parameters, "AccessKeyId")
    for user in fake.users.values():
        if key_id in user.keys:
            used = user.keys[key_id].used
            told = {"ServiceName": "N/A", "Region": "N/A"}
            if used:
                told = {"LastUsedDate": iso(used[0]), "ServiceName": used[1], "Region": used[2]}
            return {"UserName": user.name, "AccessKeyLastUsed": told}
    raise denied(f"User: {caller.arn} is not authorized to perform: iam:GetAccessKeyLastUsed")


OPERATIONS = {
    (STS, "GetCallerIdentity"): get_caller_identity,
    (STS, "GetSessionToken"): get_session_token,
    (STS, "GetFederationToken"): get_federation_token,
    (STS, "AssumeRole"): assume_role,
    (STS, "AssumeRoleWithWebIdentity"): assume_role_with_web_identity,
    (IAM, "GetUser"): get_user,
    (IAM, "CreateAccessKey"): create_access_key,
    (IAM, "DeleteAccessKey"): delete_access_key,
    (IAM, "ListAccessKeys"): list_access_keys,
    (IAM, "GetAccessKeyLastUsed"): get_access_key_last_used,
}
ADMIN = {
    *("add_user", "add_role", "add_issuer", "new_code", "clear", "wait_for", "set"),
    *("fail", "drop", "lose_answer", "garbage", "close_gate", "open_gate"),
}


# ======================================================================
# HTTP
# ======================================================================


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 256

    def server_bind(self):
        # HTTPServer's looks its own name up, which can take seconds without a resolver.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]

    def handle_error(self, request, client_address):
        """A client that was killed is part of many tests; anything else is shown."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def log_message(self, *_):
        pass

    def date_time_string(self, timestamp=None):
        now = self.server.fake.now().timestamp() if timestamp is None else timestamp
        return super().date_time_string(now)

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path.startswith("/_admin"):
            self._answer(*self._administer(json.loads(body)), "application/json")
            return
        headers = {name.lower(): value for name, value in self.headers.items()}
        parts = urlsplit(self.path)
        # A client that was told to use us as its proxy sends the whole URL.
        target = unquote(parts.path) + ("?" + parts.query if parts.query else "")
        answer = self.server.fake.answer(self.command, target, headers, body)
        if answer is None:
            self.close_connection = True
        else:
            self._answer(*answer, "text/xml")

    def do_GET(self):
        if self.path == "/_admin":
            self._answer(200, json.dumps(self.server.fake.state()), "application/json")
        else:
            self.do_POST()

    def do_CONNECT(self):
        """As an HTTPS proxy it refuses everybody."""
        self.close_connection = True
        self._answer(407, "proxy authentication required", "text/plain")

    def _administer(self, request):
        """`{"call": NAME, "arguments": {...}}` runs a method of FakeAws named in ADMIN."""
        if request.get("call") not in ADMIN:
            return 404, json.dumps({"error": "no such call"})
        try:
            result = getattr(self.server.fake, request["call"])(**request.get("arguments", {}))
        except (AssertionError, TypeError, ValueError) as error:
            return 400, json.dumps({"error": str(error)})
        shown = result if isinstance(result, (str, type(None))) else result.arn
        return 200, json.dumps({"result": shown})

    def _answer(self, status, text, kind):
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("x-amzn-RequestId", request_id())
        self.end_headers()
        self.wfile.write(body)


# ======================================================================
# The usual company
# ======================================================================


def furnish(fake):
    """The users and roles that most tests want: `jon` with an MFA device, and his roles.

    `admin` and `audit` may be assumed by everybody in the account, `deploy` needs MFA and may
    last 12 h, `partner` needs the external id `secret-handshake`, `chained` trusts `admin` only,
    `closed` nobody, `ci` tokens of https://ci.example.com.
    """
    fake.add_user("jon", KEY_ID, SECRET, mfa={MFA_SERIAL: MFA_CODES})
    fake.add_role("admin", max_duration=43200)
    fake.add_role("audit")
    fake.add_role("deploy", mfa=True, max_duration=43200)
    fake.add_role("partner", external_id="secret-handshake")
    fake.add_role("chained", trust=(f"arn:aws:iam::{ACCOUNT}:role/admin",))
    fake.add_role("closed", trust=())
    fake.add_issuer("https://ci.example.com")
    fake.add_role("ci", trust=("https://ci.example.com",))
    return fake


def main(argv=None):
    parser = argparse.ArgumentParser(prog="fake_aws", description="a strict AWS on loopback")
    parser.add_argument("--port", type=int, default=0)
    options = parser.parse_args(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with FakeAws(port=options.port) as fake:
        furnish(fake)
        print(fake.url, flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            sys.stdin.read()
    return 0


if __name__ == "__main__":
    sys.exit(main())
