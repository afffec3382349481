"""What a user of Qubes would notice if it did not work, tried with two qubes made for it.

In: a firewall, two qubes behind it, an address in the world. Out: each check passed, failed or left out,
with a reason. Never: touches a qube of the user's, but for the network VM, and that only when told so.
"""

import time
from dataclasses import dataclass

from . import image, setup
from .qubes import Qube
from .tools import ToolError, run


class Failed(Exception):
    """The check found what a user would complain of."""


class LeftOut(Exception):
    """The check does not apply here."""


@dataclass
class World:
    """What the checks work with."""

    firewall: Qube
    old: Qube
    one: Qube
    other: Qube
    site: str = "www.qubes-os.org"
    disturb: bool = False
    """Whether the network VM may be killed."""
    patience: float = 60.0
    """Seconds until something that should come back has to be back."""

    def fetch(self, options="", qube=None):
        """curl's exit code for a page of the site: 0 it came, 7 refused at once, 28 no answer."""
        url = f"https://{self.site}/"
        return (qube or self.one).shell(f"curl -sS -m 10 -o /dev/null {options} {url}")[0]

    def comes_back(self, what):
        """Waits until a page can be fetched."""
        until = time.monotonic() + self.patience
        while self.fetch() != 0:
            if time.monotonic() > until:
                raise Failed(f"no page within {self.patience:.0f} s after {what}")
            time.sleep(2)

    def rules(self, *rules):
        """Puts rules before those that `one` has; returns how to take them off."""
        for rule in reversed(rules):
            run("qvm-firewall", self.one.name, "add", "--before", "0", *rule.split())
        return Rules(self.one, len(rules))


@dataclass
class Rules:
    """Rules that are taken off at the end of a with block."""

    qube: Qube
    count: int

    def __enter__(self):
        time.sleep(1)
        return self

    def __exit__(self, *_):
        for _ in range(self.count):
            run("qvm-firewall", self.qube.name, "del", "--rule-no", "0")
        time.sleep(1)


def expect(found, wanted, meaning):
    if found != wanted:
        raise Failed(f"{meaning} (curl: {found})")


def made_as_setup_makes_it(w):
    """the firewall's qube is as tidegate-setup makes it"""
    netvm = w.firewall.pref("netvm")
    for pref, found, wanted in setup.differences(w.firewall, w.firewall.pref("kernel"), netvm):
        raise Failed(f"{pref} is {found!r}, not {wanted!r}")


def kernel_is_the_installed_one(w):
    """its kernel is the one that was installed"""
    try:
        image.digest(w.firewall.pref("kernel"))
    except image.ImageError as error:
        raise Failed(str(error)) from error


def gateway_answers(w):
    """the gateway answers a ping"""
    if w.one.shell("ping -c 2 -W 5 $(qubesdb-read /qubes-gateway)")[0] != 0:
        raise Failed("no answer")


def names_resolve(w):
    """names resolve"""
    if w.one.shell(f"getent ahosts {w.site}")[0] != 0:
        raise Failed(f"{w.site} has no address")


def both_resolvers_answer(w):
    """both resolvers answer"""
    if w.one.shell("command -v dig")[0] != 0:
        raise LeftOut("no dig in the template")
    for key in ("/qubes-primary-dns", "/qubes-secondary-dns"):
        if w.one.shell(f"dig +time=5 +tries=1 @$(qubesdb-read {key}) {w.site}")[0] != 0:
            raise Failed(f"{key} does not answer")


def page_comes(w):
    """a page comes"""
    expect(w.fetch(), 0, "no page")


def world_answers_ping(w):
    """a host in the world answers a ping"""
    if w.one.shell(f"ping -4 -c 2 -W 5 {w.site}")[0] != 0:
        raise Failed("no answer")


def large_packets_pass(w):
    """packets of full size pass"""
    if w.one.shell(f"ping -4 -c 2 -W 5 -s 1400 {w.site}")[0] != 0:
        raise Failed("1400 bytes get no answer")


def ipv6_works_where_it_is_on(w):
    """IPv6 works where it is on"""
    if w.one.shell("qubesdb-read /qubes-ip6")[0] != 0:
        raise LeftOut("the qube has no IPv6 address")
    expect(w.fetch("-6"), 0, "no page by IPv6")


def qubes_do_not_reach_each_other(w):
    """a qube does not reach another one"""
    w.other.shell("sudo nft insert rule ip qubes custom-input accept")
    address = w.other.pref("ip")
    if w.one.shell(f"ping -c 2 -W 3 {address}")[0] == 0:
        raise Failed(f"{address} answers")


def dropped_is_refused_at_once(w):
    """what a rule drops is refused at once, not left without an answer"""
    with w.rules("action=drop proto=tcp dstports=443"):
        expect(w.fetch(), 7, "not refused at once")


def rule_taken_off_is_gone(w):
    """a rule that is taken off is gone"""
    with w.rules("action=drop"):
        if w.fetch() == 0:
            raise Failed("the page came in spite of the rule")
    expect(w.fetch(), 0, "no page after the rule was taken off")


def connection_ends_with_its_rule(w):
    """a connection ends when its rule is taken away"""
    w.one.shell(f"nohup curl -s --limit-rate 100 -m 120 -o /dev/null https://{w.site}/ >/dev/null 2>&1 & "
                "echo $! > /tmp/slow; sleep 3")
    if w.one.shell("kill -0 $(cat /tmp/slow)")[0] != 0:
        raise LeftOut("the site closed the slow connection itself")
    with w.rules("action=drop"):
        if w.one.shell("for i in $(seq 30); do kill -0 $(cat /tmp/slow) || exit 0; sleep 1; done; exit 1")[0]:
            raise Failed("it is still there after 30 s")


def rule_by_name(w):
    """a rule by name lets that name through and no other"""
    with w.rules(f"action=accept dsthost={w.site}", "action=accept specialtarget=dns", "action=drop"):
        expect(w.fetch(), 0, "the named site does not come")
        if w.one.shell("curl -sS -m 10 -o /dev/null https://example.org/")[0] == 0:
            raise Failed("another site comes")


def only_dns(w):
    """with DNS alone allowed, names resolve and pages do not come"""
    with w.rules("action=accept specialtarget=dns", "action=drop"):
        names_resolve(w)
        if w.fetch() == 0:
            raise Failed("a page came")


def qube_restarted(w):
    """a qube that was restarted has its network"""
    w.one.shutdown()
    w.one.start()
    w.comes_back("its restart")


def moved_and_back(w):
    """a qube moved to the old firewall and back has its network"""
    w.old.start()
    w.one.set_pref("netvm", w.old.name)
    w.one.set_pref("netvm", w.firewall.name)
    w.comes_back("the move")


def pause_harms_nothing(w):
    """a pause of the firewall, as in suspend, harms nothing"""
    run("qvm-pause", w.firewall.name)
    time.sleep(5)
    run("qvm-unpause", w.firewall.name)
    w.comes_back("the pause")


def firewall_killed(w):
    """the firewall killed and started again serves the qubes it had"""
    w.firewall.kill()
    w.firewall.start()
    w.comes_back("the start of the firewall")


def netvm_killed(w):
    """the network VM killed and started again: the network comes back by itself"""
    if not w.disturb:
        raise LeftOut("it would cut the network of all qubes for a minute: ask for it with --disturb")
    netvm = w.firewall.netvm()
    netvm.kill()
    netvm.start()
    w.comes_back(f"the start of {netvm}")


CHECKS = [
    made_as_setup_makes_it, kernel_is_the_installed_one, gateway_answers, names_resolve, both_resolvers_answer,
    page_comes, world_answers_ping, large_packets_pass, ipv6_works_where_it_is_on,
    qubes_do_not_reach_each_other, dropped_is_refused_at_once, rule_taken_off_is_gone,
    connection_ends_with_its_rule, rule_by_name, only_dns, qube_restarted, moved_and_back, pause_harms_nothing,
    firewall_killed, netvm_killed,
]


def perform(world, tell, only=None):
    """Runs all checks, or those named; `tell` is given each result as it comes. The results, as dicts."""
    results = []
    for check in CHECKS:
        if only and check.__name__ not in only:
            continue
        result = {"check": check.__doc__, "name": check.__name__, "result": "passed", "why": ""}
        try:
            check(world)
        except LeftOut as reason:
            result.update(result="left out", why=str(reason))
        except (Failed, ToolError) as reason:
            result.update(result="failed", why=str(reason))
        tell(result)
        results.append(result)
    return results
