"""What tidegate-doctor finds in what the firewall says, and what it says to type next."""

import json
import unittest

from dom0 import Dom0Test, said
from tidegate_dom0 import health

HEALTHY = "".join(line for line in said("status").splitlines(True) if "blocked" not in line)
BLOCKED = next(line for line in said("status").splitlines() if "blocked: rule" in line).partition(" rules ")[2]
BOOT = "Tidegate 0.1.0 booting: PVH, 32 MiB, entropy: {}\n"


class Doctor(Dom0Test):
    def setUp(self):
        super().setUp()
        self.after("setup", "move work")
        self.log(BOOT.format("RDRAND") + said("console"))
        self.answers({"tidegate.Status": HEALTHY.replace("10.137.0.10", self.address("work")),
                      "tidegate.Log": said("log")})

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
        told = self.does("doctor")
        self.assertIn("nothing to do", told)
        self.assertIn(f"client {self.address('work')} (work): 2 rules", told)
        self.assertIn("note  reject clients -> uplink: udp 10.137.0.10:4000 -> 93.184.216.34:25, "
                      "qubes:1, rule 1 of the VM\n", told)
        self.assertIn("SHA-256 ", told)
        self.assertIn("entropy: RDRAND", told)

    def test_drops_are_taken_from_the_console_if_nobody_answers_for_them(self):
        self.answers({"tidegate.Status": self.state["services"]["tidegate.Status"]})
        self.assertIn("note  reject clients -> uplink: udp 10.137.0.10:4000", self.does("doctor"))

    def test_weak_entropy_is_told_of(self):
        self.log(BOOT.format("clock jitter") + said("console"))
        self.assertIn("note  Tidegate 0.1.0 booting: PVH, 32 MiB, entropy: clock jitter", self.does("doctor"))

    def test_every_line_of_a_status_is_read(self):
        status = health.read_status(said("status"))
        self.assertEqual((status.uplink, status.other), ("up", []))
        self.assertRegex(status.policy, "^qubes [0-9a-f]{64}$")
        self.assertRegex(status.flows, "^[0-9]+ of [0-9]+$")
        self.assertEqual([*status.clients], ["10.137.0.10", "10.137.0.11", "10.137.0.12"])
        self.assertEqual([*status.absent], ["10.137.0.77", "10.137.0.78"])
        self.assertEqual(status.clients["10.137.0.12"], "blocked: dom0 has committed none")

    def test_a_line_of_a_newer_kernel_is_shown(self):
        self.status("uplink up\n", "uplink up\nmoon full\n")
        self.assertIn("ok    moon full", self.does("doctor"))

    def test_for_a_program_there_is_json(self):
        found = json.loads(self.does("doctor", "--json"))
        self.assertEqual({finding["level"] for finding in found} - {"ok", "note"}, set())

    def test_a_blocked_client_is_named_with_the_reason(self):
        self.status("rules 2\n", f"rules {BLOCKED}\n")
        self.bad(f"(work): {BLOCKED}", "qvm-firewall work list")

    def test_a_running_qube_that_is_not_connected_is_found(self):
        self.status(f"client {self.address('work')} rules 2\n", "")
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
        self.status("rules 2", "rules 2 \x1b[2J")
        self.assertNotIn("\x1b", self.does("doctor"))

    def test_without_a_firewall_it_says_how_to_get_one(self):
        self.does("rollback")
        self.change(lambda state: state["vms"].pop("sys-tidegate"))
        self.bad("there is no qube", "tidegate-setup")


if __name__ == "__main__":
    unittest.main()
