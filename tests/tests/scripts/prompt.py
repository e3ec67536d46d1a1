"""Uses the prompt of a program on a terminal: `prompt.py PROGRAM…`. Says nothing if all is well."""

import os
import pty
import select
import sys
import time

pid, terminal = pty.fork()
if pid == 0:
    os.environ["TERM"] = "xterm"
    os.execvp(sys.argv[1], sys.argv[1:])

seen = ""


def wait_for(text, seconds=60):
    """Reads until the text comes, and forgets what came before it."""
    global seen
    end = time.monotonic() + seconds
    while text not in seen:
        if time.monotonic() > end:
            sys.exit(f"{text!r} did not come; this did: {seen!r}")
        if select.select([terminal], [], [], 0.1)[0]:
            try:
                seen += os.read(terminal, 65536).decode(errors="replace")
            except OSError:
                sys.exit(f"it ended before {text!r} came; this came: {seen!r}")
    seen = seen.split(text, 1)[1]


def type_in(text):
    os.write(terminal, text.encode())


wait_for("pond> ")
type_in("SELECT 40 +\r")
wait_for("...> ")
type_in("2 AS answer;\r")
wait_for("answer\r\n")
wait_for("42")
wait_for("pond> ")
type_in("SELECT nothing;\r")
wait_for("cannot answer the query")
wait_for("pond> ")
# What is typed is given up.
type_in("SELECT 1")
type_in("\x03")
wait_for("pond> ")
# What runs is given up, and the prompt goes on.
type_in("SELECT count(*) FROM generate_series(1, 1000000000000) a(i) WHERE i % 7 = 8;\r")
time.sleep(1)
type_in("\x03")
wait_for("cancelled")
wait_for("pond> ")
type_in("SELECT count(*) AS files FROM files;\r")
wait_for("files\r\n")
wait_for("pond> ")
type_in("\\q\r")
_, status = os.waitpid(pid, 0)
sys.exit(os.waitstatus_to_exitcode(status))
