#!/usr/bin/python3
"""020_docs.t - the documentation says what the server does.

Flags, metrics and errors are compared with the server's own tables, in both directions; pages
of commands and requests have their headings in order, those of requests the fields of the .proto
files; links lead somewhere; the examples of the guide, of commands and of requests are run
against a fresh server and print what the page shows.

In a block that begins with ```console, lines after "$ " are commands for one shell, the lines
below are what they print, and ... stands for anything.  A watch is stopped when it has printed
what is expected.

SPDX-License-Identifier: Apache-2.0
"""

import glob
import os
import queue
import re
import shutil
import subprocess
import sys
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "lib"))

import t4test  # noqa: E402

TAP = t4test.Tap()
if not os.path.exists(t4test.T4.binary):
    TAP.skip_all("t4 was not built")

for variable in [name for name in os.environ if name.startswith("T4_")]:
    if variable != "T4_STUBS_DIR":
        del os.environ[variable]

DOCS = os.path.join(t4test.SRC_DIR, "sql-like-docs")
SECONDS = 20
GRPC_CODES = {1: "Canceled", 2: "Unknown", 3: "InvalidArgument", 4: "DeadlineExceeded",
              5: "NotFound", 6: "AlreadyExists", 7: "PermissionDenied", 8: "ResourceExhausted",
              9: "FailedPrecondition", 11: "OutOfRange", 12: "Unimplemented", 13: "Internal",
              14: "Unavailable", 15: "DataLoss", 16: "Unauthenticated"}


def read(*path):
    with open(os.path.join(t4test.SRC_DIR, *path)) as source:
        return source.read()


def page(name):
    return read("sql-like-docs", name)


def output(*words):
    return subprocess.run([t4test.T4.binary] + list(words), stdout=subprocess.PIPE, text=True,
                          check=True).stdout


def section(text, title):
    """What stands below a heading, up to the next one of the same level or above."""
    level = title.split(" ")[0]
    found = re.search(r"^%s\n(.*?)(?=^#{1,%d} |\Z)" % (re.escape(title), len(level)), text,
                      re.M | re.S)
    return found.group(1) if found else ""


def table_rows(text):
    """Cells of the tables' rows, without head and rule."""
    rows = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip())[1:-1]]
            for line in text.splitlines() if line.startswith("|")]
    return [row for i, row in enumerate(rows)
            if not set("".join(row)) <= set("-: ")
            and not (i + 1 < len(rows) and set("".join(rows[i + 1])) <= set("-: "))]


def same(got, want, name):
    """Two sets of strings; says what is only in one of them."""
    got, want = set(map(str, got)), set(map(str, want))
    TAP.ok(got == want, name, *(["missing in the page: %s" % s for s in sorted(want - got)]
                                + ["not in the server: %s" % s for s in sorted(got - want)]))


# ---- tables ---------------------------------------------------------------------------------

def flags():
    server, aliases = set(), {}
    for line in output("help", "run", "--table").splitlines():
        flag, variable, default, valid, alias, _ = line.split("\t")
        if alias:
            aliases[flag] = alias
        server.add("%s (`%s`;%s valid: %s)" % (
            flag, variable, " default `%s`;" % default if default else "", valid))
    text = section(page("ref/t4-run.md"), "## Parameters")
    documented = re.findall(r"^- \*\*(--[a-z0-9-]+)\*\*(?:=\*.*?\*)? (\(`.*\))$", text, re.M)
    TAP.ok(len(server) >= 20, "t4 help run --table lists the flags", len(server))
    same(["%s %s" % entry for entry in documented], server,
         "ref/t4-run.md has each flag with its variable, default and range")
    TAP.equal(len(re.findall(r"^- ", text, re.M)), len(documented), "each once, and nothing else")
    bare = [flag for flag, _ in documented
            if not re.search(r"^- \*\*%s\*\*.*\n  \S" % flag, text, re.M)]
    TAP.equal(bare, [], "each with a text")
    same(re.findall(r"^- \*\*(--[a-z-]+)\*\*(?:(?!^- ).)*?As in\s+etcd:\s+`--([a-z-]+)`", text,
                    re.M | re.S), aliases.items(), "and with etcd's name where it has one")
    source = read("src", "server", "option_table.c")
    refused = re.findall(r'^    {"([a-z0-9*-]+)", NO_', source, re.M)
    errors = section(page("ref/t4-run.md"), "## Errors")
    rows = [row for row in table_rows(errors) if row[0].startswith("`--")]
    listed = [name for row in rows for name in re.findall(r"`--([a-z0-9*-]+)`", row[0])]
    TAP.ok(len(refused) > 10, "refused flags were found", refused)
    same(listed, refused, "ref/t4-run.md has each refused flag")


def metrics():
    known = {}
    for kind, name, labels, text in re.findall(
            r'^(?:METRIC|ALIAS)\(\w+, (\w+), "(\w+)", "(.*?)", "(.*)"\)$',
            read("src", "base", "metrics.tbl"), re.M):
        entry = known.setdefault(name, [kind.split("_")[0], [], text])
        if labels:
            entry[1].append(labels.replace('\\"', '"').strip("{}"))
    TAP.ok(len(known) > 10, "metrics.tbl was read", known)
    rows = table_rows(section(page("metrics.md"), "## The database"))
    same([" | ".join(row) for row in rows],
         ["`%s` | %s | %s | %s" % (name, kind, ", ".join("`%s`" % label for label in labels), text)
          for name, (kind, labels, text) in known.items()],
         "metrics.md has each metric of the table")
    others = []
    for title, sources in (("## The process", ("http/http.c", "http/process.c", "http/probes.c",
                                               "listen/listen.c")),
                           ("## Calls", ("grpc/counts.c",))):
        code = "".join(read("src", "api", source) for source in sources)
        found = re.findall(r"# TYPE (\w+) (\w+)", code)
        found += re.findall(r'\(out,\s+"([a-z0-9_]+)",\s+"(gauge|counter|histogram)"', code)
        rows = table_rows(section(page("metrics.md"), title))
        same([" | ".join(row[:2]) for row in rows],
             ["`%s` | %s" % other for other in found], "and each of " + title[3:].lower())
        others += found
    used = re.findall(r"`((?:t4|process|os|etcd|grpc)_\w+)`", page("metrics.md"))
    same(set(used), set(known) | {name for name, _ in others}, "and no other name")


def errors():
    known = re.findall(r'^ETCD_ERROR\(\w+, (\d+), "(.*)"\)$',
                       read("src", "wire", "etcd_errors.tbl"), re.M)
    TAP.ok(len(known) > 20, "etcd_errors.tbl was read", known)
    text = page("errors.md").split("## From gRPC itself")[0]
    rows = table_rows(text)
    same(["%s %s" % (row[0], row[1]) for row in rows],
         ["%s `%s`" % (GRPC_CODES[int(code)], words.replace('\\"', '"'))
          for code, words in known],
         "errors.md has each error with its code and text")
    TAP.equal(len(rows), len(known), "each once")
    TAP.equal([row[1] for row in rows if len(row) != 6 or not all(row)], [],
              "each with when, applied, retry, what to do")


# ---- pages ----------------------------------------------------------------------------------

HEADINGS = ["Synopsis", "Description", "Parameters", "Outputs", "Errors", "Notes", "Examples",
            "Compatibility", "See Also"]


def kebab(name):
    """LeaseTimeToLive: lease-time-to-live, HashKV: hash-kv."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", name).lower()


def protocol():
    return "".join(read(os.path.relpath(path, t4test.SRC_DIR)) for path in sorted(glob.glob(
        os.path.join(t4test.SRC_DIR, "proto", "*", "*.proto"))))


def methods():
    """[(method, request, answer)] of all services; those of Health, which has a Watch, too, with its name."""
    return [(name if service != "Health" else service + name, request, answer)
            for service, body in re.findall(r"^service (\w+) {(.*?)^}", protocol(), re.M | re.S)
            for name, request, answer in re.findall(
                r"rpc (\w+)\((?:stream )?(\w+)\)\s+returns \((?:stream )?(\w+)\)", body)]


def fields():
    """Pages of requests have each field of both messages, and no other."""
    text = protocol()
    known = {"| %s | `%s` |" % (GRPC_CODES[int(code)], words.replace('\\"', '"')) for code, words in
             re.findall(r'^ETCD_ERROR\(\w+, (\d+), "(.*)"\)$',
                        read("src", "wire", "etcd_errors.tbl"), re.M)}
    for name, *messages in methods():
        rows = re.findall(r"^\| [A-Z]\w+ \| `.*?` \|", section(page("ref/api/%s.md" % kebab(name)),
                                                          "## Errors"), re.M)
        TAP.equal([row for row in rows if row not in known], [], "%s: errors that there are" % name)
        for message, title in zip(messages, ("## Parameters", "## Outputs")):
            body = re.search(r"^message %s {(.*?)^}" % message, text, re.M | re.S).group(1)
            body = re.sub(r"//.*|enum \w+ {[^}]*}", "", body)
            listed = [line for line in section(page("ref/api/%s.md" % kebab(name)), title).splitlines()
                      if line.startswith("- **")]
            same([field for line in listed for field in re.findall(r"\*\*(\w+)\*\*", line)],
                 re.findall(r"(\w+) = \d+;", body), "%s: the fields of %s" % (name, message))


def pages():
    commands = [name for name in re.findall(r"^  (\w+)", output("help"), re.M)
                if name not in ("help", "etcdctl")]
    names = [name for name in os.listdir(os.path.join(DOCS, "ref")) if name.endswith(".md")]
    names.remove("libt4.md")  # no command; 610 compares it with t4.h
    same([name[len("t4-"):-len(".md")] for name in names if name != "http.md"], commands,
         "each command has its page, each page its command")
    requests = {kebab(name) + ".md": name for name, _, _ in methods()}
    same(os.listdir(os.path.join(DOCS, "ref", "api")), requests,
         "each request has its page")
    for name in sorted(names) + ["api/" + name for name in sorted(requests)]:
        text = page("ref/" + name)
        title = "HTTP" if name == "http.md" else requests.get(
            name[len("api/"):], name[:-len(".md")].replace("-", " "))
        found = re.findall(r"^## (.*)$", text, re.M)
        TAP.ok(re.match(r"# %s\n\n%s — [a-z].*[^.]\n" % (title, title), text),
               "%s: title and purpose" % name, text[:200])
        TAP.ok(found == [h for h in HEADINGS if h in found]
               and {"Synopsis", "Description", "Errors", "See Also"} <= set(found),
               "%s: headings in order" % name, found)
    names = [line.split(" ", 1)[0] for line in output("version").splitlines()]
    block = re.search(r"```\n(.*?)```", section(page("ref/t4-version.md"), "## Outputs"), re.S)
    TAP.equal([line.split(" ", 1)[0] for line in block.group(1).splitlines()], names,
              "ref/t4-version.md shows the lines that are printed")
    words = re.search(r"```\n2.*? INFO ready (.*)\n```", page("ref/t4-run.md"))
    TAP.ok(words and "endpoints=" in words.group(1), "ref/t4-run.md shows the ready line")


def links():
    broken = []
    texts = {os.path.relpath(os.path.join(folder, name), t4test.SRC_DIR)
             for folder, _, names in os.walk(DOCS) for name in names if name.endswith(".md")}
    for path in sorted(texts | {"README.md"}):
        for target in re.findall(r"\]\(([^)\s]+)\)", read(path)):
            if re.match(r"[a-z]+://", target):
                continue
            file, _, anchor = target.partition("#")
            whole = os.path.normpath(os.path.join(os.path.dirname(path), file)) if file else path
            if not os.path.exists(os.path.join(t4test.SRC_DIR, whole)):
                broken.append("%s: %s" % (path, target))
            elif anchor and anchor not in [
                    re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-")
                    for heading in re.findall(r"^#+ (.*)$", read(whole), re.M)]:
                broken.append("%s: %s (no such heading)" % (path, target))
    TAP.equal(broken, [], "links of the pages lead somewhere")
    index = page("README.md")
    TAP.equal([path for path in sorted(texts) if path != "sql-like-docs/README.md"
               and os.path.relpath(path, "sql-like-docs") not in index], [],
              "sql-like-docs/README.md names every page")


# ---- formats --------------------------------------------------------------------------------

def line_names(rows):
    """Names in the first column: `a-b`, `-c` is a-b, a-c; the first row has kind and format."""
    names, stem = [], ""
    for row in rows:
        for name in re.findall(r"`([^`]+)`", row[0]):
            if name.startswith("-"):
                name = stem + name
            else:
                stem = name.rpartition("-")[0]
            names.append(name.split(" ")[0])
    return names


def formats():
    """Each text record of the page has its lines in the table's order, and the right checksum."""
    text = page("internals/formats.md")
    wrong, seen = [], 0
    for part in re.split(r"^## ", text, flags=re.M)[1:]:
        for example in re.findall(r"^```text\n(t4-.*?)^```$", part, re.M | re.S):
            seen += 1
            body, _, crc = example.rpartition("crc ")
            right = "%08x\n" % t4test.crc32c(body.encode())
            if crc != right:
                wrong.append("%s: crc is %s" % (body.split("\n")[0], right))
            table = re.search(r"^\| line \|.*?\n\n", part + "\n\n", re.M | re.S)
            if not table:
                continue
            want = line_names(table_rows(table.group(0)))
            if "t4-lock 1" in example:
                want.remove("move")  # of format 2 only
            got = [line.split(" ")[0] for line in example.splitlines()]
            if got != want:
                wrong.append("%s: %s" % (got[0], [pair for pair in zip(got + [""], want + [""])
                                                  if pair[0] != pair[1]][:1]))
    TAP.equal(wrong, [], "text records of internals/formats.md are as their tables say")
    TAP.ok(seen >= 9, "each has an example", seen)


# ---- examples -------------------------------------------------------------------------------

def examples(text):
    """[(command, [expected lines])] of the page's console blocks."""
    found = []
    for block in re.findall(r"^```console\n(.*?)^```$", text, re.M | re.S):
        for line in block.splitlines():
            if line.startswith("$ "):
                found.append((line[2:], []))
            else:
                found[-1][1].append(line.rstrip())
    return found


def matches(lines, expected):
    lines = [line.rstrip() for line in lines]
    while lines and lines[-1] == "":
        lines = lines[:-1]
    while expected and expected[-1] == "":
        expected = expected[:-1]
    return len(lines) == len(expected) and all(
        re.fullmatch(re.escape(want).replace(re.escape("..."), ".+"), got)
        for got, want in zip(lines, expected))


class Shell:
    """One sh for all commands, so that its variables stay; lines arrive with a deadline."""

    END = "--end-of-the-command--"

    def __init__(self, environment):
        self.process = subprocess.Popen(
            ["/bin/sh"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, bufsize=1, env=environment)
        self.lines = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.process.stdout:
            self.lines.put(line.rstrip("\n"))
        self.lines.put(None)

    def run(self, command):
        """What the command prints, standard error included."""
        self.process.stdin.write("{ %s\n} 2>&1 </dev/null; echo; echo %s\n" % (command, self.END))
        return self._until(lambda line, _: line == self.END)

    def watch(self, command, number):
        """The first lines of a command that does not end by itself."""
        self.process.stdin.write("%s 2>&1 </dev/null &\n" % command)
        lines = self._until(lambda _, lines: len(lines) == number, keep=True)
        self.process.stdin.write("kill $!; wait $! 2>/dev/null\n")
        return lines

    def _until(self, done, keep=False):
        lines, deadline = [], time.monotonic() + SECONDS
        while True:
            try:
                line = self.lines.get(timeout=max(deadline - time.monotonic(), 0))
            except queue.Empty:
                return lines + ["(nothing more came within %d s)" % SECONDS]
            if line is None:
                return lines + ["(the shell ended)"]
            if keep:
                lines.append(line)
            if done(line, lines):
                return lines
            if not keep:
                lines.append(line)

    def close(self):
        self.process.stdin.close()
        self.process.wait(SECONDS)


def run_examples(name, server, shell):
    text = page(name).replace("127.0.0.1:3379", server.address).replace("/var/lib/t4",
                                                                        server.data_dir)
    todo = examples(text)
    for command, expected in todo:
        if command.startswith(("etcdctl watch", "t4 watch")):
            lines = shell.watch(command, len(expected))
        else:
            lines = shell.run(command)
        TAP.ok(matches(lines, expected), "%s: %s" % (name, command), "printed:", *lines,
               "expected:", *expected)
    return len(todo)


def environment(server):
    """t4 and etcdctl ask this server unless a page says another."""
    return dict(os.environ, T4_ENDPOINTS=server.address, ETCDCTL_ENDPOINTS=server.address,
                ETCDCTL_API="3", PATH=":".join([t4test.BUILD_DIR, os.path.dirname(sys.executable),
                                                os.environ["PATH"]]))


def guide():
    if shutil.which("etcdctl") is None:
        TAP.skip_all("no etcdctl here; Debian package etcd-client")
    for name, options, number in (("guide/start.md", [], 15),
                                  ("guide/space.md", ["--quota-backend-bytes=1MiB"], 9)):
        guide_page(name, options, number)


def guide_page(name, options, number):
    with t4test.T4(options) as server:
        server.start()
        shell = Shell(dict(os.environ))
        TAP.ok(run_examples(name, server, shell) > number, "%s has examples" % name)
        shell.close()


def reference():
    """The examples of the pages of commands and requests, each page on an empty store."""
    names = ["ref/" + name for name in sorted(os.listdir(os.path.join(DOCS, "ref")))
             if name.endswith(".md") and "```console" in page("ref/" + name)]
    names += ["ref/api/" + name for name in sorted(os.listdir(os.path.join(DOCS, "ref", "api")))]
    with t4test.T4() as server:
        server.start()
        for name in names:
            if "watch" in name or "inspect" in name:  # they show the history, too
                server.kill()
                shutil.rmtree(server.data_dir)
                server.start()
            shell = Shell(environment(server))
            TAP.ok(run_examples(name, server, shell) > 0, "%s has examples" % name)
            shell.run("t4 del '' --prefix; for i in $(t4 lease list | sed 1d); do t4 lease revoke $i; done")
            shell.close()


def move_from_etcd():
    """Needs a real etcd 3.6 with its tools, which come first on the path."""
    tools = t4test.ETCD36_DIR
    if not os.path.exists(os.path.join(tools, "etcdutl")):
        TAP.skip("no etcd 3.6 with its tools was built")
        return
    name = "guide/move-from-etcd.md"
    ports = [t4test.free_port(), t4test.free_port()]
    with t4test.Etcd() as etcd:
        etcd.start()
        text = page(name).replace("127.0.0.1:2379", etcd.address)
        text = text.replace("127.0.0.1:3379", "127.0.0.1:%d" % ports[0])
        todo = examples(text)
        TAP.ok(len(todo) > 10, "%s has examples" % name, len(todo))
        shell = Shell(dict(os.environ, T4_LISTEN="127.0.0.1:%d" % ports[0],
                           T4_METRICS_ADDR="127.0.0.1:%d" % ports[1],
                           PATH=os.pathsep.join([tools, os.path.dirname(t4test.T4.binary),
                                                 os.environ["PATH"]])))
        shell.run("cd " + etcd.directory)
        for command, expected in todo:
            lines = shell.run(command)
            TAP.ok(matches(lines, expected), "%s: %s" % (name, command), "printed:", *lines,
                   "expected:", *expected)
        shell.close()


def matcher():
    """The comparison itself notices what it should."""
    TAP.ok(matches(["a", "b 17 c ", ""], ["a", "b ... c"]), "the comparison takes ...")
    for lines, expected in ((["a"], []), ([], ["a"]), (["a", "b"], ["a"]), (["ab"], ["a"]),
                            (["b  c"], ["b ... c"]), (["a.b"], ["a+b"])):
        TAP.ok(not matches(lines, expected), "it refuses %s for %s" % (lines, expected))


def main():
    for part in (matcher, flags, metrics, errors, pages, fields, links, formats, guide, reference,
                 move_from_etcd):
        part()
    TAP.done()


main()
