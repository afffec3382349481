"""A dom0 made for one test: fake tools on the PATH, a kernel folder, and the commands under test."""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

DIST = Path(__file__).resolve().parent.parent
LIBRARY = DIST / "qubes" / "lib" / "tidegate"
TOOLS = ["qvm-prefs", "qvm-features", "qvm-check", "qvm-ls", "qvm-create", "qvm-start", "qvm-shutdown", "qvm-kill",
         "qvm-pause", "qvm-unpause", "qvm-remove", "qvm-run", "qvm-firewall", "qubes-prefs", "xl", "systemctl",
         "sudo"]

sys.path.insert(0, str(LIBRARY))

RUN = """
import sys, runpy, time, pathlib
sys.path.insert(0, {library!r})
from tidegate_dom0 import console, image
console.CONSOLE = pathlib.Path({console!r})
image.KERNELS = pathlib.Path({kernels!r})
real, clock = time.sleep, [0.0]
time.monotonic = lambda: clock[0]
def sleep(seconds):
    clock[0] += seconds
    real(0)
time.sleep = sleep
sys.argv = {argv!r}
runpy.run_path(sys.argv[0], run_name="__main__")
"""
"""Runs a command as it is, but for the folders of kernels and logs and for waiting, which takes no time."""

AFTER = {}


def said(name):
    """What the firewall says, written down by its own tests (tests/said.rs)."""
    return (DIST / "tests" / "said" / name).read_text(encoding="utf-8")


def vm(netvm="*", running=True, **prefs):
    return {"netvm": netvm, "running": running, "features": {}, "rules": ["action=accept"], **prefs}


class Dom0Test(unittest.TestCase):
    """A dom0 with sys-net, sys-firewall and two qubes, as the installer leaves it."""

    maxDiff = None

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        tools = self.folder / "tools"
        tools.mkdir()
        for tool in TOOLS:
            (tools / tool).symlink_to(DIST / "tests" / "fake" / "qubesd.py")
        self.state_file = self.folder / "state.json"
        self.environment = {
            **os.environ,
            "PATH": f"{tools}:{os.environ['PATH']}",
            "TIDEGATE_FAKE_DOM0": str(self.state_file),
        }
        self.kernels = self.folder / "vm-kernels"
        self.install_kernel("tidegate-0.1.0")
        self.change(lambda state: state.update(
            vms={
                "sys-net": vm("", provides_network=True),
                "sys-firewall": vm("sys-net", provides_network=True, autostart=True),
                "sys-usb": vm(""),
                "work": vm(),
                "personal": vm("sys-firewall"),
            },
            prefs={"default_netvm": "sys-firewall", "updatevm": "sys-firewall", "clockvm": "sys-net"},
        ))

    def install_kernel(self, name, content=b"a kernel"):
        folder = self.kernels / name
        folder.mkdir(parents=True)
        (folder / "vmlinuz").write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        (folder / "SHA256SUMS").write_text(f"{digest}  vmlinuz\n", encoding="ascii")

    @property
    def state(self):
        return json.loads(self.state_file.read_text(encoding="utf-8"))

    def change(self, how):
        state = self.state if self.state_file.exists() else {}
        how(state)
        self.state_file.write_text(json.dumps(state), encoding="utf-8")

    def netvms(self):
        """What each qube has for a netvm; `*` follows the default."""
        return {name: vm["netvm"] for name, vm in self.state["vms"].items() if "netvm" in vm}

    def defect(self, *names):
        self.change(lambda state: state.update(defects=list(names)))

    def log(self, text):
        """Lets the console of the firewall have said this, as xenconsoled writes it down."""
        folder = self.folder / "console"
        folder.mkdir(exist_ok=True)
        lines = "".join(f"[2026-11-22 19:20:00] {line}\r\n" for line in text.splitlines())
        (folder / "guest-sys-tidegate.log").write_text(lines, encoding="utf-8", newline="")

    def tidegate(self, command, *args):
        """Runs `tidegate-COMMAND`: exit code, and all it said."""
        argv = [str(DIST / "qubes" / "bin" / f"tidegate-{command}"), *args]
        code = RUN.format(library=str(LIBRARY), kernels=str(self.kernels),
                          console=str(self.folder / "console"), argv=argv)
        done = subprocess.run([sys.executable, "-c", code], env=self.environment, cwd=self.folder,
                              capture_output=True, text=True, timeout=120, check=False)
        return done.returncode, done.stdout + done.stderr

    def does(self, command, *args):
        code, said = self.tidegate(command, *args)
        self.assertEqual(code, 0, said)
        return said

    def after(self, *commands):
        """The dom0 that these commands lead to. They are run once for all tests that begin with them."""
        if commands not in AFTER:
            for command in commands:
                self.does(*command.split())
            AFTER[commands] = self.state
        self.change(lambda state: state.update(AFTER[commands]))

    def refuses(self, command, *args):
        code, said = self.tidegate(command, *args)
        self.assertNotEqual(code, 0, said)
        self.assertNotIn("Traceback", said)
        return said
