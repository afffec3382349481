#!/usr/bin/python3 -ISB
"""A dom0 to test against: the qvm-* tools over one file of state, called by the name of each.

In: a command as dom0's tools take it. Out: what they print, and the state changed as qubesd changes it.
Where the real tool refuses, so does this one: a running qube cannot be given a netvm that is off, a
netvm with running qubes behind it does not shut down, circles are no network. `defects` in the state
plant what a broken firewall would do.
"""

import json
import os
import re
import sys

STATE = os.environ["TIDEGATE_FAKE_DOM0"]
BOOL = {"autostart", "provides_network", "include_in_backups"}


class Refused(Exception):
    """What the tool says before it exits with 1."""


class Dom0:
    """The state, and what the tools do to it."""

    def __init__(self, state):
        self.state = state
        self.vms = state["vms"]
        self.prefs = state["prefs"]
        self.defects = set(state.get("defects", []))

    def vm(self, name):
        if name not in self.vms:
            raise Refused(f"no such domain: {name}")
        return self.vms[name]

    def netvm(self, name):
        value = self.vm(name).get("netvm", "*")
        if value != "*":
            return value
        return self.prefs["default_netvm"] if not self.vm(name).get("provides_network") else ""

    # qvm-prefs and qubes-prefs

    def qvm_prefs(self, args):
        if args[0] == "--default":
            name, pref = args[1:]
            if pref == "netvm":
                self.attach(name, self.prefs["default_netvm"])
            self.vm(name).pop(pref, None)
            return ""
        name, rest = args[0], args[1:]
        vm = self.vm(name)
        if not rest:
            return "".join(f"{pref:<20}  {'D' if vm.get(pref, '*') == '*' else '-'}  {self.value(name, pref)}\n"
                           for pref in sorted({*vm, "netvm", "autostart", "ip"} - {"running", "features", "rules"}))
        if len(rest) == 1:
            return f"{self.value(name, rest[0])}\n"
        pref, value = rest
        if pref == "netvm":
            self.attach(name, value)
        vm[pref] = value == "True" if pref in BOOL else value
        return ""

    def value(self, name, pref):
        if pref == "netvm":
            return self.netvm(name) or "None"
        if pref == "ip":
            return f"10.137.0.{10 + sorted(self.vms).index(name)}"
        default = False if pref in BOOL else ""
        return self.vm(name).get(pref, default)

    def attach(self, name, netvm):
        """What qubesd looks at before a qube gets another netvm."""
        if f"no-attach:{name}" in self.defects:
            raise Refused(f"Failed to attach network of {name}")
        if not netvm:
            return
        if not self.vm(netvm).get("provides_network"):
            raise Refused(f"The {netvm} qube does not provide network")
        if self.vm(name)["running"] and not self.vm(netvm)["running"]:
            raise Refused(f"Cannot dynamically attach to stopped NetVM: {netvm}")
        at = netvm
        while at:
            if at == name:
                raise Refused("Loops in network are unsupported")
            at = self.netvm(at)
        self.vm(name)["attached"] = True

    def qubes_prefs(self, args):
        if len(args) == 1:
            return f"{self.prefs.get(args[0]) or 'None'}\n"
        self.prefs[args[0]] = args[1]
        return ""

    # life

    def qvm_create(self, args):
        name, vm = args[-1], {"running": False, "features": {}, "rules": ["action=accept"]}
        if name in self.vms:
            raise Refused(f"VM name already exists: {name}")
        words = iter(args[:-1])
        for word in words:
            value = next(words)
            if word == "--property":
                key, value = value.split("=", 1)
                vm[key] = value
        self.vms[name] = vm
        return ""

    def qvm_start(self, args):
        name = args[-1]
        if self.netvm(name):
            self.qvm_start([self.netvm(name)])
        if not self.vm(name)["running"] and f"no-start:{name}" in self.defects:
            raise Refused(f"Start failed: {name}")
        self.vm(name).update(running=True, paused=False, attached=True)
        for client in self.behind(name):
            # Qubes attaches the running clients of a netvm that comes up again.
            self.vm(client)["attached"] = True
        return ""

    def qvm_shutdown(self, args):
        name = args[-1]
        clients = [client for client in self.behind(name) if self.vm(client)["running"]]
        if clients:
            raise Refused(f"There are other VMs connected to this VM: {', '.join(clients)}")
        self.vm(name)["running"] = False
        return ""

    def qvm_kill(self, args):
        name = args[-1]
        self.vm(name)["running"] = False
        for client in self.behind(name):
            self.vm(client)["attached"] = False
            if "no-heal" in self.defects:
                self.vm(client)["broken"] = True
        return ""

    def qvm_remove(self, args):
        if self.vm(args[-1])["running"]:
            raise Refused("Domain is running")
        del self.vms[args[-1]]
        return ""

    def qvm_pause(self, args):
        self.vm(args[-1])["paused"] = True
        return ""

    def qvm_unpause(self, args):
        self.vm(args[-1])["paused"] = "no-resume" in self.defects
        return ""

    def behind(self, name):
        return [vm for vm in self.vms if self.netvm(vm) == name]

    # questions

    def qvm_check(self, args):
        names = [arg for arg in args if not arg.startswith("--")]
        if any(name not in self.vms for name in names):
            raise Refused("")
        if "--running" in args and not all(self.vms[name]["running"] for name in names):
            raise Refused("")
        return ""

    def qvm_ls(self, args):
        if args == ["--raw-list"]:
            return "".join(f"{name}\n" for name in ["dom0", *self.vms])
        fields = args[args.index("--fields") + 1].split(",")
        rows = ("|".join(name if field == "name" else str(self.value(name, field) or "-") for field in fields)
                for name in self.vms)
        return "".join(f"{row}\n" for row in rows)

    def qvm_features(self, args):
        if args[0] == "--unset":
            self.vm(args[1])["features"].pop(args[2], None)
            return ""
        name, feature, *value = args
        if value:
            self.vm(name)["features"][feature] = value[0]
            return ""
        if feature not in self.vm(name)["features"]:
            raise Refused("")
        return f"{self.vm(name)['features'][feature]}\n"

    def qvm_firewall(self, args):
        rules = self.vm(args[0])["rules"]
        if args[1] == "add":
            rules.insert(int(args[3]), " ".join(args[4:]))
            if not self.allowed(args[0], "203.0.113.9") and "sticky-flows" not in self.defects:
                self.vm(args[0]).pop("slow", None)
        else:
            del rules[int(args[3])]
        return ""

    def xl(self, args):
        if args[0] == "domid" and not self.vm(args[1])["running"]:
            raise Refused(f"{args[1]} is an invalid domain identifier")
        if args[0] == "domid" and "dies" in self.defects:
            self.vm(args[1])["running"] = False
        return "xen_version            : 4.17.5\n" if args[0] == "info" else "7\n"

    def systemctl(self, args):
        if args[0] == "is-active" and not self.state.get("keeper"):
            raise Refused("")
        return ""

    def sudo(self, args):
        self.state["keeper"] = False
        return ""

    # what a qube sees of the network

    def qvm_run(self, args):
        words = [arg for arg in args if arg not in ("--pass-io", "--no-gui", "--no-autostart")]
        if words[0] == "--service":
            name, service = words[1:]
            answer = self.state.get("services", {}).get(service)
            if isinstance(answer, dict):
                answer = answer.get(sys.stdin.read(), "what?: not SOURCE DESTINATION\n")
            if not self.vm(name)["running"] or answer is None:
                raise Refused("Request refused")
            return answer
        return self.shell(*words)

    def shell(self, name, command):
        code = self.command(name, command)
        if code:
            save(self.state)
            sys.exit(code)
        return ""

    def command(self, name, command):
        if command.startswith("curl"):
            site = re.search(r"https://([^/]+)/", command).group(1)
            return self.fetch(name, site, "dropped-silently" in self.defects)
        if command.startswith("nohup curl"):
            self.vm(name)["slow"] = True
            return 0
        if "kill -0" in command:
            alive = bool(self.vm(name).get("slow"))
            return int(alive) if command.startswith("for") else int(not alive)
        if command.startswith("getent") or command.startswith("dig"):
            return 0 if self.path(name) and "no-dns" not in self.defects else 2
        if command == "qubesdb-read /qubes-ip6":
            return 1
        if command.startswith("ping"):
            return self.ping(name, command)
        return 0

    def ping(self, name, command):
        if "10.137." in command:
            return 0 if "open-between" in self.defects else 1
        if "-s 1400" in command and "small-mtu" in self.defects:
            return 1
        return 0 if self.path(name) else 1

    def fetch(self, name, site, silently):
        if not self.path(name):
            return 28
        if self.allowed(name, site):
            return 0
        return 28 if silently else 7

    def path(self, name):
        vm = self.vm(name)
        if not vm["running"] or vm.get("paused") or vm.get("broken"):
            return False
        netvm = self.netvm(name)
        return vm.get("attached", True) and self.path(netvm) if netvm else True

    def allowed(self, name, site):
        for rule in self.vm(name)["rules"]:
            words = dict(word.split("=") for word in rule.split())
            if words.get("specialtarget") == "dns":
                continue
            if words.get("dsthost", site) != site and "names-too-wide" not in self.defects:
                continue
            return words["action"] == "accept"
        return False


def save(state):
    with open(STATE, "w", encoding="utf-8") as file:
        json.dump(state, file)


def main():
    with open(STATE, encoding="utf-8") as file:
        state = json.load(file)
    tool = os.path.basename(sys.argv[0]).replace("-", "_")
    args = [arg for arg in sys.argv[1:]
            if arg not in ("--quiet", "--skip-if-running", "--wait", "--force")]
    state.setdefault("calls", []).append([tool, *args])
    try:
        said = getattr(Dom0(state), tool)(args)
    except Refused as reason:
        save(state)
        print(reason, file=sys.stderr)
        sys.exit(1)
    save(state)
    sys.stdout.write(said)


if __name__ == "__main__":
    main()
