"""What dom0 knows of its qubes, through qvm-* and qubes-prefs.

In: names. Out: properties and features, read anew at each question. Never: remembers an answer, since
another window of dom0 may change it.
"""

from typing import NamedTuple

from .tools import attempt, printable, run


class Pref(NamedTuple):
    """A property of a qube."""

    value: str
    default: bool
    """Whether it follows its default."""


class Qube:
    """One qube, by name."""

    def __init__(self, name):
        self.name = name

    def __str__(self):
        return self.name

    def __eq__(self, other):
        return isinstance(other, Qube) and self.name == other.name

    def __hash__(self):
        return hash(self.name)

    def exists(self):
        return attempt("qvm-check", "--quiet", self.name)[0] == 0

    def running(self):
        return attempt("qvm-check", "--quiet", "--running", self.name)[0] == 0

    def prefs(self):
        """All properties: name to value and whether it is the default. Asking for all costs as much as for one."""
        rows = (line.split(None, 2) for line in run("qvm-prefs", self.name).splitlines())
        return {row[0]: Pref(row[2].strip() if len(row) == 3 else "", row[1] == "D") for row in rows if row[1:]}

    def pref(self, name):
        """The value of a property as text; empty where there is none."""
        return self.prefs().get(name, Pref("", True)).value

    def set_pref(self, name, value):
        run("qvm-prefs", self.name, name, value)

    def reset_pref(self, name):
        run("qvm-prefs", "--default", self.name, name)

    def flag(self, name):
        """A property that is true or false."""
        return self.pref(name) == "True"

    def feature(self, name):
        """The value of a feature, or None."""
        code, out, _ = attempt("qvm-features", self.name, name)
        return out.strip() if code == 0 else None

    def set_feature(self, name, value):
        run("qvm-features", self.name, name, value)

    def unset_feature(self, name):
        run("qvm-features", "--unset", self.name, name)

    def netvm(self):
        """The qube that gives this one its network, or None."""
        name = self.pref("netvm")
        return Qube(name) if name and name != "None" else None

    def upstream(self):
        """The qubes between this one and the world, nearest first."""
        way, at = [], self.netvm()
        while at is not None and at not in way:
            way.append(at)
            at = at.netvm()
        return way

    def start(self):
        run("qvm-start", "--skip-if-running", self.name, seconds=300)

    def shutdown(self):
        run("qvm-shutdown", "--wait", self.name, seconds=180)

    def kill(self):
        run("qvm-kill", self.name)

    def ask(self, service, feed=None, seconds=20):
        """What the qube's own service answers to `feed`, made safe to print.

        Raises ToolError when it does not answer. Nothing is started for it.
        """
        return printable(
            run("qvm-run", "--pass-io", "--no-gui", "--no-autostart", "--service", self.name, service,
                feed=feed, seconds=seconds)
        )

    def shell(self, command, seconds=60):
        """Exit code and output of a shell command in the qube."""
        code, out, _ = attempt("qvm-run", "--pass-io", "--no-gui", self.name, command, seconds=seconds)
        return code, printable(out)


def everyone():
    """All qubes but dom0."""
    return [Qube(name) for name in run("qvm-ls", "--raw-list").split() if name != "dom0"]


def clients_of(firewall):
    """The qubes whose netvm is `firewall`."""
    rows = run("qvm-ls", "--raw-data", "--fields", "name,netvm").splitlines()
    pairs = (row.split("|") for row in rows)
    return [Qube(pair[0]) for pair in pairs if len(pair) == 2 and pair[1].lstrip("*") == firewall.name]


def role(name):
    """The qube that `qubes-prefs` names for a duty (updatevm, clockvm, default_netvm), or None."""
    value = run("qubes-prefs", name).strip()
    return Qube(value) if value and value != "None" else None


def set_role(name, qube):
    run("qubes-prefs", name, qube.name)
