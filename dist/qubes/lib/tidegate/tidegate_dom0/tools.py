"""The one place that runs a command.

In: a command and its arguments. Out: what it printed. Never: a shell, or output that could move the
cursor of the terminal it is shown on.
"""

import subprocess


class ToolError(Exception):
    """A command failed: which one, and what it said."""

    def __init__(self, argv, code, said):
        self.argv, self.code, self.said = argv, code, printable(said).strip()
        super().__init__(f"{' '.join(argv)}: {self.said or f'exit code {code}'}")


def run(*argv, feed=None, seconds=120):
    """What `argv` printed.

    Raises ToolError when it fails, cannot be run, or takes longer than `seconds`.
    """
    code, out, err = attempt(*argv, feed=feed, seconds=seconds)
    if code != 0:
        raise ToolError(argv, code, err or out)
    return out


def attempt(*argv, feed=None, seconds=120):
    """The exit code of `argv`, what it printed, and what it complained of."""
    try:
        done = subprocess.run(
            argv,
            input=feed,
            stdin=subprocess.DEVNULL if feed is None else None,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
            check=False,
        )
    except FileNotFoundError as missing:
        raise ToolError(argv, 127, "no such command; is this dom0?") from missing
    except subprocess.TimeoutExpired as late:
        raise ToolError(argv, 124, f"no end after {seconds} seconds") from late
    return done.returncode, done.stdout, done.stderr


def printable(text):
    """`text` with all but plain characters and line ends replaced.

    Names and addresses come from outside; a terminal obeys what it is shown.
    """
    return "".join(c if c == "\n" or " " <= c <= "~" else "?" for c in text)
