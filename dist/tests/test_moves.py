"""Moving qubes behind Tidegate and back, as a user does it."""

import unittest

from dom0 import Dom0Test, vm


class Setup(Dom0Test):
    def test_the_firewall_is_made_beside_the_old_one_and_nothing_else_changes(self):
        before = self.state
        self.does("setup")
        after = self.state
        made = after["vms"].pop("sys-tidegate")
        self.assertEqual(after["vms"], before["vms"])
        self.assertEqual(after["prefs"], before["prefs"])
        self.assertEqual(made["kernel"], "tidegate-0.1.0")
        self.assertEqual((made["memory"], made["maxmem"]), ("32", "32"))
        self.assertEqual(made["netvm"], "sys-net")
        self.assertTrue(made["provides_network"])
        self.assertEqual(made["features"]["qubes-firewall"], "1")
        self.assertTrue(made["autostart"], "as sys-firewall")

    def test_run_again_after_an_update_it_takes_the_newer_kernel(self):
        self.does("setup")
        self.install_kernel("tidegate-0.10.0")
        self.install_kernel("tidegate-0.9.2")
        self.does("setup")
        self.assertEqual(self.state["vms"]["sys-tidegate"]["kernel"], "tidegate-0.10.0")

    def test_a_kernel_that_is_not_the_packages_is_refused_before_anything_is_made(self):
        (self.kernels / "tidegate-0.1.0" / "vmlinuz").write_bytes(b"another kernel")
        self.assertIn("not that of the package", self.refuses("setup"))
        self.assertNotIn("sys-tidegate", self.state["vms"])

    def test_a_qube_of_that_name_that_is_something_else_is_left_alone(self):
        before = self.state["vms"]["work"]
        self.assertIn("another qube already", self.refuses("setup", "--name", "work"))
        self.assertEqual(self.state["vms"]["work"], before)

    def test_without_a_package_it_says_so(self):
        (self.kernels / "tidegate-0.1.0").rename(self.kernels / "6.12.1-1.fc37")
        self.assertIn("is the package installed", self.refuses("setup"))


class WithFirewall(Dom0Test):
    def setUp(self):
        super().setUp()
        self.after("setup")


class Move(WithFirewall):
    def test_a_running_qube_is_moved_and_the_firewall_started_for_it(self):
        said = self.does("move", "work")
        self.assertIn("it was behind sys-firewall", said)
        self.assertEqual(self.netvms()["work"], "sys-tidegate")
        self.assertTrue(self.state["vms"]["sys-tidegate"]["running"])
        self.assertEqual(self.netvms()["personal"], "sys-firewall")

    def test_a_dry_run_changes_nothing(self):
        before = self.state["vms"]
        self.does("move", "--dry-run", "work")
        self.assertEqual(self.state["vms"], before)

    def refused(self, why, *args):
        before = self.netvms()
        self.assertIn(why, self.refuses("move", *args))
        self.assertEqual(self.netvms(), before)

    def test_a_qube_without_network_stays_without(self):
        self.refused("has no network today", "sys-usb")

    def test_what_gives_the_firewall_its_network_is_refused(self):
        self.refused("circle", "sys-net")

    def test_the_firewall_itself_and_dom0_are_refused(self):
        self.refused("the firewall itself", "sys-tidegate")
        self.refused("dom0 has no network", "dom0")

    def test_a_qube_behind_tor_or_a_vpn_is_not_taken_past_it(self):
        self.change(lambda state: state["vms"].update({
            "sys-whonix": vm("sys-firewall", provides_network=True), "anon": vm("sys-whonix")}))
        self.refused("past what is between", "anon")

    def test_the_updatevm_the_clockvm_and_the_default_need_a_word_of_their_own(self):
        for duty in ("updatevm", "clockvm", "default_netvm"):
            with self.subTest(duty):
                self.change(lambda state, duty=duty: state["prefs"].update(
                    {"updatevm": "", "clockvm": "", "default_netvm": "sys-firewall", duty: "personal"}))
                self.refused(f"is the {duty}", "personal")
        self.does("move", "--even-if-needed", "personal")

    def test_a_qube_that_starts_with_the_system_needs_a_firewall_that_does(self):
        self.change(lambda state: state["vms"]["work"].update(autostart=True))
        self.change(lambda state: state["vms"]["sys-tidegate"].update(autostart=False))
        self.refused("autostart True", "work")

    def test_a_name_that_is_no_qube_is_said(self):
        self.refused("no qube wrok", "wrok")

    def test_a_changed_kernel_gets_no_qube(self):
        (self.kernels / "tidegate-0.1.0" / "vmlinuz").write_bytes(b"another kernel")
        self.refused("not that of the package", "work")

    def test_a_firewall_that_does_not_start_leaves_the_qube_where_it_is(self):
        self.defect("no-start:sys-tidegate")
        self.refused("Start failed", "work")

    def test_a_move_that_fails_half_way_leaves_no_note(self):
        self.change(lambda state: state["vms"]["sys-tidegate"].update(provides_network=False))
        self.refused("does not provide network", "personal")
        self.assertEqual(self.state["vms"]["personal"]["features"], {})


class Rollback(WithFirewall):
    def test_each_qube_goes_back_to_what_it_had_and_the_firewall_is_off(self):
        before = self.netvms()
        self.does("move", "work")
        self.does("move", "personal")
        self.does("rollback")
        after = self.netvms()
        self.assertEqual("*", after.pop("work", "*"), "follows the default again")
        self.assertEqual(after, {name: netvm for name, netvm in before.items() if name != "work"})
        self.assertFalse(self.state["vms"]["sys-tidegate"]["running"])
        self.assertFalse(self.state["vms"]["sys-tidegate"]["autostart"], "or it would come up with the system")
        self.assertEqual(self.state["vms"]["work"]["features"], {})

    def test_one_qube_goes_back_and_the_firewall_goes_on(self):
        self.does("move", "work")
        self.does("move", "personal")
        self.does("rollback", "work")
        self.assertEqual(self.netvms()["personal"], "sys-tidegate")
        self.assertTrue(self.state["vms"]["sys-tidegate"]["running"])

    def test_a_qube_put_there_by_hand_goes_to_the_old_firewall(self):
        self.does("move", "work")
        self.change(lambda state: state["vms"].update({"vault": vm("sys-tidegate", running=False)}))
        self.does("rollback")
        self.assertEqual(self.netvms()["vault"], "sys-firewall")

    def test_duties_given_to_it_by_hand_go_back_first(self):
        self.does("move", "work")
        self.change(lambda state: state["prefs"].update(default_netvm="sys-tidegate", updatevm="sys-tidegate"))
        self.does("rollback")
        self.assertEqual(self.state["prefs"],
                         {"default_netvm": "sys-firewall", "updatevm": "sys-firewall", "clockvm": "sys-net"})

    def test_the_old_firewall_is_started_when_it_is_off(self):
        self.does("move", "work")
        self.does("move", "personal")
        self.does("rollback", "personal")
        self.change(lambda state: state["vms"]["sys-firewall"].update(running=False))
        self.does("rollback")
        self.assertTrue(self.state["vms"]["sys-firewall"]["running"])

    def test_what_fails_is_named_and_does_not_keep_the_rest(self):
        self.does("move", "personal")
        self.does("move", "work")
        self.defect("no-attach:personal")
        said = self.refuses("rollback")
        self.assertIn("still behind sys-tidegate: personal", said)
        self.assertIn("--kill", said)
        self.assertNotEqual(self.netvms().get("work"), "sys-tidegate")
        self.assertTrue(self.state["vms"]["sys-tidegate"]["running"], "personal still needs it")

    def test_a_firewall_that_hangs_is_ended_first_and_its_keeper_before_it(self):
        self.does("move", "work")
        self.change(lambda state: state.update(keeper=True, calls=[]))
        self.does("rollback", "--kill")
        calls = [call[0] for call in self.state["calls"]]
        self.assertLess(calls.index("sudo"), calls.index("qvm_kill"))
        self.assertNotEqual(self.netvms().get("work"), "sys-tidegate")

    def test_nothing_to_do_is_no_error(self):
        self.does("rollback")


if __name__ == "__main__":
    unittest.main()
