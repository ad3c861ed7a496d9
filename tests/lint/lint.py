#!/usr/bin/python3
"""Checks that a machine judges well. Usage: lint.py ROOT [C compiler]; exit status 1 on findings.

Each rule names the class of bug it prevents. A line may opt out of one rule with a reason:
    x = atomic_load(&y); /* lint-allow(atomics): read by a signal handler */
"""

import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

# Includes point to a smaller number only. Simulated mounts run a core of the client's.
LAYERS = {"base": 0, "journal": 1, "data": 2, "site": 3, "wan": 4, "client": 5, "sim": 6}
TOP = {"bench": 7, "tests": 8}  # see all folders; nobody sees them (tests/lib serves both)
DOCUMENTED = [*LAYERS, *TOP, "docs", "scripts"]
FILE_LINES_MAX = 800
LINE_COLUMNS_MAX = 100
FUNCTION_LINES_MAX = 80
FORMATTER_VERSION = "14"  # of clang-format: Debian 12's

# (rule, pattern, folders it does not apply to, files it does not apply to, message)
BANNED = [
    # Overflow of a buffer whose size the call does not know.
    ("bounds", r"\b(sprintf|vsprintf|strcpy|strcat|gets|stpcpy|alloca)\s*\(", (), (),
     "writes without a bound: use snprintf, struct buf or mem_printf"),
    # strncpy leaves text without a terminator; strtok and friends share hidden state.
    ("hidden-state", r"\b(strncpy|strtok|localtime|gmtime|ctime|asctime|inet_ntoa)\s*\(", (), (),
     "unterminated result or state shared by threads: use the _r form or memcpy"),
    # atoi(3) reads "12x" as 12 and overflows silently: a wrong configuration goes unnoticed.
    ("numbers", r"\b(atoi|atol|atoll|atof)\s*\(", (), (), "cannot report a bad number: use strtoull"),
    # Random numbers that no seed replays, or that an attacker predicts.
    ("random", r"\b(rand|srand|random|srandom|drand48|rand_r)\s*\(", (), (),
     "use struct rng (replayable) or random_bytes (secret)"),
    # assert(3) disappears with NDEBUG and with it whatever its condition did.
    ("assert", r"(?<![\w.])assert\s*\(|#\s*include\s*<assert\.h>", (), (),
     "use ASSERT, DCHECK or DEFEND of base/assert.h"),
    # An unchecked allocation is a crash at a random place; mem_* stop with a message.
    ("memory", r"(?<![\w.>])(malloc|calloc|realloc|free|strdup|strndup|asprintf|aligned_alloc)\s*\(",
     ("tests",), ("base/util.c",), "use mem_* of base/util.h"),
    # Time that the simulator does not control makes a run that no seed replays.
    ("time", r"(?<![\w.>])(time|gettimeofday|clock_gettime)\s*\(", ("tests", "bench"),
     ("base/clock.c", "base/log.c"), "use struct clock of base/clock.h"),
    # Home-made lock-free code is wrong in ways that tests do not show.
    ("atomics", r"\batomic_\w+\s*\(|\b_Atomic\b|#\s*include\s*<stdatomic\.h>|\b__atomic_\w+|\b__sync_\w+",
     ("base", "tests", "bench"), (), "atomics live in base: use loop_post or a metric"),
    # A sleep in a test hides a race until the machine is slow.
    ("sleep", r"(?<![\w.>])(sleep|usleep|nanosleep)\s*\(", ("bench",), (),
     "wait for the event, not for time"),
]

# Invariants are named after their folder; a citation of one that no README defines is a promise
# nobody keeps.
INVARIANT_FOLDERS = {"B": "base", "J": "journal", "D": "data", "S": "site", "W": "wan", "C": "client"}
NOT_INVARIANTS = {"C11", "C99", "S3"}


class Source:
    def __init__(self, root, path):
        self.path = path
        self.folder = path.split("/")[0]
        with open(os.path.join(root, path), encoding="utf-8", errors="replace") as f:
            self.text = f.read()
        self.lines = self.text.split("\n")
        if self.lines and self.lines[-1] == "":
            self.lines.pop()
        code, comments = split_comments(self.text)
        self.code_lines = code.split("\n")
        self.comment_lines = comments.split("\n")

    def allows(self, line_no, rule):
        return re.search(r"lint-allow\(%s\): \S" % re.escape(rule), self.lines[line_no - 1])


def split_comments(text):
    """Two texts of the same shape: code with comments and literals blanked, and the comments."""
    token = re.compile(r"/\*.*?\*/|//[^\n]*|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'", re.S)
    code, comments, at = [], [], 0
    for m in token.finditer(text):
        blank = re.sub(r"[^\n]", " ", m.group())
        before = text[at:m.start()]
        code.append(before)
        comments.append(re.sub(r"[^\n]", " ", before))
        is_comment = m.group().startswith(("/*", "//"))
        in_include = text[text.rfind("\n", 0, m.start()) + 1:m.start()].lstrip().startswith("#include")
        code.append(m.group() if in_include and not is_comment else blank)
        comments.append(m.group() if is_comment else blank)
        at = m.end()
    code.append(text[at:])
    comments.append(re.sub(r"[^\n]", " ", text[at:]))
    return "".join(code), "".join(comments)


def sources(root):
    found = []
    for folder in list(LAYERS) + list(TOP):
        for where, folders, names in os.walk(os.path.join(root, folder)):
            folders[:] = sorted(d for d in folders if d not in ("build", "corpus", "golden"))
            for name in sorted(names):
                if name.endswith((".c", ".h")):
                    found.append(Source(root, os.path.relpath(os.path.join(where, name), root)))
    return found


def check_includes(s, report):
    """An include upwards couples a layer to its users: it can no longer be tested alone."""
    ranks = dict(LAYERS, **TOP)
    for no, line in enumerate(s.code_lines, 1):
        m = re.match(r'\s*#\s*include\s*"([^"]+)"', line)
        if not m:
            continue
        target = m.group(1)
        folder = target.split("/")[0]
        if folder not in ranks:
            report(s, no, "include-root", f'"{target}": write the path from the repository root')
        elif folder != s.folder and ranks[folder] >= ranks[s.folder] and \
                not (s.folder == "bench" and target.startswith("tests/lib/")):
            report(s, no, "include-direction", f"{s.folder} must not see {folder}")
        elif folder != s.folder and target.endswith("_int.h") and s.folder not in TOP:
            report(s, no, "include-private", f"{target} is private to {folder}")


def check_banned(s, report):
    for rule, pattern, folders, files, message in BANNED:
        if s.folder in folders or s.path in files:
            continue
        for no, line in enumerate(s.code_lines, 1):
            m = re.search(pattern, line)
            if m:
                report(s, no, rule, f"{m.group().strip()}: {message}")


def check_sizes(s, report):
    """Long files and functions hide what belongs together; nobody reviews them whole."""
    if len(s.lines) > FILE_LINES_MAX and not any("lint-allow(file-size)" in x for x in s.lines):
        report(s, FILE_LINES_MAX + 1, "file-size", f"{len(s.lines)} lines, at most {FILE_LINES_MAX}")
    start = None
    for no, line in enumerate(s.lines, 1):
        if len(line) > LINE_COLUMNS_MAX:
            report(s, no, "line-size", f"{len(line)} columns, at most {LINE_COLUMNS_MAX}")
        if line == "{":
            start = no
        elif line == "}" and start is not None:
            if no - start - 1 > FUNCTION_LINES_MAX:
                report(s, start, "function-size", f"{no - start - 1} lines, about 70 at most")
            start = None


def check_comments(s, report):
    """A note of unfinished work in the main branch is a bug somebody knew about."""
    for no, line in enumerate(s.comment_lines, 1):
        m = re.search(r"\b(TODO|FIXME|XXX|HACK)\b", line)
        if m:
            report(s, no, "unfinished", f"{m.group()}: do it or write the limit down in the README")


def check_invariants(s, readmes, report):
    for no, line in enumerate(s.comment_lines, 1):
        for m in re.finditer(r"(?<![\w-])([BJDSWC])(\d{1,2})(?!\w|\.\d)", line):
            if m.group() in NOT_INVARIANTS:
                continue
            folder = INVARIANT_FOLDERS[m.group(1)]
            if not re.search(r"\b%s\b" % m.group(), readmes.get(folder, "")):
                report(s, no, "invariant", f"{m.group()} is not defined in {folder}/README.md")


def check_numbers(folder, readme, findings):
    """Two invariants of one number: nobody can tell which of them a citation means."""
    seen = set()
    for no, line in enumerate(readme.split("\n"), 1):
        m = re.match(r"- \*\*([A-Z]\d{1,2})\*\*", line)
        if m and m.group(1) in seen:
            findings.append(f"{folder}/README.md:{no}: invariant-twice: {m.group(1)} is another one already")
        if m:
            seen.add(m.group(1))


def check_built(s, root, report):
    """A source or test that no CMakeLists.txt names is neither compiled nor run."""
    if not s.path.endswith(".c"):
        return
    where = os.path.dirname(s.path)
    name = os.path.basename(s.path)
    while where:
        cmake = os.path.join(root, where, "CMakeLists.txt")
        if os.path.exists(cmake):
            with open(cmake, encoding="utf-8") as f:
                if re.search(r"\b%s\b" % re.escape(name[:-2]), f.read()):
                    return
        where = os.path.dirname(where)
    report(s, 1, "not-built", f"no CMakeLists.txt names {name}")


def check_readmes(root, findings):
    """A folder that says nothing of itself is understood by nobody who comes new."""
    for folder in DOCUMENTED:
        path = os.path.join(root, folder)
        if os.path.isdir(path) and not os.path.exists(os.path.join(path, "README.md")):
            findings.append(f"{folder}/README.md:1: no-readme: say what the folder is for")


def header_flags(root):
    flags = ["-std=gnu11", "-D_GNU_SOURCE", "-I" + root]
    for package in ("fuse3", "libmicrohttpd"):
        done = subprocess.run(["pkg-config", "--cflags", package], capture_output=True, text=True,
                              check=False)
        if done.returncode == 0:
            flags += done.stdout.split()
    return flags


def check_headers(headers, root, compiler, report):
    """A header that needs another before it breaks whoever sorts their includes."""
    flags = header_flags(root)

    def compile_alone(s):
        done = subprocess.run([compiler, *flags, "-fsyntax-only", "-Wall", "-Wextra", "-Werror",
                               "-x", "c", "-"], input=f'#include "{s.path}"\n',
                              capture_output=True, text=True, check=False)
        return s, done.returncode, done.stderr

    with ThreadPoolExecutor(max_workers=2) as pool:
        for s, rc, errors in pool.map(compile_alone, headers):
            if rc != 0:
                first = next((e for e in errors.split("\n") if "error" in e), errors.strip())
                report(s, 1, "self-contained", first)


def formatter():
    """The one whose output .clang-format describes; other versions put some lines differently."""
    for name in (f"clang-format-{FORMATTER_VERSION}", "clang-format"):
        path = shutil.which(name)
        if path is None:
            continue
        said = subprocess.run([path, "--version"], capture_output=True, text=True, check=False).stdout
        if re.search(r"version %s\." % FORMATTER_VERSION, said):
            return path
    return None


def check_format(found, root, findings):
    """Two ways to set the same code: a change shows lines that nobody has changed."""
    program = formatter()
    if program is None or not os.path.exists(os.path.join(root, ".clang-format")):
        return
    paths = [s.path for s in found]

    def run(part):
        return subprocess.run([program, "--dry-run", "-Werror", *part], cwd=root,
                              capture_output=True, text=True, check=False).stderr

    with ThreadPoolExecutor(max_workers=2) as pool:
        for text in pool.map(run, (paths[i::16] for i in range(min(16, len(paths))))):
            seen = set()
            for m in re.finditer(r"^(\S+?):(\d+):\d+: error: ", text, re.M):
                if m.group(1) not in seen:
                    findings.append(f"{m.group(1)}:{m.group(2)}: format: clang-format -i sets it otherwise")
                seen.add(m.group(1))


def lint(root, compiler):
    findings = []

    def report(s, line_no, rule, message):
        line_no = min(line_no, max(len(s.lines), 1))
        if not s.lines or not s.allows(line_no, rule):
            findings.append(f"{s.path}:{line_no}: {rule}: {message}")

    check_readmes(root, findings)
    readmes = {}
    for folder in LAYERS:
        path = os.path.join(root, folder, "README.md")
        if os.path.exists(path):
            with open(path, encoding="utf-8") as f:
                readmes[folder] = f.read()
            check_numbers(folder, readmes[folder], findings)
    found = sources(root)
    for s in found:
        check_includes(s, report)
        check_banned(s, report)
        check_sizes(s, report)
        check_comments(s, report)
        check_invariants(s, readmes, report)
        check_built(s, root, report)
    check_headers([s for s in found if s.path.endswith(".h")], root, compiler, report)
    check_format(found, root, findings)
    return found, findings


def main():
    found, findings = lint(os.path.abspath(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "cc")
    for finding in findings:
        print(finding)
    print(f"{len(found)} files, {len(findings)} findings")
    return 1 if findings or not found else 0


if __name__ == "__main__":
    sys.exit(main())
