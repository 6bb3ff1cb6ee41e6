#!/usr/bin/env python3
"""A stand-in for macOS /usr/bin/security for tests (stdlib only).

Faithful to Apple's SecurityTool/macOS sources in: command prefix matching, BSD getopt (no permutation), the -i line
reader (4096 byte buffer, unterminated last line dropped, over-long line split in two), its quoting, "X: returned N",
exit status = OSStatus & 255, the hex rule of find -w, print_buffer, dump-keychain layout, 44/45/36/51/128/48/50.

Knobs (environment):
  FAKE_SECURITY_UI    what happens when macOS would show a dialog:
                      none (default: -25308, as over ssh) | cancel (-128) | allow | hang
  FAKE_SECURITY_LOG   file that gets one JSON line per process: {"argv": [...]}
  FAKE_SECURITY_AS    code identity of the caller, default "/usr/bin/security"
State: $HOME/Library/Keychains/<name>.keychain-db (JSON inside) and $HOME/Library/Preferences/fake.keychains.json
"""

import fcntl
import json
import os
import sys
import time

MAX_LINE, MAX_ARGS = 4096, 32
ERR = {
    -25300: "The specified item could not be found in the keychain.",
    -25299: "The specified item already exists in the keychain.",
    -25308: "User interaction is not allowed.",
    -25293: "The user name or passphrase you entered is not correct.",
    -25294: "The specified keychain could not be found.",
    -25296: "A keychain with the same name already exists.",
    -25295: "The specified keychain is not a valid keychain file.",
    -25307: "A default keychain could not be found.",
    -128: "User canceled the operation.",
}
NOTFOUND, DUP, NOUI, AUTH, NOKC, DUPKC, CANCEL = (
    -25300,
    -25299,
    -25308,
    -25293,
    -25294,
    -25296,
    -128,
)


class Status(Exception):
    def __init__(self, code):
        self.code = code


def out(b):
    sys.stdout.buffer.write(b if isinstance(b, bytes) else b.encode("utf-8", "surrogateescape"))


def err(s):
    sys.stdout.buffer.flush()
    sys.stderr.buffer.write(s.encode("utf-8", "surrogateescape"))
    sys.stderr.buffer.flush()


def sec_error(s):
    err(f"security: {s}\n")


def ui():
    """Called where securityd would ask the user."""
    mode = os.environ.get("FAKE_SECURITY_UI", "none")
    if mode == "hang":
        time.sleep(86400)
    if mode == "cancel":
        raise Status(CANCEL)
    if mode != "allow":
        raise Status(NOUI)


# ---------------------------------------------------------------- storage
def kdir():
    return os.path.join(os.environ["HOME"], "Library", "Keychains")


def resolve(name):
    p = name if name.startswith("/") else os.path.join(kdir(), name)
    if os.path.dirname(p) == kdir() and not p.endswith("-db"):
        db = p + "-db"
        if os.path.exists(db) or not os.path.exists(p):
            return db
    return p


class Keychain:
    def __init__(self, name):
        self.name, self.path = name, resolve(name)

    def exists(self):
        return os.path.exists(self.path)

    def load(self):
        if not self.exists():
            raise Status(NOKC)
        with open(self.path) as f:
            self.d = json.load(f)
        if (
            self.d.get("timeout")
            and not self.d["locked"]
            and time.time() - self.d.get("used", 0) > self.d["timeout"]
        ):
            self.d["locked"] = True
        return self

    def save(self):
        self.d["used"] = time.time()
        tmp = self.path + ".tmp"
        with open(tmp, "w") as f:
            json.dump(self.d, f)
        os.rename(tmp, self.path)

    def need_unlocked(self):
        if self.d["locked"]:
            ui()
            self.d["locked"] = False
            self.save()


def prefs_file():
    return os.path.join(os.environ["HOME"], "Library", "Preferences", "fake.keychains.json")


def prefs(new=None):
    if new is not None:
        os.makedirs(os.path.dirname(prefs_file()), exist_ok=True)
        with open(prefs_file(), "w") as f:
            json.dump(new, f)
        return new
    try:
        with open(prefs_file()) as f:
            return json.load(f)
    except FileNotFoundError:
        return {"search": [], "default": None}


# ---------------------------------------------------------------- printing
def print_buffer(b):
    asc = any(32 <= c <= 126 and c != 92 for c in b)
    hx = any(not (32 <= c <= 126 and c != 92) for c in b)
    s = ""
    if hx:
        s += "0x" + b.hex().upper() + (" " if asc else "") + " "
    if asc:
        s += '"' + "".join(chr(c) if 32 <= c <= 126 and c != 92 else f"\\{c:03o}" for c in b) + '"'
    return s


def print_item(kc, it):
    out(f'keychain: {print_buffer(kc.path.encode())}\nversion: 512\nclass: "genp"\nattributes:\n')
    when = time.strftime("%Y%m%d%H%M%SZ", time.gmtime(it["mdat"])).encode() + b"\0"
    cwhen = time.strftime("%Y%m%d%H%M%SZ", time.gmtime(it["cdat"])).encode() + b"\0"

    def blob(k):
        v = it.get(k)
        return "<NULL>" if v is None else print_buffer(v.encode("utf-8", "surrogateescape"))

    rows = [
        ("0x00000007 ", "blob", blob("labl")),
        ("0x00000008 ", "blob", "<NULL>"),
        ('"acct"', "blob", blob("acct")),
        ('"cdat"', "timedate", print_buffer(cwhen)),
        ('"crtr"', "uint32", "<NULL>"),
        ('"cusi"', "sint32", "<NULL>"),
        ('"desc"', "blob", blob("desc")),
        ('"gena"', "blob", blob("gena")),
        ('"icmt"', "blob", blob("icmt")),
        ('"invi"', "sint32", "<NULL>"),
        ('"mdat"', "timedate", print_buffer(when)),
        ('"nega"', "sint32", "<NULL>"),
        ('"prot"', "blob", "<NULL>"),
        ('"scrp"', "sint32", "<NULL>"),
        ('"svce"', "blob", blob("svce")),
        ('"type"', "uint32", "<NULL>"),
    ]
    for tag, kind, val in rows:
        out(f"    {tag}<{kind}>={val}\n")


# ---------------------------------------------------------------- getopt
class Usage(Exception):
    pass


def getopt(argv, spec):
    """BSD getopt: stops at the first non-option; yields (opt, arg); '?' / ':' as the C code sees them."""
    quiet = spec.startswith(":")
    spec = spec.lstrip(":")
    want = {}
    for i, c in enumerate(spec):
        if c != ":":
            want[c] = spec[i + 1 : i + 2] == ":"
    i, opts = 1, []
    while i < len(argv):
        a = argv[i]
        if a == "--":
            i += 1
            break
        if len(a) < 2 or a[0] != "-":
            break
        j = 1
        i += 1
        while j < len(a):
            c = a[j]
            j += 1
            if c not in want:
                if not quiet:
                    err(f"security: illegal option -- {c}\n")
                opts.append(("?", c))
            elif want[c]:
                if j < len(a):
                    opts.append((c, a[j:]))
                elif i < len(argv):
                    opts.append((c, argv[i]))
                    i += 1
                else:
                    if not quiet:
                        err(f"security: option requires an argument -- {c}\n")
                    opts.append((":" if quiet else "?", c))
                break
            else:
                opts.append((c, None))
    return opts, argv[i:]


def getpass(prompt):
    """macOS getpass: /dev/tty when there is one, else stderr+stdin; 128 characters."""
    try:
        with open("/dev/tty", "r+") as t:
            t.write(prompt)
            t.flush()
            return t.readline().rstrip("\n")[:128]
    except OSError:
        err(prompt)
        line = STDIN.readline()
        return None if not line else line.rstrip(b"\n")[:128].decode("utf-8", "surrogateescape")


# ---------------------------------------------------------------- commands
def c_create(argv):
    opts, rest = getopt(argv, "hp:P")
    pw, prompt = None, False
    for o, a in opts:
        if o == "p":
            pw = a
        elif o == "P":
            prompt = True
        else:
            return 2
    if not rest:
        err("keychain to create: ")
        return -1
    if pw is None and not prompt:
        pw = getpass("password for new keychain: ")
        if pw is None or getpass("retype password for new keychain: ") != pw:
            err("passwords don't match\n")
            return 1
    for name in rest:
        kc = Keychain(name)
        try:
            if prompt:
                ui()
                pw = "typed-in-SecurityAgent"
            if kc.exists():
                raise Status(DUPKC)
            os.makedirs(os.path.dirname(kc.path), exist_ok=True)
            kc.d = {
                "password": pw,
                "locked": False,
                "timeout": 300,
                "lockOnSleep": True,
                "items": [],
            }
            kc.save()
            p = prefs()
            p["search"].append(kc.path)
            prefs(p)
        except Status as s:
            sec_error(f"SecKeychainCreate {name}: {ERR[s.code]}")
            return s.code
    return 0


def c_delete_kc(argv):
    opts, rest = getopt(argv, "h")
    if opts:
        return 2
    res = 0
    for name in rest:
        kc = Keychain(name)
        p = prefs()
        p["search"] = [x for x in p["search"] if x != kc.path]
        prefs(p)
        if kc.exists():
            os.unlink(kc.path)
        else:
            res = NOKC
            sec_error(f"SecKeychainDelete: {ERR[NOKC]}")
    return res


def c_lock(argv):
    opts, rest = getopt(argv, "ah")
    names = rest
    for o, _a in opts:
        if o != "a":
            return 2
        names = prefs()["search"]
    for n in names:
        try:
            kc = Keychain(n).load()
        except Status as s:
            sec_error(f"SecKeychainLock {n}: {ERR[s.code]}")
            return s.code
        kc.d["locked"] = True
        kc.save()
    return 0


def c_unlock(argv):
    opts, rest = getopt(argv, "hp:u")
    pw, use = None, True
    for o, a in opts:
        if o == "p":
            pw = a
        elif o == "u":
            use = False
        else:
            return 2
    if len(rest) > 1:
        return 2
    name = rest[0] if rest else (prefs()["default"] or "login.keychain")
    if pw is None and use:
        pw = getpass("password to unlock %s: " % (rest[0] if rest else "default"))
        if pw is None:
            return -1
    try:
        kc = Keychain(name).load()
        if not use:
            kc.need_unlocked()
        elif pw != kc.d["password"]:
            raise Status(AUTH)
        kc.d["locked"] = False
        kc.save()
        return 0
    except Status as s:
        sec_error("SecKeychainUnlock {}: {}".format(rest[0] if rest else "<NULL>", ERR[s.code]))
        return s.code


def c_settings(argv):
    opts, rest = getopt(argv, "hlt:u")
    sleep, timeout = False, None
    for o, a in opts:
        if o == "l":
            sleep = True
        elif o == "t":
            timeout = int(a)
        elif o != "u":
            return 2
    try:
        kc = Keychain(rest[0]).load()
        kc.need_unlocked()
        kc.d["lockOnSleep"], kc.d["timeout"] = sleep, timeout
        kc.save()
        return 0
    except Status as s:
        sec_error(f"SecKeychainSetSettings {rest[0]}: {ERR[s.code]}")
        return s.code


def c_info(argv):
    _opts, rest = getopt(argv, "s")
    try:
        kc = Keychain(rest[0]).load()
        kc.need_unlocked()
    except Status as s:
        sec_error(f"SecKeychainCopySettings {rest[0]}: {ERR[s.code]}")
        return s.code
    err(
        'Keychain "{}"{}{}{}\n'.format(
            rest[0],
            " lock-on-sleep" if kc.d["lockOnSleep"] else "",
            " use-lock-interval" if kc.d["timeout"] else "",
            f" timeout={kc.d['timeout']}s" if kc.d["timeout"] else " no-timeout",
        )
    )
    return 0


def c_list(argv):
    opts, rest = getopt(argv, "d:hs")
    if any(o == "s" for o, _a in opts):
        p = prefs()
        p["search"] = [resolve(r) for r in rest]
        prefs(p)
        return 0
    if rest:
        return 2
    for x in prefs()["search"]:
        out(f'    "{x}"\n')
    return 0


def c_default(argv):
    opts, rest = getopt(argv, "d:hs")
    p = prefs()
    if any(o == "s" for o, _a in opts):
        p["default"] = resolve(rest[0]) if rest else None
        prefs(p)
        return 0
    if not p["default"]:
        sec_error("SecKeychainCopyDefault: " + ERR[-25307])
        return 1
    out('    "{}"\n'.format(p["default"]))
    return 0


FIND = {"a": "acct", "s": "svce", "l": "labl", "D": "desc", "G": "gena", "j": "icmt"}


def find_first(match, names):
    primary = "acct" in match and "svce" in match
    for n in names or prefs()["search"]:
        try:
            kc = Keychain(n).load()
        except Status:
            continue
        for it in kc.d["items"]:
            if all(
                it.get(k) == v for k, v in match.items() if not primary or k in ("acct", "svce")
            ):
                return kc, it
    return None, None


def read_data(kc, it):
    kc.need_unlocked()
    me = os.environ.get("FAKE_SECURITY_AS", "/usr/bin/security")
    trusted = it["trusted"]
    if trusted != "any" and me not in trusted:
        ui()
    return bytes.fromhex(it["data"])


def c_add(argv):
    v, pw, update, trusted, given = {}, None, False, [], False
    opts, rest = getopt(argv, ":a:c:C:D:G:j:l:s:p:w:X:UAT:h")
    for o, a in opts:
        if o in FIND:
            v[FIND[o]] = a
        elif o in "pw":
            pw = a.encode("utf-8", "surrogateescape")
        elif o == "X":
            try:
                pw = bytes.fromhex(("0" if len(a) % 2 else "") + a)
                if any(ch.isspace() for ch in a):
                    raise ValueError
            except ValueError:
                sec_error("Unable to convert password data (-X must specify valid hex digits)")
                return 2
        elif o == "U":
            update = True
        elif o == "A":
            trusted, given = "any", True
        elif o == "T":
            given = True
            if a:
                if not os.path.exists(a) and a != "/usr/bin/security":
                    sec_error(f"SecTrustedApplicationCreateFromPath {a}: No such file or directory")
                    return 1
                trusted.append(a)
        elif o in "cC":
            if len(a) != 4:
                err("Error: four-character types must be exactly 4 characters long.\n")
                return 1
        elif o == ":" and a in "pw":
            p1 = getpass("password data for new item: ")
            if p1 is None or getpass("retype password for new item: ") != p1:
                return 1
            pw = p1.encode("utf-8", "surrogateescape")
        else:
            return 2
    if "acct" not in v or "svce" not in v or len(rest) > 1 or (rest and not rest[0]):
        return 2
    v.setdefault("labl", v["svce"])
    now = time.time()
    if update:
        kc, it = find_first(v, rest)
        if it is not None:
            try:
                kc.need_unlocked()
                if given:
                    ui()  # SecKeychainItemSetAccess "will prompt"
            except Status as s:
                sec_error(f"SecKeychainItemModifyContent: {ERR[s.code]}")
                # the C code then falls through to a plain add, which fails with the duplicate error
                sec_error(
                    "SecKeychainItemCreateFromContent ({}): {}".format(
                        rest[0] if rest else "<default>", ERR[s.code]
                    )
                )
                return s.code
            it.update(v, mdat=now)
            it["data"] = (pw or b"").hex()
            kc.save()
            return 0
    try:
        kc = Keychain(rest[0] if rest else prefs()["default"] or "login.keychain").load()
        kc.need_unlocked()
        if any(i["acct"] == v["acct"] and i["svce"] == v["svce"] for i in kc.d["items"]):
            raise Status(DUP)
        kc.d["items"].append(
            dict(
                v,
                data=(pw or b"").hex(),
                cdat=now,
                mdat=now,
                trusted=trusted
                if given
                else [os.environ.get("FAKE_SECURITY_AS", "/usr/bin/security")],
            )
        )
        kc.save()
        return 0
    except Status as s:
        sec_error(
            "SecKeychainItemCreateFromContent ({}): {}".format(
                rest[0] if rest else "<default>", ERR[s.code]
            )
        )
        return s.code


def c_find(argv):
    m, w, g = {}, False, False
    opts, rest = getopt(argv, "ha:c:C:D:G:j:l:s:wg")
    for o, a in opts:
        if o in FIND:
            m[FIND[o]] = a
        elif o == "w":
            w = True
        elif o == "g":
            g = True
        elif o not in "cC":
            return 2
    kc, it = find_first(m, rest)
    if it is None:
        sec_error(f"SecKeychainSearchCopyNext: {ERR[NOTFOUND]}")
        return NOTFOUND
    data = b""
    if w or g:
        try:
            data = read_data(kc, it)
        except Status as s:
            return s.code  # the real tool prints nothing here
    if not w:
        print_item(kc, it)
        if g:
            err(f"password: {print_buffer(data)}\n")
    else:
        out((data.hex() if any(not 32 <= c <= 126 for c in data) else data.decode("ascii")) + "\n")
    return 0


def c_delete(argv):
    m = {}
    opts, rest = getopt(argv, "ha:c:C:D:G:j:l:s:g")
    for o, a in opts:
        if o in FIND:
            m[FIND[o]] = a
        elif o not in "cC":
            return 2
    if not m:
        return 2
    kc, it = find_first(m, rest)
    if it is None:
        sec_error(f"SecKeychainSearchCopyNext: {ERR[NOTFOUND]}")
        return NOTFOUND
    print_item(kc, it)
    res = 0
    try:
        kc.need_unlocked()
        kc.d["items"].remove(it)
        kc.save()
    except Status as s:
        res = s.code
    err("password has been deleted.\n")  # printed even when deleting failed
    return res


def c_dump(argv):
    show = False
    opts, rest = getopt(argv, "adhiro:")
    for o, _a in opts:
        if o == "d":
            show = True
        elif o not in "ao":
            return 2
    for n in rest or prefs()["search"]:
        try:
            kc = Keychain(n).load()
        except Status as s:
            sec_error(f"SecKeychainSearchCopyNext: {ERR[s.code]}")
            return 1
        for it in kc.d["items"]:
            print_item(kc, it)
            if show:
                try:
                    out("data:\n" + print_buffer(read_data(kc, it)) + "\n")
                except Status as s:
                    sec_error(f"SecKeychainItemCopyAttributesAndData: {ERR[s.code]}")
    return 0


def c_partition(argv):
    opts, rest = getopt(argv, ":a:c:C:D:G:j:l:s:S:k:")
    o = dict(opts)
    kc, it = find_first({FIND[k]: v for k, v in opts if k in FIND}, rest)
    if it is None:
        sec_error(f"SecItemCopyMatching: {ERR[NOTFOUND]}")
        return NOTFOUND
    if o.get("k") != kc.d["password"]:
        sec_error(f"SecKeychainItemSetAccessWithPassword: {ERR[AUTH]}")
        return AUTH
    it["partition"] = o.get("S", "")
    kc.save()
    return 0


def c_help(argv):
    for n, _f in COMMANDS:
        out(f"    {n}\n")
    return 0


COMMANDS = [
    ("help", c_help),
    ("list-keychains", c_list),
    ("default-keychain", c_default),
    ("create-keychain", c_create),
    ("delete-keychain", c_delete_kc),
    ("lock-keychain", c_lock),
    ("unlock-keychain", c_unlock),
    ("set-keychain-settings", c_settings),
    ("show-keychain-info", c_info),
    ("dump-keychain", c_dump),
    ("add-generic-password", c_add),
    ("find-generic-password", c_find),
    ("delete-generic-password", c_delete),
    ("set-generic-password-partition-list", c_partition),
]
VERBOSE = QUIET = False
STDIN = sys.stdin.buffer


def execute(argv):
    if not argv:
        return 0
    for name, fn in COMMANDS:
        if name.startswith(argv[0]):  # strncmp prefix rule
            if VERBOSE:
                err(name + "".join(f' "{a}"' for a in argv[1:]) + "\n")
            os.makedirs(kdir(), exist_ok=True)
            with open(os.path.join(kdir(), ".lock"), "w") as lk:
                if os.environ.get("FAKE_SECURITY_UI") != "hang":
                    fcntl.flock(lk, fcntl.LOCK_EX)
                res = fn(argv)
            if res == 2:
                err(f"Usage: {name} ...\n")
            return res
    sec_error(f'unknown command "{argv[0]}"')
    return 1


def read_line():
    """readline.c: at most 4095 bytes; a longer line goes on as the *next* command; EOF drops an unfinished line."""
    buf = bytearray()
    while True:
        if len(buf) == MAX_LINE - 1:
            return bytes(buf)
        c = STDIN.read(1)
        if not c:
            return None
        if c == b"\n":
            return bytes(buf)
        buf += c


def split_line(line):
    line = line.split(b"\0")[0]
    args, cur, state, q = [], None, "ws", 0
    for c in line:
        ch = bytes([c])
        if state == "ws":
            if ch.isspace():
                continue
            cur = bytearray()
            if ch in b"\"'":
                q, state = c, "quoted"
                continue
            state = "arg"
        if state == "arg":
            if c == 92:
                state = "arg\\"
                continue
            if ch.isspace():
                args.append(bytes(cur))
                state = "ws"
                if len(args) >= MAX_ARGS:
                    break
            else:
                cur += ch
        elif state == "quoted":
            if c == 92:
                state = "quoted\\"
                continue
            if c == q:
                args.append(bytes(cur))
                state = "ws"
                if len(args) >= MAX_ARGS:
                    break
            else:
                cur += ch
        elif state == "arg\\":
            cur += ch
            state = "arg"
        elif state == "quoted\\":
            cur += ch
            state = "quoted"
    if state != "ws":
        args.append(bytes(cur))
    return [a.decode("utf-8", "surrogateescape") for a in args]


def main(argv=None):
    global VERBOSE, QUIET
    argv = sys.argv if argv is None else argv
    log = os.environ.get("FAKE_SECURITY_LOG")
    if log:
        with open(log, "a") as f:
            f.write(json.dumps({"argv": argv, "environ": dict(os.environ)}) + "\n")
    opts, rest = getopt(argv, "hilp:qvR")
    inter = False
    for o, _a in opts:
        if o in "ip":
            inter = True
        elif o == "q":
            QUIET = True
        elif o == "v":
            VERBOSE = True
        elif o not in "lRh":
            return 2
    if rest:
        return execute(rest)
    if not inter:
        c_help([])
        return 2
    result = 0
    while True:
        line = read_line()
        if line is None:
            return result
        args = split_line(line)
        result = execute(args)
        if result == -1:
            return 0
        if result and not QUIET:
            err(f"{args[0]}: returned {result}\n")
