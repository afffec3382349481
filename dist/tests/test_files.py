"""What is installed beside the commands: the qrexec policy, the Salt formula, the service."""

import os
import re
import unittest

from dom0 import DIST
from tidegate_dom0 import setup

QUBES = DIST / "qubes"


def read(path):
    return path.read_text(encoding="utf-8")


class Files(unittest.TestCase):
    maxDiff = None

    def test_no_qube_may_ask_for_a_service_of_ours(self):
        """The names are those that the firewall answers to."""
        answered = set(re.findall(r'"(tidegate\.[A-Z]\w+)"', read(DIST.parent / "src/appliance/qubes/services.rs")))
        self.assertGreaterEqual(len(answered), 5)
        rules = [line.split() for line in read(QUBES / "policy/30-tidegate.policy").splitlines()
                 if line.strip() and not line.startswith("#")]
        self.assertEqual({rule[0] for rule in rules}, answered)
        self.assertEqual({tuple(rule[1:]) for rule in rules}, {("*", "@anyvm", "@anyvm", "deny")})

    def test_the_formula_makes_what_setup_makes(self):
        formula = read(QUBES / "salt/tidegate.sls")
        prefs, features = formula.partition("- prefs:")[2].split("- features:")
        found = {key.replace("-", "_"): value.strip("'") for key, value in re.findall(r"- ([\w-]+): (\S.*)", prefs)}
        self.assertEqual(found.pop("kernel"), "{{ kernel }}")
        wanted = setup.properties("", "sys-net")
        del wanted["kernel"]
        self.assertEqual({key: value.replace("true", "True") for key, value in found.items()}, wanted)
        on, off = (re.findall(r"^ +- ([\w-]+)$", part, re.M) for part in features.split("- disable:"))
        self.assertEqual({**dict.fromkeys(on, "1"), **dict.fromkeys(off, "")}, setup.FEATURES)

    def test_the_formula_takes_the_newest_kernel_and_enables_itself_for_dom0_alone(self):
        self.assertIn("ls -d tidegate-* | sort -V | tail -n 1", read(QUBES / "salt/tidegate.sls"))
        self.assertEqual(read(QUBES / "salt/tidegate.top").split(), ["base:", "dom0:", "-", "tidegate"])

    def test_the_service_runs_a_command_of_ours_and_is_not_restarted_by_systemd(self):
        unit = read(QUBES / "systemd/tidegate-keeper.service")
        command = re.search(r"^ExecStart=/usr/bin/(\S+)$", unit, re.M).group(1)
        self.assertTrue((QUBES / "bin" / command).exists())
        self.assertNotIn("Restart=", unit, "the limit is the keeper's own")

    def test_every_command_can_be_run_and_has_a_line_in_the_readme(self):
        readme = read(DIST / "README.md")
        for command in (QUBES / "bin").iterdir():
            with self.subTest(command.name):
                self.assertTrue(os.access(command, os.X_OK))
                self.assertTrue(read(command).startswith("#!/usr/bin/python3 -I\n"))
                self.assertRegex(readme, rf"\| `{command.name}[ `]")


if __name__ == "__main__":
    unittest.main()
