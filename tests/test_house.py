"""The rules of the house (the order of the rooms, the doors, the start-up), executed."""

from __future__ import annotations

import ast
import re
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

PATH = Path(__file__).resolve().parent.parent / "awsvault.py"
SOURCE = PATH.read_text(encoding="utf-8")
TREE = ast.parse(SOURCE)
BANNER = re.compile(r"^# =+\n# (.+)\n# =+\n((?:# .*\n)*)", re.MULTILINE)

# What only World, and what it is made of, may touch.
WORLD_MODULES = {
    "subprocess", "socket", "fcntl", "termios", "resource", "pty", "tty", "shutil", "tempfile", "select", "signal",
    "time", "mmap", "ctypes", "asyncio", "multiprocessing", "threading", "getpass", "pathlib",
}  # fmt: skip
WORLD_OS = {
    "open", "write", "read", "pread", "pwrite", "fork", "execv", "execve", "execvp", "execvpe", "execl", "execle", "system", "popen",
    "kill", "killpg", "unlink", "remove", "rename", "replace", "mkdir", "makedirs", "rmdir", "chmod", "chown", "link",
    "symlink", "truncate", "ftruncate", "fsync", "urandom", "isatty", "ttyname", "environb", "putenv", "scandir", "listdir",
    "posix_spawn", "dup", "dup2", "pipe", "umask", "setuid", "setsid", "utime", "stat", "lstat", "access", "readlink", "chdir",
    *(f"path.{name}" for name in ("exists", "lexists", "isfile", "isdir", "islink", "ismount", "getsize", "getmtime", "realpath", "samefile")),
}  # fmt: skip
# Servers own their sockets and threads; they open no other door.
OWN_MODULES = {"Servers": {"socket", "threading"}}
FORBIDDEN_AT_START = {
    "botocore", "cryptography", "urllib3", "http.server", "ssl", "urllib.request", "dataclasses", "inspect", "logging",
    "pathlib", "tempfile", "secrets", "uuid", "shutil", "subprocess", "ctypes", "typing", "argparse", "json", "configparser",
}  # fmt: skip
# Where a secret becomes text, and why. Adding a function is a decision.
REVEALERS = {
    "a keystore's own form of an item is written or read": (
        "wrap_item", "unwrap_item", "BusTools.labels", "BusTools._parse", "SecretService._search",
        "SecretService._store", "KWalletKeystore._load", "Keychain._add_line", "Keychain._create", "Keychain._interpret",
        "Keychain._list", "Keychain._load", "Keychain._store",
    ),
    "the JSON of keys or of a session is written or read": (
        "Vault.credentials", "Journals.get", "Vault._read_session", "Vault.store_credentials", "encode_member", "Credentials.from_members",
    ),
    "it is handed out, which is what the program is for": (
        "credential_variables", "process_document", "_document", "server_variables",
    ),
    "a server of ours gets it through a pipe, and compares what clients send": (
        "run_renewer", "CredentialService.__init__",
    ),
    "AWS is asked with it": ("Aws._client", "_mfa_params"),
    "the passphrase is stretched": ("derive_kek",),
    "it is the standard input or the output of a program": ("World.run", "World.spawn_detached", "World._started_by_ps", "has_alias"),
    "what a person typed turns out to be no secret": (
        "read_code", "read_key_id", "read_secret_key", "_mfa_serial_from_user", "confirmed", "World.ask",
    ),
}  # fmt: skip


def rooms():
    """(title, rule below the banner, first line, last line) of every room."""
    found = [
        (m[1], m[2], SOURCE.count("\n", 0, m.start()) + 1, m.end()) for m in BANNER.finditer(SOURCE)
    ]
    ends = [start - 1 for _, _, start, _ in found[1:]] + [SOURCE.count("\n")]
    return [(title, rule, start, end) for (title, rule, start, _), end in zip(found, ends)]


ROOMS = rooms()


def room_of(line):
    return next((i for i, (_, _, start, end) in enumerate(ROOMS) if start <= line <= end), -1)


def functions(node=TREE, prefix=""):
    """(qualified name, node) of every function and method; a nested function belongs to its outer one."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield f"{prefix}{child.name}", child
        elif isinstance(child, (ast.ClassDef, ast.If, ast.Try, ast.With)):
            inner = f"{prefix}{child.name}." if isinstance(child, ast.ClassDef) else prefix
            yield from functions(child, inner)


def without_annotations():
    """The module's tree without annotations and without what only the type checker reads."""

    class Strip(ast.NodeTransformer):
        def visit_arg(self, node):
            node.annotation = None
            return node

        def visit_FunctionDef(self, node):
            self.generic_visit(node)
            node.returns = None
            return node

        def visit_AnnAssign(self, node):
            self.generic_visit(node)
            node.annotation = ast.copy_location(ast.Constant(None), node)
            return node

        def visit_If(self, node):
            if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
                return [self.visit(other) for other in node.orelse]
            return self.generic_visit(node)

    return Strip().visit(ast.parse(SOURCE))


def top_level():
    """Name -> line of everything the module defines at its top."""
    defined = {}
    for node in TREE.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            defined.setdefault(node.name, node.lineno)
        for target in getattr(node, "targets", [getattr(node, "target", None)]):
            if isinstance(target, ast.Name):
                defined.setdefault(target.id, node.lineno)
    return defined


def test_the_docstring_lists_the_rooms_as_the_banners_name_them():
    listed = re.findall(r"^    ([A-Z][A-Za-z ]*?)  +\S", ast.get_docstring(TREE, clean=False), re.M)
    assert listed == [title for title, _, _, _ in ROOMS]


@pytest.mark.parametrize(("title", "rule"), [(title, rule) for title, rule, _, _ in ROOMS])
def test_every_room_says_its_rule(title, rule):
    assert len(rule) > 20, f"{title} needs a comment under its banner"


def test_no_room_uses_a_name_of_a_room_below():
    defined = top_level()
    upward = [
        f"line {node.lineno}: {node.id} of {ROOMS[room_of(defined[node.id])][0]}"
        for node in global_names(without_annotations(), frozenset())
        if node.id in defined and room_of(defined[node.id]) > room_of(node.lineno) >= 0
    ]
    assert not upward


def global_names(node, local):
    """Every use of a name that no enclosing function binds."""
    if isinstance(node, (ast.FunctionDef, ast.Lambda)):
        arguments = {
            argument.arg for argument in ast.walk(node.args) if isinstance(argument, ast.arg)
        }
        stored = {
            name.id
            for name in ast.walk(node)
            if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Store)
        }
        local = local | arguments | stored
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id not in local:
        yield node
    for child in ast.iter_child_nodes(node):
        yield from global_names(child, local)


def doors_outside_world():
    world = next(i for i, room in enumerate(ROOMS) if room[0] == "World")
    for node in ast.walk(without_annotations()):
        here = room_of(getattr(node, "lineno", 0))
        if here == world or here < 0:
            continue
        modules = WORLD_MODULES - OWN_MODULES.get(ROOMS[here][0], set())
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = (
                [node.module]
                if isinstance(node, ast.ImportFrom)
                else [alias.name for alias in node.names]
            )
            yield from (f"line {node.lineno}: import {name}" for name in names if name in modules)
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called in ("open", "input", "print") or called in {
                f"os.{name}" for name in WORLD_OS
            }:
                yield f"line {node.lineno}: {called}()"
            if re.fullmatch(r"(datetime\.)*(datetime|date)\.(now|utcnow|today)", called):
                yield f"line {node.lineno}: {called}()"
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) in modules:
            yield f"line {node.lineno}: {ast.unparse(node)}"  # of a lazily imported module
        elif isinstance(node, ast.Attribute) and ast.unparse(node) in (
            "sys.stdin",
            "sys.stdout",
            "sys.stderr",
        ):
            yield f"line {node.lineno}: {ast.unparse(node)}"


def test_only_world_touches_processes_files_clock_and_terminal():
    assert not list(doors_outside_world())


def test_the_environment_is_read_in_world_only():
    world = next(room for room in ROOMS if room[0] == "World")
    aws = next(room for room in ROOMS if room[0] == "AWS")
    reads = [
        node.lineno
        for node in ast.walk(TREE)
        if isinstance(node, ast.Attribute) and ast.unparse(node) == "os.environ"
    ]
    # In the AWS room inside World's LibraryEnvironment: the one setting that botocore takes no other way.
    outside = [line for line in reads if not world[2] <= line <= world[3]]
    assert all(aws[2] <= line <= aws[3] for line in outside)
    assert len(outside) <= 1


def test_secrets_become_text_only_in_the_listed_functions():
    revealing = {
        name
        for name, node in functions()
        for inner in ast.walk(node)
        if isinstance(inner, ast.Attribute) and inner.attr in ("reveal", "reveal_bytes")
    }
    assert revealing == {name for names in REVEALERS.values() for name in names}


def test_botocore_is_imported_in_the_aws_room_only():
    aws = next(i for i, room in enumerate(ROOMS) if room[0] == "AWS")
    elsewhere = [
        node.lineno
        for node in ast.walk(TREE)
        if isinstance(node, (ast.Import, ast.ImportFrom))
        and "botocore" in ast.unparse(node)
        and room_of(node.lineno) != aws
    ]
    assert not elsewhere


def inherited_docstrings():
    """Qualified names of methods that a base class of the module documents."""
    classes = {node.name: node for node in ast.walk(TREE) if isinstance(node, ast.ClassDef)}

    def documented(name):
        node = classes.get(name)
        if node is None:
            return set()
        own = {f.name for f in node.body if isinstance(f, ast.FunctionDef) and ast.get_docstring(f)}
        return own.union(*(documented(ast.unparse(base)) for base in node.bases), set())

    for name, node in classes.items():
        for base in node.bases:
            for method in documented(ast.unparse(base)):
                yield f"{name}.{method}"


def test_every_public_class_and_function_says_what_a_caller_needs():
    inherited = set(inherited_docstrings())
    protocol = {"Bundle"}  # its class says it
    bare = [
        name
        for name, node in functions()
        if not name.rpartition(".")[2].startswith("_")
        and not name.startswith("_")
        and name.partition(".")[0] not in protocol
        and name not in ("dataclass_transform",)
        and not ast.get_docstring(node)
        and name not in inherited
    ]
    bare += [
        node.name
        for node in TREE.body
        if isinstance(node, ast.ClassDef)
        and not node.name.startswith("_")
        and not ast.get_docstring(node)
    ]
    assert not bare


def body_lines(node):
    """Lines of a function's body less its docstring; a nested function counts with its outer one."""
    first = node.body[1] if ast.get_docstring(node) and len(node.body) > 1 else node.body[0]
    return node.end_lineno - first.lineno + 1


def test_functions_are_short():
    lengths = {name: body_lines(node) for name, node in functions()}
    long = {name: lines for name, lines in lengths.items() if lines > 60}
    assert not long
    assert sum(lines > 40 for lines in lengths.values()) <= len(lengths) // 50
    assert statistics.median(lengths.values()) <= 10


def test_the_module_stays_readable_in_size():
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
    lines = {number for number, line in enumerate(SOURCE.splitlines(), 1) if is_code(line)}
    for node in ast.walk(TREE):
        if isinstance(node, documented) and ast.get_docstring(node) is not None:
            lines -= {*range(node.body[0].lineno, node.body[0].end_lineno + 1)}
    assert len(lines) < 9000


def is_code(line):
    return bool(line.strip()) and not line.lstrip().startswith("#")


def test_no_static_methods_no_vague_names_no_leftovers():
    assert "@staticmethod" not in SOURCE
    vague = [
        node.name
        for node in ast.walk(TREE)
        if isinstance(node, ast.ClassDef) and re.search(r"Manager|Helper|Util", node.name)
    ]
    assert not vague
    assert not re.search(r"\b(TODO|FIXME|XXX|HACK)\b", SOURCE)


def test_importing_it_loads_nothing_slow():
    code = "import sys; before = set(sys.modules); import awsvault; print(*(set(sys.modules) - before))"
    done = subprocess.run(
        [
            sys.executable,
            "-I",
            "-S",
            "-c",
            f"import sys; sys.path.insert(0, {str(PATH.parent)!r}); {code}",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = set(done.stdout.split())
    assert "awsvault" in loaded
    assert not loaded & FORBIDDEN_AT_START


def test_messages_are_lower_case_without_a_full_stop():
    """First text of every error that is raised: no capital of a sentence, no full stop at the end."""
    errors = re.compile(r"(Error|NeedsUser|ItemNotFound|DamagedItem)$")
    wrong = []
    for node in ast.walk(TREE):
        if not (isinstance(node, ast.Call) and errors.search(ast.unparse(node.func)) and node.args):
            continue
        first = node.args[0]
        parts = first.values if isinstance(first, ast.JoinedStr) else [first]
        texts = [part.value for part in (parts[0], parts[-1]) if isinstance(part, ast.Constant)]
        for text in texts:
            if isinstance(text, str) and (text.endswith(".") or re.match(r"[A-Z][a-z]+ ", text)):
                wrong.append(f"line {node.lineno}: {text}")
    assert not wrong
