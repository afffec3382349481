"""What the firewall has said, line by line.

In: the log of its console as xenconsoled keeps it, or an answer of tidegate.Log. Out: its lines without
the time that stands before them, safe to print. Never: a line taken for more than text.
"""

import re
from pathlib import Path

from .tools import printable

CONSOLE = Path("/var/log/xen/console")

TIME = re.compile(r"^(?:\[[0-9: -]+\] )? *(?:[0-9]+\.[0-9]{3} )?")
"""By xenconsoled a date in brackets, by tidegate.Log the seconds since its boot."""

REFUSAL = re.compile(r"^(?:[a-z]+: )?(?:drop|reject) ")
"""A packet that was refused, behind how much it matters if a rule says so."""


def log_of(firewall):
    """Where dom0 keeps what it says on its console."""
    return CONSOLE / f"guest-{firewall}.log"


def lines(text):
    """The lines of `text`."""
    return [TIME.sub("", printable(line.rstrip())) for line in text.splitlines() if line.strip()]


def read(firewall):
    """The lines of its console; none if there is no log."""
    try:
        return lines(log_of(firewall).read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return []


def refusals(said):
    """Those lines that tell of a packet refused."""
    return [line for line in said if REFUSAL.match(line)]
