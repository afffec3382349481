"""Moving one qube behind the firewall, and all of them back.

In: qubes. Out: their netvm changed, with a note on the qube itself of what it was, so that the way back
needs nothing but dom0's own database. Never: a qube without a netvm in between, since Qubes takes
"no netvm" for a wish.
"""

from . import guard
from .qubes import Qube, clients_of, everyone, role, set_role
from .tools import ToolError

BEFORE = "tidegate-netvm-before"
"""Feature on a moved qube: `default:NAME` or `set:NAME`, its netvm before."""

DUTIES = ("updatevm", "clockvm", "default_netvm")


def facts(qube, firewall):
    """What guard asks about a move."""
    if not firewall.exists():
        return guard.Facts(qube.name, firewall.name, firewall_exists=False)
    if qube.name == "dom0" or not qube.exists():
        return guard.Facts(qube.name, firewall.name, qube_exists=qube.name == "dom0")
    netvm = qube.netvm()
    return guard.Facts(
        qube=qube.name,
        firewall=firewall.name,
        netvm=netvm.name if netvm else "",
        netvm_upstream=[q.name for q in netvm.upstream()] if netvm else [],
        firewall_upstream=[q.name for q in firewall.upstream()],
        duties=[duty for duty in DUTIES if role(duty) == qube],
        autostart=qube.flag("autostart"),
        firewall_autostart=firewall.flag("autostart"),
    )


def move(qube, firewall):
    """Puts `qube` behind `firewall`. When that fails the qube is put back, and the error raised."""
    before = note(qube)
    firewall.start()
    qube.set_feature(BEFORE, before)
    try:
        qube.set_pref("netvm", firewall.name)
    except ToolError:
        restore(qube, before)
        raise


def note(qube):
    """The netvm of `qube` as BEFORE stores it."""
    netvm = qube.prefs()["netvm"]
    return f"{'default' if netvm.default else 'set'}:{netvm.value}"


def restore(qube, before):
    """Gives `qube` the netvm it had, and takes the note off."""
    how, name = before.split(":", 1)
    if how == "default" and role("default_netvm") == Qube(name):
        qube.reset_pref("netvm")
    else:
        qube.set_pref("netvm", name)
    qube.unset_feature(BEFORE)


def way_back(firewall, fallback):
    """Each qube that is to go back, with the note to restore.

    A qube that somebody put behind the firewall by hand has no note and goes to `fallback`.
    """
    plan = []
    for qube in clients_of(firewall):
        plan.append((qube, qube.feature(BEFORE) or f"set:{fallback}"))
    return plan


def moved_elsewhere(firewall):
    """Qubes with a note that are no longer behind the firewall: somebody moved them on."""
    behind = clients_of(firewall)
    return [qube for qube in everyone() if qube not in behind and qube.feature(BEFORE)]


def free_of_duties(firewall, fallback):
    """Gives the duties of the firewall to `fallback`; which they were."""
    given = []
    for duty in DUTIES:
        if role(duty) == firewall:
            set_role(duty, fallback)
            given.append(duty)
    return given
