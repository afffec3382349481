"""When a firewall that has died is started again: the decision, apart from the doing.

In: whether it runs, its last words on the console, the times of earlier starts. Out: what to do. Never:
starts one that was told to end, or more than LIMIT times in WINDOW, since something that dies again and
again wants eyes, not another try.
"""

from enum import Enum

from . import console

LIMIT = 3
WINDOW = 600.0
"""Seconds."""


class Act(Enum):
    WAIT = "nothing to do"
    REMEMBER = "it runs: from now on its death is one"
    REST = "it was told to end: wait until somebody starts it"
    START = "it died: keep the log and start it"
    GIVE_UP = "it died too often"


def decide(seen_running, running, last_words, starts, now):
    """What to do now.

    `seen_running`: whether it ran since the last rest. `last_words`: the end of its console. `starts`:
    times of our starts, in seconds, on the clock of `now`.
    """
    if running:
        return Act.WAIT if seen_running else Act.REMEMBER
    if not seen_running:
        return Act.WAIT
    if told_to_end(last_words):
        return Act.REST
    if len(recent(starts, now)) >= LIMIT:
        return Act.GIVE_UP
    return Act.START


def told_to_end(last_words):
    """Whether the console ends with the line of an orderly end."""
    lines = console.lines(last_words)
    return bool(lines) and lines[-1] in ("ending: Poweroff", "ending: Reboot")


def recent(starts, now):
    """The starts within WINDOW before `now`."""
    return [start for start in starts if now - start < WINDOW]
