"""What tidegate-doctor finds, and what it says to type next."""

import json
import unittest

from dom0 import Dom0Test

STATUS = """policy qubes.tide 5323f9a4
uplink up
flows 12 of 85890
client 10.137.0.16 rules 3 rules
"""


class Doctor(Dom0Test):
    def setUp(self):
        super().setUp()
        self.does("setup")
        self.does("move", "work")
        self.answers({"tidegate.Status": STATUS.replace("10.137.0.16", self.address("work")),
                      "tidegate.Log": "uplink up\ndrop clients -> uplink: tcp 10.137.0.16 -> 1.1.1.1:25, qubes.tide:7\n"})

    def answers(self, services):
        self.change(lambda state: state.update(services=services))

    def address(self, name):
        return f"10.137.0.{10 + sorted(self.state['vms']).index(name)}"

    def status(self, old, new):
        said = self.state["services"]
        self.assertIn(old, said["tidegate.Status"])
        self.answers({**said, "tidegate.Status": said["tidegate.Status"].replace(old, new)})

    def bad(self, what, next_command):
        code, said = self.tidegate("doctor")
        self.assertEqual(code, 1, said)
        self.assertIn(what, said)
        self.assertIn(f"next: {next_command}", said)

    def test_a_healthy_one_has_nothing_to_do_and_shows_the_last_drop_with_its_rule(self):
        said = self.does("doctor")
        self.assertIn("nothing to do", said)
        self.assertIn(f"client {self.address('work')} (work): rules 3 rules", said)
        self.assertIn("qubes.tide:7", said)
        self.assertIn("SHA-256 ", said)

    def test_for_a_program_there_is_json(self):
        found = json.loads(self.does("doctor", "--json"))
        self.assertEqual({finding["level"] for finding in found} - {"ok", "note"}, set())

    def test_a_blocked_client_is_named_with_the_reason(self):
        self.status("rules 3 rules", "rules blocked: rule 0002: unknown key dsthots")
        self.bad("(work): rules blocked: rule 0002: unknown key dsthots", "qvm-firewall work list")

    def test_a_running_qube_that_is_not_connected_is_found(self):
        self.status(f"client {self.address('work')} rules 3 rules\n", "")
        self.bad("work", "tidegate-rollback work, then tidegate-move work")

    def test_a_dead_uplink_points_at_the_netvm(self):
        self.status("uplink up", "uplink down")
        self.bad("uplink down", "qvm-start sys-net")

    def test_a_firewall_that_does_not_run_is_to_be_started(self):
        self.change(lambda state: state["vms"]["sys-tidegate"].update(running=False))
        self.bad("does not run", "qvm-start sys-tidegate")

    def test_a_firewall_that_does_not_answer_points_at_the_way_back(self):
        self.answers({})
        self.bad("does not answer", "the old firewall again: tidegate-rollback")

    def test_a_changed_kernel_is_bad(self):
        (self.kernels / "tidegate-0.1.0" / "vmlinuz").write_bytes(b"another kernel")
        self.bad("not that of the package", "tidegate-rollback")

    def test_a_newer_kernel_is_told_of(self):
        self.install_kernel("tidegate-0.2.0")
        self.assertIn("tidegate-0.2.0 is installed, tidegate-0.1.0 is used", self.does("doctor"))

    def test_a_duty_it_cannot_do_is_bad(self):
        self.change(lambda state: state["prefs"].update(updatevm="sys-tidegate"))
        self.bad("it is the updatevm", "qubes-prefs updatevm")

    def test_what_a_qube_sends_cannot_move_the_cursor(self):
        self.status("3 rules", "3 rules \x1b[2J")
        self.assertNotIn("\x1b", self.does("doctor"))

    def test_without_a_firewall_it_says_how_to_get_one(self):
        self.does("rollback")
        self.change(lambda state: state["vms"].pop("sys-tidegate"))
        self.bad("there is no qube", "tidegate-setup")


if __name__ == "__main__":
    unittest.main()
