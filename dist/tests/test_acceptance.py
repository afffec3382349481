"""The acceptance run: content with a good firewall, and red for each fault that a user would notice."""

import json
import unittest

from dom0 import Dom0Test


class Acceptance(Dom0Test):
    def setUp(self):
        super().setUp()
        self.after("setup")

    def results(self):
        report = json.loads((self.folder / "tidegate-report.json").read_text(encoding="utf-8"))
        return {check["name"]: check["result"] for check in report["checks"]}

    def test_a_good_firewall_passes_and_the_temporary_qubes_are_gone(self):
        self.does("acceptance", "--disturb")
        results = self.results()
        self.assertEqual(len(results), 20)
        self.assertEqual({name for name, result in results.items() if result != "passed"},
                         {"ipv6_works_where_it_is_on"})
        self.assertNotIn("tidegate-check-one", self.state["vms"])
        self.assertNotIn("tidegate-check-other", self.state["vms"])

    def test_the_network_vm_is_left_alone_unless_asked(self):
        self.change(lambda state: state.update(calls=[]))
        self.does("acceptance", "--only", "netvm_killed")
        self.assertNotIn(["qvm_kill", "sys-net"], self.state["calls"])
        self.assertEqual(self.results()["netvm_killed"], "left out")

    def test_a_check_that_is_not_there_is_said(self):
        self.assertIn("invalid choice", self.refuses("acceptance", "--only", "tea"))

    def test_the_report_names_no_other_qube_and_no_address(self):
        self.does("acceptance")
        text = (self.folder / "tidegate-report.json").read_text(encoding="utf-8")
        for secret in ("personal", "sys-usb", "10.137."):
            self.assertNotIn(secret, text)

    def test_each_fault_turns_its_check_red(self):
        faults = {
            "no-dns": "names_resolve",
            "small-mtu": "large_packets_pass",
            "open-between": "qubes_do_not_reach_each_other",
            "dropped-silently": "dropped_is_refused_at_once",
            "sticky-flows": "connection_ends_with_its_rule",
            "names-too-wide": "rule_by_name",
            "no-resume": "pause_harms_nothing",
            "no-heal": "netvm_killed",
        }
        for fault, check in faults.items():
            with self.subTest(fault):
                self.defect(fault)
                self.refuses("acceptance", "--disturb", "--only", check)
                self.assertEqual(self.results(), {check: "failed"})
                self.defect()
                self.change(lambda state: [vm.update(broken=False, paused=False) for vm in state["vms"].values()])
                self.assertNotIn("tidegate-check-one", self.state["vms"])

    def test_a_changed_property_and_a_changed_kernel_are_found(self):
        self.change(lambda state: state["vms"]["sys-tidegate"].update(maxmem="400"))
        (self.kernels / "tidegate-0.1.0" / "vmlinuz").write_bytes(b"another kernel")
        checks = ("made_as_setup_makes_it", "kernel_is_the_installed_one")
        self.refuses("acceptance", *(word for check in checks for word in ("--only", check)))
        self.assertEqual(self.results(), dict.fromkeys(checks, "failed"))


if __name__ == "__main__":
    unittest.main()
