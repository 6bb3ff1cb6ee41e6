"""README and docs against the program: command lines, flags, variables, keys, links, errors."""

from __future__ import annotations

import ast
import functools
import re
import shlex
from pathlib import Path

import pytest

import awsvault

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [README, *DOCS]
TEXTS = {page.relative_to(ROOT).as_posix(): page.read_text(encoding="utf-8") for page in PAGES}
REFERENCE = TEXTS["docs/reference.md"]
SOURCE = (ROOT / "awsvault.py").read_text(encoding="utf-8")
STARTER = (ROOT / "__main__.py").read_text(encoding="utf-8")
SOURCES = SOURCE + STARTER + (ROOT / "build_zipapp.py").read_text(encoding="utf-8")

# Flags by which the program talks to itself.
INTERNAL = {"--until", "--detached"}
# What stands for a word of the reader's, and a word that will do.
EXAMPLES = {"NAME": "file", "COMMAND": "exec", "PROFILE": "prod"}


def spans(text):
    """The code spans of a text, without its code blocks; `\\|` in a table is a `|`."""
    prose = "\n".join(line for line in text.splitlines() if not line.startswith("    "))
    return [
        found.replace("\\|", "|").replace("\n", " ").strip()
        for found in re.findall(r"(?<!`)`([^`]+)`(?!`)", prose)
    ]


def code(text):
    """The lines of the code blocks and the code spans of a text."""
    return blocks(text) + spans(text)


def blocks(text):
    """The lines of the code blocks of a text."""
    return [line.strip() for line in text.splitlines() if line.startswith("    ")]


CALL = r"(?:awsvault|python[\d.]* awsvault\.pyz) (.*)"


def command_lines(text):
    """Each call of the program in a text's code, as the words after its name."""
    for start, lines in (
        (r"(?:^|[\s(])", blocks(text)),
        # In prose its name may be that of a keyring, or the subject of a sentence.
        (r"(?:^|[;|(] ?|\bsudo |\brun )", spans(text)),
    ):
        for line in lines:
            bare = re.sub(r"(^| )# .*| *\d?< ?<\(.*", "", line)
            for match in re.finditer(start + CALL, bare):
                yield shlex.split(re.split(r"\s*(?:[|;>]|\)\"|\)$)", match[1])[0])


def example(words):
    """The words with the reader's own filled in."""
    return [EXAMPLES.get(word, word) for word in words if word != "..."]


class Reader(awsvault.World):
    """A World in which a command line is read and nothing is done."""

    def __init__(self):
        super().__init__()
        self.environ = {"HOME": "/nowhere"}

    def out(self, text):
        pass

    def say(self, text):
        raise AssertionError(text)

    def read_descriptor(self, fd, limit):
        return b"passphrase"

    def guard_memory(self):
        pass


def check_only(command):
    """A command that checks what it is told and does nothing."""

    def run(app, **words):
        if command.name == "exec":
            flags = {name: words[name] for name in awsvault.SERVER_FLAGS}
            awsvault.server_mode(app.world, no_session=words["no_session"], **flags)
            if words["json"]:
                awsvault.refuse_together({**flags, "process": bool(words["process"])}, "--json")
            if words["process"]:
                awsvault.refuse_together(flags, "--process")
                awsvault.check_process_names(words["profile"], words["process"], {})
        return 0

    return command.replace(run=run)


@pytest.fixture
def parse(monkeypatch):
    """Have the program read a command line, to the point where it would act on it."""
    commands = tuple(map(check_only, awsvault.COMMANDS))
    monkeypatch.setattr(awsvault, "COMMANDS", commands)
    monkeypatch.setattr(awsvault, "can_see_peers", lambda world: True)
    return lambda words: awsvault.run_line(Reader(), example(words))


def is_mention(words):
    """Whether a line only names a command, as in prose: `awsvault add` the keys again."""
    return len(words) == 1 and not words[0].startswith("-")


LINES = [(name, words) for name, text in TEXTS.items() for words in command_lines(text)]


@pytest.mark.parametrize(("page", "words"), LINES, ids=lambda value: str(value)[:60])
def test_every_command_line_parses(parse, page, words):
    if is_mention(example(words)):
        assert words == ["help"] or awsvault.find_command(*words)
    else:
        assert parse(words) == 0


@pytest.mark.parametrize(
    ("page", "least"),
    [("README.md", 15), ("docs/process-mode.md", 4), ("docs/macos.md", 6), ("docs/servers.md", 2)],
)
def test_command_lines_are_found(page, least):
    assert sum(name == page for name, _ in LINES) >= least


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("    awsvault exec prod -- ls  # why", [["exec", "prod", "--", "ls"]]),
        ("    python3 awsvault.pyz add prod", [["add", "prod"]]),
        ("    ssh -t jump python3 awsvault.pyz add prod", [["add", "prod"]]),
        ('    eval "$(awsvault export prod)"', [["export", "prod"]]),
        ("    awsvault exec p -- ./x 3< <(y)", [["exec", "p", "--", "./x"]]),
        ("| `sudo awsvault proxy; ls` |", [["proxy"]]),
        (r"| `awsvault list \| cat` |", [["list"]]),
        ("`run awsvault\nlist`", [["list"]]),
        ("`awsvault.py`, `aws-vault list`, `awsvault-check`, awsvault list", []),
    ],
)
def test_what_a_command_line_is(text, words):
    assert list(command_lines(text)) == words


@pytest.mark.parametrize(
    "line",
    [
        "frobnicate", "exec --sever prod -- ls", "exec prod ls -l", "add", "list prod",
        "exec --lazy prod -- ls", "exec -d soon prod", "backends --use nothing",
        "export --format=yaml prod", "exec --server -n prod -- ls", "exec --process prod ls",
        "exec --process=a:b -- ls", "exec --json --server prod", "--backend none list",
        "exec --min-ttl=long prod -- ls",
    ],
)  # fmt: skip
def test_a_wrong_command_line_is_refused(parse, line):
    with pytest.raises(awsvault.UsageError):
        parse(shlex.split(line))


# -- the reference -------------------------------------------------------------------------


def section(text, heading):
    """What stands below a heading, to the next one of its rank or higher."""
    rank = len(heading.split()[0])
    body = text.partition(f"\n{heading}\n")[2]
    assert body, f"no section {heading!r}"
    return re.split(rf"\n#{{1,{rank}}} ", body)[0]


def rows(text):
    """The cells of each row of the tables in a text, without the heads."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    rules = {number for number, row in enumerate(cells) if all(map(RULE.fullmatch, row))}
    return [row for number, row in enumerate(cells) if not {number, number + 1} & rules]


RULE = re.compile("-+")


def flag_rows(text):
    """The flags of each row that begins with one, and the other cells."""
    found = [(re.findall(r"`(--?[a-z][\w-]*)`", row[0]), row[1:]) for row in rows(text)]
    return [(flags, cells) for flags, cells in found if flags]


def shown_names(option):
    """An option's flags as the help shows them: of a switch, the form that changes something."""
    off = option.boolean and option.default is True
    return [f"--no-{option.names[0][2:]}"] if off else list(option.names)


def command_sections(name):
    """The sections of the reference that are about a command, or its first-word alias."""
    heads = re.findall(r"^### .*$", REFERENCE, re.M)
    return [section(REFERENCE, head) for head in heads if f"`{name}`" in head]


COMMANDS = [command for command in awsvault.COMMANDS if not command.name.startswith("_")]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_the_reference_has_every_flag_of_a_command_and_no_other(command):
    sections = command_sections(command.name)
    assert sections
    documented = [flags for text in sections for flags, _ in flag_rows(text)]
    known = [shown_names(option) for option in command.options if option.names[0] not in INTERNAL]
    assert sorted(documented) == sorted(known)


def test_the_reference_has_every_global_flag_and_no_other():
    documented = [flags for flags, _ in flag_rows(section(REFERENCE, "## Global flags"))]
    assert documented == [shown_names(option) for option in awsvault.GLOBAL_OPTIONS]


@pytest.mark.parametrize(
    "option",
    [
        option
        for command in [None, *COMMANDS]
        for option in (command.options if command else awsvault.GLOBAL_OPTIONS)
        if option.names[0] not in INTERNAL
    ],
    ids=lambda option: option.names[0],
)
def test_a_flag_s_row_has_its_variable_default_and_choices(option):
    shown = shown_names(option)
    for flags, cells in flag_rows(REFERENCE):
        if flags == shown:
            row = " ".join(cells)
            default = str(option.default) if option.env and option.default else ""
            if "`--backend`" in row:  # it refers to that flag's choices
                return
            for word in filter(None, (option.env, default, *option.choices)):
                assert f"`{word}`" in row, f"{shown}: {word}"
            return
    pytest.fail(f"no row for {shown}")


def test_the_reference_has_every_command_and_alias_and_no_other():
    table = section(REFERENCE, "## The command line")
    documented = {
        span.split()[0] for row in rows(table.partition("\n### ")[0]) for span in spans(row[0])
    }
    known = {name for command in COMMANDS for name in (command.name, *command.aliases)} | {"help"}
    assert documented == known


def test_every_flag_in_the_docs_exists():
    options = [*awsvault.GLOBAL_OPTIONS]
    for command in awsvault.COMMANDS:
        options += command.options
    known = {name for option in options for name in option.names} | {"--help", "-h"}
    known |= {f"--no-{option.names[0][2:]}" for option in options if option.boolean}
    known |= {"--no-...", "--profile"}  # any, and the AWS CLI's
    absent = section(TEXTS["docs/differences.md"], "## Not there yet")
    used = {
        (page, flag)
        for page, text in TEXTS.items()
        for span in spans(text.replace(absent, ""))
        for flag in re.findall(r"^(--[a-z][\w.-]*|-[a-zA-Z](?![a-zA-Z]))", span)
    }
    assert not {(page, flag) for page, flag in used if flag not in known}
    assert len({flag for _, flag in used}) > 30


@pytest.mark.parametrize("what", ["Commands", "Flags"])
def test_what_is_said_to_be_missing_is_missing(what):
    absent = section(TEXTS["docs/differences.md"], "## Not there yet")
    bullet = re.search(rf"^\* {what}: (.*(?:\n  .*)*)", absent, re.M)[1]
    known = {name for command in awsvault.COMMANDS for name in (command.name, *command.aliases)}
    for command in awsvault.COMMANDS:
        known |= {name for option in command.options for name in option.names}
    known |= {name for option in awsvault.GLOBAL_OPTIONS for name in option.names}
    assert len(spans(bullet)) > 1
    assert not known & set(spans(bullet))


# -- variables and settings --------------------------------------------------------------------


def read_variables():
    """Every environment variable that the program reads by its name."""
    found = set(re.findall(r"environ(?:\.get\(|\[)\s*\"([A-Z][A-Z0-9_]+)\"", SOURCES))
    found |= {variable for setting in awsvault.SETTINGS.values() for variable in setting.env}
    return found | {awsvault.PASS.folder_variable, awsvault.PASSAGE.folder_variable}


def named_variables(text):
    """The variables in a text's code."""
    return set(re.findall(r"\b_?[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+\b", " ".join(code(text))))


def own_variables(text):
    return set(re.findall(r"\bAWS_VAULT(?:_[A-Z]+)*\b", text))


@pytest.mark.parametrize("variable", sorted(read_variables() | own_variables(SOURCES)))
def test_the_reference_has_every_variable(variable):
    assert re.search(rf"`\$?{variable}(?:=\d)?`", REFERENCE)


# Of other programs: botocore, aws-vault.
OTHERS = {"AWS_METADATA_SERVICE_NUM_ATTEMPTS", "DISABLE_KWALLET"}
# Read by Python's own code for proxies.
PROXIES = {"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"}


@pytest.mark.parametrize("page", TEXTS)
def test_every_variable_in_the_docs_exists(page):
    named = named_variables(TEXTS[page]) | own_variables(TEXTS[page])
    known = set(re.findall(r"\b_?[A-Z][A-Z0-9_]+\b", SOURCES)) | PROXIES | OTHERS
    assert named <= known


@pytest.mark.parametrize("variable", sorted(awsvault.REMOVED_VARIABLES))
def test_the_reference_has_every_variable_that_a_command_does_not_see(variable):
    removed = section(REFERENCE, "## What the command sees").partition("Then set:")[0]
    assert variable in spans(removed)


def test_the_reference_says_nothing_is_removed_that_is_not():
    removed = section(REFERENCE, "## What the command sees").partition("Then set:")[0]
    known = awsvault.REMOVED_VARIABLES | {*awsvault.REMOVED_WITH_SERVER, awsvault.REMOVED_PREFIX}
    assert {span for span in spans(removed) if span.isupper()} == known


def documented_settings():
    """(key, variables, inherited) of each row of the config table."""
    for row in rows(section(REFERENCE, "## The config file")):
        yield spans(row[0])[0], tuple(spans(row[1])), row[0].endswith("*")


def test_the_reference_has_every_config_key_its_variables_and_whether_it_is_inherited():
    known = [
        (setting.name, setting.env, setting.inherited)
        for setting in awsvault.SETTINGS.values()
        if setting.name not in awsvault.OTHER_SOURCES
    ]
    assert sorted(documented_settings()) == sorted([*known, ("include_profile", (), False)])


@pytest.mark.parametrize(
    ("words", "heading"),
    [
        (awsvault.OTHER_SOURCES, "## The config file"),
        (tuple(awsvault.BACKENDS), "## Global flags"),
        (tuple(awsvault.EXPORT_FORMATS), "### `export`"),
        (awsvault.WINDOW_PROMPTERS, "## MFA codes"),
    ],
)
def test_the_reference_has_every_choice(words, heading):
    assert set(words) <= set(spans(section(REFERENCE, heading)))


def test_the_reference_has_every_prompter():
    table = rows(section(REFERENCE, "## MFA codes"))
    assert [spans(row[0])[0] for row in table] == list(awsvault.PROMPTERS)


def test_the_keystores_page_has_every_keystore_in_the_order_of_choice():
    page = TEXTS["docs/keystores.md"]
    table = rows(page.partition("\n## ")[0])
    assert [name for row in table for name in spans(row[0])] == list(awsvault.BACKENDS)
    order = re.search(r"The first of ([\w, -]+) that works here", page)[1]
    automatic = [name for name in awsvault.BACKENDS if name not in awsvault.NOT_AUTOMATIC]
    assert order.split(", ") == automatic


def test_the_keystores_page_has_the_flags_of_every_keystore_and_their_variables():
    table = rows(section(TEXTS["docs/keystores.md"], "## Flags and variables"))
    documented = {tuple(re.findall(r"--[\w-]+|AWS_\w+", " ".join(row[:2]))) for row in table}
    about = re.compile("backend|keychain|secret|kwallet|pass-")
    options = [option for option in awsvault.GLOBAL_OPTIONS if about.match(option.names[0][2:])]
    assert documented == {(option.names[0], option.env) for option in options}


def test_the_reference_has_every_exit_status():
    table = {row[0] for row in rows(section(REFERENCE, "## Exit statuses"))}
    codes = {
        str(value) for name, value in vars(awsvault).items() if re.fullmatch(r"EXIT_[A-Z_]+", name)
    }
    assert len(codes) >= 7
    assert table == codes | {"0", "1", "the command's own", "128 + n"}


# -- links, targets, errors ----------------------------------------------------------------------


def anchors(text):
    """The anchors of a page's headings, as GitHub makes them."""
    heads = re.findall(r"^#+ (.*)$", re.sub(r"^    .*$", "", text, flags=re.M), re.M)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


LINKS = [
    (page, link)
    for page, text in {**TEXTS, "CHANGELOG.md": (ROOT / "CHANGELOG.md").read_text()}.items()
    for link in re.findall(r"\]\(([^)\s]+)\)", text)
    if "://" not in link
]


@pytest.mark.parametrize(("page", "link"), LINKS)
def test_every_local_link_leads_somewhere(page, link):
    path, _, anchor = link.partition("#")
    target = (ROOT / page).parent / path if path else ROOT / page
    assert target.is_file()
    assert not anchor or anchor in anchors(target.read_text(encoding="utf-8"))


def test_the_readme_leads_to_every_page():
    linked = {link.partition("#")[0] for page, link in LINKS if page == "README.md"}
    assert {page.relative_to(ROOT).as_posix() for page in DOCS} <= linked


MAKE = [
    (page, match[1])
    for page, text in TEXTS.items()
    for line in code(text)
    if (match := re.match(r"make ([\w./-]+)", line))
]


@pytest.mark.parametrize(("page", "target"), MAKE)
def test_every_make_target_exists(page, target):
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert re.search(rf"^{re.escape(target)}( [\w./-]+)*:", makefile, re.M)


def test_links_and_targets_are_found():
    assert len(LINKS) > 20
    assert {"demo", "test", "pyz", "bench"} <= {target for _, target in MAKE}


@functools.cache
def templates():
    """Two patterns for each text of the program, in which what is filled in is anything.

    The first is the whole, and the second its beginning, with 10 letters at least.
    """
    found = set()
    for node in [*ast.walk(ast.parse(SOURCE)), *ast.walk(ast.parse(STARTER))]:
        if isinstance(node, ast.JoinedStr):
            parts = [part.value if isinstance(part, ast.Constant) else "\0" for part in node.values]
            found.update("".join(parts).splitlines())
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.update(re.sub(r"\{\w+\}|%d", "\0", node.value).splitlines())
    texts = [re.sub(r"^(awsvault: error|warning|note): ", "", text) for text in found]
    return [(letters(text), *pattern(text)) for text in texts if letters(text) >= 10]


def letters(text):
    return len(re.findall("[a-z]", text))


def pattern(text):
    words = [re.escape(word).replace("\0", ".*") for word in re.split("(?<= )", text)]
    least = next(count for count in range(99) if letters(" ".join(text.split(" ")[:count])) >= 10)
    rest = "".join(f"(?:{word}" for word in words[least:]) + ")?" * len(words[least:])
    # A text may be filled into one of a few words, and words may follow it in brackets.
    before, after = "(?:.{0,45}[ :] ?)?", r"(?: \(\.\.\.\))?"
    return (
        re.compile(before + "".join(words) + after),
        re.compile(before + "".join(words[:least]) + rest),
    )


def says(quotation):
    """Whether the program has such a text; one that ends in dots is only the beginning.

    A third of the letters must be the program's, and not what is filled in.
    """
    bare = re.sub("^(warning|note): ", "", quotation)
    begun = bare.endswith("...") and bare[:-3]
    return any(
        3 * own >= letters(bare)
        and (whole.fullmatch(bare) or (begun and beginning.fullmatch(begun)))
        for own, whole, beginning in templates()
    )


QUOTED = [
    quotation for row in rows(TEXTS["docs/troubleshooting.md"]) for quotation in spans(row[0])
]


@pytest.mark.parametrize("quotation", QUOTED)
def test_every_quoted_error_is_one_of_the_program_s(quotation):
    assert says(quotation)


@pytest.mark.parametrize(
    "quotation",
    [
        "the keyring 'x' is closed, and nobody can be asked for its password here",
        "wrong password for ...", "the Secret Service is not here: ...",
        "no remote port for the server: ...", "pass did not start within N seconds",
        "nobody answered zenity in 90 seconds",
        "... would be taken instead of awsvault's credentials",
    ],
)  # fmt: skip
def test_an_error_that_does_not_exist_is_noticed(quotation):
    assert not says(quotation)
    assert len(QUOTED) > 60


@pytest.mark.parametrize("page", TEXTS)
def test_pages_have_no_stray_blank_lines_and_no_placeholders(page):
    text = TEXTS[page]
    assert "\n\n\n" not in text
    assert text.endswith("\n")
    assert not re.search(r"\b(TODO|TBD|FIXME|XXX)\b|[ \t]$", text, re.M)
    assert not re.search(r"^(#+) .*\n+(?:\1 |\Z)", text, re.M), "a section without text"
