"""Manual pages and completion say what the program says of itself. No daemon is needed."""

import os
import re
import shutil
import signal
import subprocess

import pytest

import lib

pytestmark = pytest.mark.nofuse
MAN = os.path.join(lib.REPO, "docs", "man")
COMPLETION = os.path.join(lib.REPO, "docs", "completion")


def subcommands(*command):
    """What `claudefs COMMAND --help` lists; empty when it is no group."""
    text = lib.claudefs(*command, "--help").stdout
    listed = re.search(r"^commands:\n((?:  .*\n)+)", text, re.MULTILINE)
    return [line.split()[0] for line in listed[1].splitlines()] if listed else []


def commands():
    for name in subcommands():
        inner = [] if name == "version" else subcommands(name)
        yield from ((name, sub) for sub in inner) if inner else [(name,)]


ALL = list(commands())


def page(name):
    with open(os.path.join(MAN, f"claudefs-{name}.1"), encoding="utf-8") as f:
        text = f.read()
    link = re.fullmatch(r"\.so man1/claudefs-(.*)\.1\n", text)
    return page(link[1]) if link else text


def plain(text):
    """Roff to text: escapes, fonts and requests away, blanks between what was in lines."""
    text = text.replace("\\-", "-").replace("\\(aq", "'").replace("\\fB", "").replace("\\fR", "")
    text = re.sub(r'^\.(?:BR|BI|IR|RB|RI|IB|B|I|TP|br|SH) ?(.*)$', r"\1", text, flags=re.MULTILINE)
    return re.sub(r'["\s]+', " ", text)


def options(text):
    return set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", text))


@pytest.mark.parametrize("command", [c for c in ALL if c != ("version",)], ids=" ".join)
def test_every_flag_of_help_is_in_the_manual(command):
    said = options(lib.claudefs(*command, "--help").stdout)
    text = plain(page(command[0]))
    assert said, "it takes --dir, at least"
    assert said <= options(text), f"missing: {sorted(said - options(text))}"
    assert "claudefs " + " ".join(command) in text


@pytest.mark.parametrize("name", sorted({c[0] for c in ALL if c != ("version",)}))
def test_the_manual_knows_no_flag_that_is_not_there(name):
    there = {"--help", "--version"}
    for command in ALL:
        there |= options(lib.claudefs(*command, "--help").stdout) if command != ("version",) else set()
    text = plain(page(name))
    own = set().union(*(options(lib.claudefs(*c, "--help").stdout) for c in ALL if c[0] == name))
    synopsis = plain(re.search(r"\.SH SYNOPSIS\n(.*?)\.SH", page(name), re.DOTALL)[1])
    assert options(text) <= there, options(text) - there
    shared = {c[0] for c in ALL if c != ("version",) and page(c[0]) == page(name)}
    own = own.union(*(options(lib.claudefs(*c, "--help").stdout) for c in ALL if c[0] in shared))
    assert options(synopsis) <= own, options(synopsis) - own


def test_the_first_page_names_every_command():
    with open(os.path.join(MAN, "claudefs.1"), encoding="utf-8") as f:
        text = plain(f.read())
    for command in ALL:
        assert re.search(rf"\b{command[0]}\b", text), command


@pytest.mark.skipif(not shutil.which("groff"), reason="groff is not installed")
@pytest.mark.parametrize("file", sorted(os.listdir(MAN)))
def test_pages_are_well_formed(file):
    done = subprocess.run(["groff", "-man", "-Tutf8", "-ww", "-z", file], cwd=MAN, text=True,
                          capture_output=True, check=False)
    warnings = [line for line in done.stderr.splitlines() if ".so" not in line and "open" not in line]
    assert done.returncode == 0 and not warnings, warnings


# ---- completion ----

def bash(line):
    """What bash would offer after `line`, by its own function, in its own words."""
    script = """
        source "$1"; shift
        COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
        _claudefs
        printf '%s\\n' "${COMPREPLY[@]}"
    """
    words = line.split(" ")
    done = lib.run("bash", "-c", script, "bash", os.path.join(COMPLETION, "claudefs.bash"),
                   lib.PROGRAM, *words[1:])
    return set(done.stdout.split())


def test_bash_offers_every_command():
    assert bash("claudefs ") == {c[0] for c in ALL}
    assert bash("claudefs pe") == {"peer"}
    for name in {c[0] for c in ALL if len(c) > 1}:
        assert bash(f"claudefs {name} ") == {c[1] for c in ALL if c[0] == name}


@pytest.mark.parametrize("command", [c for c in ALL if c != ("version",)], ids=" ".join)
def test_bash_offers_every_option(command):
    said = options(lib.claudefs(*command, "--help").stdout)
    assert bash("claudefs " + " ".join(command) + " --") == said
    some = sorted(said)[0]
    assert some in bash("claudefs " + " ".join(command) + " --json " + some[:-1])


def test_bash_offers_values():
    assert bash("claudefs conflicts resolve 1 --keep ") == {"mine", "theirs", "both"}
    assert bash("claudefs conflicts resolve 1 --keep t") == {"theirs"}
    assert bash("claudefs log-level w") == {"warn"}
    assert bash("claudefs nonsense ") == {c[0] for c in ALL}
    assert os.path.basename(MAN) in {os.path.basename(p) for p in bash("claudefs status --dir " +
                                                                       MAN[:-1])}


def test_bash_completes_at_a_prompt():
    """The whole way: a shell on a terminal, the TAB key."""
    import pty
    import select
    pid, fd = pty.fork()
    if pid == 0:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # whoever runs the tests may ignore it
        env = lib.environment()
        env["PATH"] = os.path.dirname(lib.PROGRAM) + ":" + env["PATH"]
        env["PS1"] = "ready> "
        os.execve("/bin/bash", ["bash", "--norc", "--noprofile", "-i"], env)
    text = ""

    def read():
        nonlocal text
        while select.select([fd], [], [], 0)[0]:
            text += os.read(fd, 65536).decode(errors="replace")
        return text
    os.write(fd, f"source {COMPLETION}/claudefs.bash\n".encode())
    lib.eventually(lambda: read().count("ready> ") >= 2, 30, "a prompt")
    os.write(fd, b"claudefs supp\t")
    lib.eventually(lambda: "support-bundle " in read(), 30, "support-bundle")
    os.write(fd, b"--na\t")
    lib.eventually(lambda: "--names " in read(), 30, "--names")
    before = read().count("ready> ")
    os.write(fd, b"\x03")  # the terminal throws away what was typed before and with it
    lib.eventually(lambda: read().count("ready> ") > before, 30, "a new prompt")
    os.write(fd, b"exit\n")
    os.waitpid(pid, 0)
    os.close(fd)


@pytest.mark.skipif(not shutil.which("zsh"), reason="zsh is not installed")
def test_zsh_offers_the_same():
    script = """
        compdef() { : }; _files() { : }
        _describe() { print -l -- ${${(P)2}%%:*} }
        compadd() { [[ $1 == -- ]] && shift; print -l -- "$@" }
        file=$1; shift; words=("$@") CURRENT=$#
        function _claudefs { source $file }
        _claudefs
    """
    def zsh(line):
        done = lib.run("zsh", "-fc", script, "zsh", os.path.join(COMPLETION, "_claudefs"),
                       lib.PROGRAM, *line.split(" ")[1:])
        return set(done.stdout.split())
    assert zsh("claudefs ") == {c[0] for c in ALL}
    assert zsh("claudefs peer ") == {c[1] for c in ALL if c[0] == "peer"}
    assert zsh("claudefs peer invite --") == options(lib.claudefs("peer", "invite", "--help").stdout)
    assert zsh("claudefs conflicts resolve 1 --keep ") == {"mine", "theirs", "both"}
