"""Whether a qube may be moved behind the firewall: pure questions with reasons for a no.

In: facts. Out: refusals, each with what to do about it. Never: changes anything.
"""

from dataclasses import dataclass, field


@dataclass
class Facts:
    """What was found about a qube, its present netvm and the firewall, all by name."""

    qube: str
    firewall: str
    netvm: str = ""
    """The netvm of the qube today; empty: none."""
    netvm_upstream: list = field(default_factory=list)
    """From the qube's netvm to the world, nearest first, without that netvm."""
    firewall_upstream: list = field(default_factory=list)
    firewall_exists: bool = True
    qube_exists: bool = True
    duties: list = field(default_factory=list)
    """The duties the qube has in qubes-prefs: updatevm, clockvm, default_netvm."""
    autostart: bool = False
    firewall_autostart: bool = False


def refusals(facts, allow_duty=False):
    """Why the move would break something, in words; empty: it may be done."""
    if not facts.firewall_exists:
        return [f"there is no qube {facts.firewall}: make it with tidegate-setup"]
    if not facts.qube_exists:
        return [f"there is no qube {facts.qube}"]
    if facts.qube == "dom0":
        return ["dom0 has no network, and is to have none"]
    if facts.qube == facts.firewall:
        return [f"{facts.qube} is the firewall itself"]
    if facts.qube in facts.firewall_upstream:
        return [f"{facts.qube} gives {facts.firewall} its network: that would be a circle"]
    if facts.netvm == facts.firewall:
        return [f"{facts.qube} is behind {facts.firewall} already"]
    if not facts.netvm:
        return [f"{facts.qube} has no network today; a move would give it one. "
                f"If that is wanted: qvm-prefs {facts.qube} netvm {facts.firewall}"]
    found = []
    if facts.netvm_upstream != facts.firewall_upstream:
        found.append(
            f"{facts.netvm} reaches the world by {way(facts.netvm_upstream)}, {facts.firewall} by "
            f"{way(facts.firewall_upstream)}: a move would take {facts.qube} past what is between "
            "(a VPN, Tor)")
    for duty in facts.duties:
        if not allow_duty:
            found.append(f"{facts.qube} is the {duty} of this system: try another qube first, "
                         "then use --even-if-needed")
    if facts.autostart and not facts.firewall_autostart:
        found.append(f"{facts.qube} starts with the system and {facts.firewall} does not: "
                     f"qvm-prefs {facts.firewall} autostart True")
    return found


def way(names):
    return " and ".join(names) if names else "nothing"
