#!/usr/bin/python3
"""Plants one violation of each rule: a checker that finds nothing must be known to be able to."""

import os
import shutil
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import lint  # noqa: E402

PLANTED = [
    # (rule, path, text)
    ("include-direction", "base/a.c", '#include "site/x.h"\n'),
    ("include-direction", "client/a.c", '#include "sim/x.h"\n'),
    ("include-direction", "sim/a.c", '#include "tests/lib/x.h"\n'),
    ("include-root", "site/a.c", '#include "x.h"\n'),
    ("include-private", "site/a.c", '#include "journal/x_int.h"\n'),
    ("bounds", "site/a.c", "    sprintf(out, text);\n"),
    ("hidden-state", "site/a.c", "    strncpy(a, b, 3);\n"),
    ("numbers", "site/a.c", "    n = atoi(text);\n"),
    ("random", "sim/a.c", "    n = rand();\n"),
    ("assert", "site/a.c", "    assert(n > 0);\n"),
    ("assert", "site/a.c", "#include <assert.h>\n"),
    ("memory", "site/a.c", "    p = malloc(3);\n"),
    ("memory", "site/a.c", "    free(p);\n"),
    ("time", "site/a.c", "    now = time(NULL);\n"),
    ("atomics", "site/a.c", "static _Atomic int x;\n"),
    ("sleep", "tests/unit/site/test_a.c", "    sleep(1);\n"),
    ("file-size", "site/a.c", "int x;\n" * 801),
    ("line-size", "site/a.c", "x" * 101 + "\n"),
    ("function-size", "site/a.c", "void f(void)\n{\n" + "    g();\n" * 81 + "}\n"),
    ("unfinished", "site/a.c", "/* TODO: the rest */\n"),
    ("invariant", "site/a.c", "/* Keeps S77. */\n"),
    ("invariant-twice", "wan/README.md", "- **W1** this\n- **W1** that (W1)\n"),
    ("not-built", "site/unlisted.c", "int x;\n"),
    ("self-contained", "site/a.h", "struct a { uint8_t x; };\n"),
]

CLEAN = [
    ("site/a.c", '#include "site/a_int.h"\n#include "base/x.h"\n'),
    ("site/a.c", 'static const char *x = "sprintf(TODO)"; /* like malloc(3) and free(3) */\n'),
    ("site/a.c", "    mem_free(p);\n    p->free(p);\n    assert_true(x);\n    x_time(1);\n"),
    ("site/a.c", "    free(p); /* lint-allow(memory): from a library */\n"),
    ("site/a.c", "/* Keeps S1. */\n"),
    ("base/util.c", "    free(p);\n"),
    ("tests/unit/site/test_a.c", '#include "sim/x.h"\n#include "site/a_int.h"\n    free(p);\n'),
    ("wan/README.md", "- **W1** this\n- **W2** that, as **W1**\n"),
    ("site/a.h", "#include <stdint.h>\nstruct a {\n    uint8_t x;\n};\n"),
]


def findings(path, text, readme=True):
    with tempfile.TemporaryDirectory() as root:
        target = os.path.join(root, path)
        os.makedirs(os.path.dirname(target))
        if readme:
            with open(os.path.join(root, path.split("/")[0], "README.md"), "w",
                      encoding="utf-8") as f:
                f.write("What it is for.\n")
        with open(target, "w", encoding="utf-8") as f:
            f.write(text)
        with open(os.path.join(os.path.dirname(target), "CMakeLists.txt"), "w",
                  encoding="utf-8") as f:
            f.write("add(a.c util.c test_a)\n")
        os.makedirs(os.path.join(root, "site"), exist_ok=True)
        with open(os.path.join(root, "site/README.md"), "w", encoding="utf-8") as f:
            f.write("- **S1** something\n")
        return lint.lint(root, "cc")[1]


class LintTest(unittest.TestCase):
    def test_planted_violations_are_found(self):
        for rule, path, text in PLANTED:
            with self.subTest(rule=rule, path=path):
                self.assertEqual([f.split(": ")[1] for f in findings(path, text)], [rule])

    def test_clean_files_pass(self):
        for path, text in CLEAN:
            with self.subTest(path=path, text=text):
                self.assertEqual(findings(path, text), [])

    def test_a_folder_without_readme_is_found(self):
        for path in ("base/a.c", "docs/a.md", "scripts/a", "tests/unit/site/test_a.c"):
            with self.subTest(path=path):
                self.assertEqual(findings(path, "", readme=False),
                                 [f"{path.split('/')[0]}/README.md:1: no-readme: "
                                  "say what the folder is for"])

    @unittest.skipUnless(lint.formatter(), "the version of clang-format that counts is not here")
    def test_code_that_is_set_otherwise_is_found(self):
        style = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", ".clang-format")
        for text, expected in (("int a;\nint  b;\nint   c;\n", ["site/a.c:2: format: clang-format "
                                                               "-i sets it otherwise"]),
                               ("int a;\nint b;\n", [])):
            with self.subTest(text=text), tempfile.TemporaryDirectory() as root:
                shutil.copy(style, root)
                os.mkdir(os.path.join(root, "site"))
                with open(os.path.join(root, "site/a.c"), "w", encoding="utf-8") as f:
                    f.write(text)
                found = []
                lint.check_format([lint.Source(root, "site/a.c")], root, found)
                self.assertEqual(found, expected)

    def test_every_banned_rule_is_planted(self):
        planted = {rule for rule, _, _ in PLANTED}
        self.assertEqual({rule for rule, *_ in lint.BANNED} - planted, set())


if __name__ == "__main__":
    unittest.main()
