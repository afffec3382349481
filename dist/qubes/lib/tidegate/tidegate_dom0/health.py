"""How the firewall is, as findings with what to do next.

In: what dom0 knows of its qube, what its services answer, its console. Out: findings, the worst with the
next command to type. Never: changes anything, or takes silence for health.
"""

from dataclasses import dataclass, field

from . import console, image, moves, setup
from .qubes import Qube
from .tools import ToolError

DROPS_SHOWN = 5


@dataclass
class Finding:
    """One thing that was looked at."""

    level: str
    """`ok`, `note` or `BAD`."""
    what: str
    next: str = ""
    """The command to type, or what to do; empty where there is nothing to do."""


@dataclass
class Status:
    """What tidegate.Status answers, a line each."""

    policy: str = ""
    uplink: str = ""
    flows: str = ""
    clients: dict = field(default_factory=dict)
    """Address to the state of its rules, for clients that are connected."""
    absent: dict = field(default_factory=dict)
    """The same for addresses that have rules and no client."""
    other: list = field(default_factory=list)
    """Lines that are shown as they are."""


def read_status(text):
    """Takes an answer of tidegate.Status apart."""
    status = Status()
    for line in text.splitlines():
        word, _, rest = line.partition(" ")
        if word in ("policy", "uplink", "flows"):
            setattr(status, word, rest)
        elif word in ("client", "absent"):
            address, _, rules = rest.partition(" rules ")
            (status.clients if word == "client" else status.absent)[address] = rules
        elif line:
            status.other.append(line)
    return status


def examine(firewall):
    """All findings about `firewall`, in the order in which one would look."""
    if not firewall.exists():
        return [Finding("BAD", f"there is no qube {firewall}", "tidegate-setup")]
    found = [*of_the_qube(firewall), *of_the_kernel(firewall)]
    if not firewall.running():
        return [*found, Finding("BAD", f"{firewall} does not run", f"qvm-start {firewall}")]
    said = console.read(firewall)
    found.extend(of_the_start(said))
    try:
        status = read_status(firewall.ask("tidegate.Status"))
    except ToolError as silent:
        return [*found, Finding("BAD", f"it does not answer ({silent})",
                                f"the old firewall again: tidegate-rollback; then read {console.log_of(firewall)}")]
    found.extend(of_the_status(status, firewall))
    return [*found, *of_drops(firewall, said)]


def of_the_qube(firewall):
    prefs = {name: pref.value for name, pref in firewall.prefs().items()}
    wrong = setup.differences(firewall, prefs.get("kernel", ""), prefs.get("netvm", ""))
    for pref, found, wanted in wrong:
        yield Finding("note", f"{pref} is {found!r}, not {wanted!r}", f"qvm-prefs {firewall} {pref} '{wanted}'")
    for duty in moves.DUTIES:
        if moves.role(duty) == firewall and duty != "default_netvm":
            yield Finding("BAD", f"it is the {duty}, and cannot be: it runs no programs",
                          f"qubes-prefs {duty} sys-net")
    if not wrong:
        yield Finding("ok", f"{firewall} is as tidegate-setup makes it")


def of_the_kernel(firewall):
    kernel = firewall.pref("kernel")
    try:
        yield Finding("ok", f"kernel {kernel}, SHA-256 {image.digest(kernel)}")
    except image.ImageError as error:
        yield Finding("BAD", str(error), "tidegate-rollback, then install the package anew")
        return
    if image.newest() != kernel:
        yield Finding("note", f"{image.newest()} is installed, {kernel} is used", "tidegate-setup")


def of_the_start(said):
    """The line of the last boot: version, mode, memory, entropy."""
    boots = [line for line in said if " booting: " in line]
    if boots:
        weak = "entropy: clock jitter" in boots[-1]
        yield Finding("note" if weak else "ok", boots[-1],
                      "a processor without RDRAND: ports are drawn from the timing of its own clock" if weak else "")


def of_the_status(status, firewall):
    yield Finding("ok" if not status.policy.startswith("none") else "BAD", f"policy {status.policy}",
                  "" if not status.policy.startswith("none") else "install the package anew, or tidegate load")
    up = status.uplink == "up"
    netvm = firewall.netvm()
    advice = f"qvm-start {netvm}" if netvm else f"qvm-prefs {firewall} netvm sys-net"
    yield Finding("ok" if up else "BAD", f"uplink {status.uplink}, by {netvm or 'no netvm'}", "" if up else advice)
    yield Finding("ok", f"{status.flows} flows")
    names = {qube.pref("ip"): qube.name for qube in moves.clients_of(firewall)}
    for address, rules in status.clients.items():
        name = names.get(address, "no qube of dom0's")
        blocked = rules.startswith("blocked")
        yield Finding("BAD" if blocked else "ok", f"client {address} ({name}): {rules}{'' if blocked else ' rules'}",
                      f"qvm-firewall {name} list" if blocked else "")
    for address, name in names.items():
        if address not in status.clients and Qube(name).running():
            yield Finding("BAD", f"{name} ({address}) runs and is not connected",
                          f"tidegate-rollback {name}, then tidegate-move {name}")
    for line in status.other:
        yield Finding("ok", line)


def of_drops(firewall, said):
    """The last packets refused, each with its rule."""
    try:
        said = console.lines(firewall.ask("tidegate.Log"))
    except ToolError:
        pass
    for line in console.refusals(said)[-DROPS_SHOWN:]:
        yield Finding("note", line)


def worst(found):
    """The finding to do something about first, or None."""
    return next((finding for finding in found if finding.level == "BAD" and finding.next), None)
