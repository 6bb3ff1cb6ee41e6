"""Stand-ins for secret-tool, kwallet-query, busctl, gdbus, pass and passage, for tests.

Which one it is tells the name it is called by. They share one state, a JSON file named by
$FAKE_STATE, and do what the real ones were seen to do (libsecret 0.20.5, kwallet 5.103, systemd
252, pass 1.7.4): secret-tool cuts what is longer than 8191 bytes and ends with 0, kwallet-query
ends with 0 when it has failed and makes no entry. Each call is recorded in $FAKE_LOG.
"""

import base64
import fcntl
import json
import os
import sys

ROOT = "/org/freedesktop/secrets"
NO_PROVIDER = "The name org.freedesktop.secrets was not provided by any .service files"


class Failure(Exception):
    """What a call over the bus answers instead of a value."""


def say(text, stream=sys.stdout):
    stream.buffer.write(
        text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape")
    )


def fail(text, status=1):
    say(text + "\n", sys.stderr)
    return status


# -- the Secret Service ------------------------------------------------------------------------


def items_of(state, path):
    return state["collections"][path.rpartition("/")[2]]["items"]


def matches(state, wanted, collection=None):
    """(path, item) of what has at least these attributes."""
    for name, content in state["collections"].items():
        if collection in (None, name):
            for number, item in content["items"].items():
                if wanted.items() <= item["attributes"].items():
                    yield f"{ROOT}/collection/{name}/{number}", content, item


def secret_tool(argv, state):
    if "collections" not in state:
        return fail(f"secret-tool: {NO_PROVIDER}")
    options, words = argv[1 : argv.index("--")], argv[argv.index("--") + 1 :]
    wanted = dict(zip(words[::2], words[1::2]))
    if argv[0] == "search":
        return search(options, wanted, state)
    if argv[0] != "store" or not wanted:
        return fail("usage: secret-tool store|search", 2)
    named = {option.partition("=")[0]: option.partition("=")[2] for option in options}
    name = named.get("--collection", f"{ROOT}/collection/{state['default']}").rpartition("/")[2]
    data = sys.stdin.buffer.read()
    if len(data) > 8191:
        say("secret-tool: password is too long\n", sys.stderr)
        data = data[:8191]
    if name not in state["collections"]:
        return fail(f'secret-tool: Object does not exist at path "{ROOT}/collection/{name}"')
    collection = state["collections"][name]
    if collection["locked"]:
        return fail("secret-tool: Cannot create an item in a locked collection")
    state["clock"] = state.get("clock", 1_600_000_000) + 1
    item = {"label": named["--label"], "attributes": wanted, "modified": state["clock"],
            "secret": base64.b64encode(data).decode()}  # fmt: skip
    for path, _collection, _item in matches(state, wanted, name):
        collection["items"][path.rpartition("/")[2]] = item
        return 0
    state["last"] = state.get("last", 0) + 1
    collection["items"][str(state["last"])] = item
    return 0


def search(options, wanted, state):
    import datetime

    for path, collection, item in matches(state, wanted):
        if (
            collection["locked"]
            and "--unlock" in options
            and os.environ.get("FAKE_PROMPT") == "yes"
        ):
            collection["locked"] = False
        moment = datetime.datetime.fromtimestamp(item["modified"], datetime.timezone.utc)
        text = f"{moment:%Y-%m-%d %H:%M:%S}"
        say(f"[/{path.rpartition('/')[2]}]\nlabel = {item['label']}\n")
        if collection["locked"]:
            say("secret-tool: Cannot get secret of a locked object\n", sys.stderr)
        else:
            say(b"secret = " + base64.b64decode(item["secret"]) + b"\n")
        say(f"created = {text}\nmodified = {text}\nschema = org.freedesktop.Secret.Generic\n")
        for name, value in item["attributes"].items():
            say(f"attribute.{name} = {value}\n", sys.stderr)
    return 0


def secrets_call(state, path, method, arguments):
    if "collections" not in state:
        raise Failure(NO_PROVIDER)
    name = path.rpartition("/")[2]
    if method == "ReadAlias":
        return f"{ROOT}/collection/{state['default']}" if state["default"] else "/"
    if method == "Unlock":
        return []
    if method == "GetAll":
        kind = arguments[0].rpartition(".")[2]
        return {prop: secrets_property(state, path, prop) for prop in PROPERTIES[kind]}
    if method == "SearchItems":
        if name not in state["collections"]:
            raise Failure(f"No such object path '{path}'")
        return [found for found, _collection, _item in matches(state, arguments[0], name)]
    if method == "Delete":
        del items_of(state, path.rpartition("/")[0])[name]
        return "/"
    raise Failure(f"Unknown method {method}")


PROPERTIES = {
    "Service": ["Collections"],
    "Collection": ["Locked", "Items"],
    "Item": ["Label", "Attributes", "Modified"],
}


def secrets_property(state, path, name):
    if name == "Collections":
        return [f"{ROOT}/collection/{collection}" for collection in state["collections"]]
    if name in ("Locked", "Items"):
        collection = state["collections"][path.rpartition("/")[2]]
        return (
            collection["locked"]
            if name == "Locked"
            else [f"{path}/{n}" for n in collection["items"]]
        )
    item = items_of(state, path.rpartition("/")[0])[path.rpartition("/")[2]]
    return item[name.lower()]


# -- KWallet --------------------------------------------------------------------------------


def kwallet_query(argv, state):
    folder, wallet = argv[argv.index("-f") + 1], argv[-1]
    if wallet not in state.get("wallets", {}):
        say(f"Wallet {wallet} not found\n")
        return 1
    entries = state["wallets"][wallet].get(folder)
    what, _, name = argv[0].partition("=")
    if entries is None:
        say(f"The folder {folder} does not exist!\n")
        return 0
    if what == "--read-password":
        kind, text = entries.get(name, (0, ""))
        if kind != 1:
            say(f"Failed to read entry {name} value from the {wallet} wallet.\n")
            return 0
        say("\n".join(line for line in text.split("\n") if line) + "\n")
        return 0
    text = sys.stdin.buffer.read().split(b"\0")[0].decode("utf-8", "replace")
    if entries.get(name, (0, ""))[0] == 1:
        entries[name] = (1, text.lstrip("\n")[:-1] if text.endswith("\n") else text.lstrip("\n"))
    return 0


def kwallet_call(state, method, arguments):
    if "wallets" not in state:
        raise Failure("The name org.kde.kwalletd5 was not provided by any .service files")
    if not state.get("enabled", True):
        raise Failure("Message recipient disconnected from message bus without replying")
    wallets = state["wallets"]
    if method in ("isEnabled", "wallets"):
        return True if method == "isEnabled" else list(wallets)
    if method in ("isOpen", "open"):
        return True if method == "isOpen" else 7
    folders = wallets["aws-vault"]
    if method == "sync":
        return None
    if method == "createFolder":
        folders.setdefault(arguments[1], {})
        return True
    entries = folders.get(arguments[1], {})
    if method == "entryList":
        return sorted(entries)
    kind, text = entries.get(arguments[2], (0, ""))
    if method == "entryType":
        return kind
    if method == "readPassword":
        return text if kind == 1 else ""
    if method == "readEntry":
        return list(text.encode())
    if method == "writePassword":
        entries[arguments[2]] = (1, arguments[3])
        return 0
    if method == "removeEntry":
        return 0 if entries.pop(arguments[2], None) else -3
    if method == "renameEntry" and arguments[3] not in entries:
        entries[arguments[3]] = entries.pop(arguments[2])
        return 0
    raise Failure(f"No such method {method}")


# -- the bus ---------------------------------------------------------------------------------


def answer(state, name, path, method, arguments):
    if name == "org.freedesktop.DBus":
        return "collections" in state
    if name == "org.kde.kwalletd5":
        return kwallet_call(state, method, arguments)
    return secrets_call(state, path, method, arguments)


def busctl(argv, state):
    name, path, _interface, method, *rest = argv[argv.index("call") + 1 :]
    assert argv.index("--") < argv.index("call")
    signature, words = (rest[0], rest[1:]) if rest else ("", [])
    if signature == "a{ss}":
        arguments = [dict(zip(words[1::2], words[2::2]))]
    else:
        arguments = words
    try:
        value = answer(state, name, path, method, arguments)
    except Failure as failure:
        return fail(f"Call failed: {failure}")
    if method == "GetAll":
        value = {prop: {"type": "v", "data": data} for prop, data in value.items()}
    say(json.dumps({"type": "x", "data": [value]}) + "\n")
    return 0


def gvariant(value):
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str) and value.startswith(ROOT):
        return f"objectpath '{value}'"
    if isinstance(value, list):
        return f"[{', '.join(map(gvariant, value))}]" if value else "@ao []"
    return repr(value)


def gdbus(argv, state):
    named = {argv[i]: argv[i + 1] for i in range(len(argv) - 1) if argv[i].startswith("--")}
    path = named["--object-path"]
    if argv[0] == "introspect":
        return introspect(path, state)
    method = named["--method"].rpartition(".")[2]
    words = argv[argv.index("--method") + 2 :]
    arguments = [json.loads(word) for word in words]
    try:
        value = answer(state, named["--dest"], path, method, arguments)
    except Failure as failure:
        return fail(f"Error: GDBus.Error:org.freedesktop.DBus.Error.Failed: {failure}")
    if method == "GetAll":
        pairs = (f"'{prop}': <{gvariant(data)}>" for prop, data in value.items())
        say(f"({{{', '.join(pairs)}}},)\n")
    else:
        say(f"({gvariant(value)},)\n")
    return 0


def introspect(path, state):
    say(f"node {path} {{\n")
    for number, item in items_of(state, path).items():
        say(f"  node {path}/{number} {{\n    interface org.freedesktop.Secret.Item {{\n")
        say(f"      properties:\n        readwrite s Label = {item['label']!r};\n")
        say(f"        readwrite a{{ss}} Attributes = {item['attributes']!r};\n    }};\n  }};\n")
    say("};\n")
    return 0


# -- pass and passage --------------------------------------------------------------------------


def password_store(variable, suffix):
    def run(argv, _state):
        name = argv[-1]
        path = os.path.join(os.environ[variable], name + suffix)
        if name.startswith("-"):
            return fail("Usage: pass ...")
        if argv[0] == "insert":
            os.makedirs(os.path.dirname(path), exist_ok=True)
            data = sys.stdin.buffer.read()
            with open(path, "wb") as file:
                file.write(base64.b64encode(data))
            return 0
        if not os.path.exists(path):
            return fail(f"Error: {name} is not in the password store.")
        if argv[0] == "rm":
            os.unlink(path)
            return 0
        with open(path, "rb") as file:
            say(base64.b64decode(file.read()))
        return 0

    return run


TOOLS = {
    "secret-tool": secret_tool,
    "kwallet-query": kwallet_query,
    "busctl": busctl,
    "gdbus": gdbus,
    "pass": password_store("PASSWORD_STORE_DIR", ".gpg"),
    "passage": password_store("PASSAGE_DIR", ".age"),
}


def main():
    name, argv = os.path.basename(sys.argv[0]), sys.argv[1:]
    with open(os.environ["FAKE_LOG"], "a") as log:
        log.write(json.dumps({"argv": [name, *argv], "environ": dict(os.environ)}) + "\n")
    if name in os.environ.get("FAKE_HANG", "").split():
        os.read(os.open(os.environ["FAKE_PIPE"], os.O_RDONLY), 1)
    with open(os.environ["FAKE_STATE"], "r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        state = json.load(file)
        status = TOOLS[name](argv, state)
        file.seek(0)
        file.truncate()
        json.dump(state, file)
    sys.stdout.flush()
    return status
