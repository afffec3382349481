"""The firewall's own qube: which properties and features it has, and making it so.

In: a name, a kernel and a netvm. Out: a qube beside what is there. Never: touches another qube.
"""

from .qubes import Qube
from .tools import run

MEMORY = "32"
"""MiB, for 128 clients; never balloons, so maxmem is the same."""

FEATURES = {
    "qubes-firewall": "1",  # dom0 writes the rules to QubesDB
    "no-default-kernelopts": "1",  # the command line is ours alone
    "skip-update": "1",  # there is nothing in it to update
    "gui": "",
}


def properties(kernel, netvm):
    """What makes a qube a Tidegate. Each is told again by `differences`."""
    return {
        "kernel": kernel,
        "kernelopts": "",
        "memory": MEMORY,
        "maxmem": MEMORY,
        "vcpus": "1",
        "virt_mode": "pvh",
        "provides_network": "True",
        "netvm": netvm,
        "include_in_backups": "True",
    }


def create(name, kernel, netvm, autostart):
    """Makes the qube. Raises ToolError when there is one of that name, or a tool refuses."""
    run("qvm-create", "--class", "StandaloneVM", "--label", "orange", name)
    settle(Qube(name), kernel, netvm)
    Qube(name).set_pref("autostart", str(autostart))


def settle(qube, kernel, netvm):
    """Gives the qube what is missing of its properties and features."""
    for pref, _, wanted in differences(qube, kernel, netvm):
        qube.set_pref(pref, wanted)
    for feature, wanted in FEATURES.items():
        if qube.feature(feature) != wanted:
            qube.set_feature(feature, wanted)


def differences(qube, kernel, netvm):
    """Properties that are not as they should be: name, value, value wanted."""
    there = qube.prefs()
    rows = ((pref, there[pref].value if pref in there else "", value)
            for pref, value in properties(kernel, netvm).items())
    return [row for row in rows if row[1] != row[2]]
