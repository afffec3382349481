"""Why is this blocked: a question in a user's words, an answer in the firewall's."""

import unittest

from dom0 import Dom0Test, said

ACCEPTED, REFUSED, DEFAULT, BLOCKED, _ = said("explain").splitlines(True)


class Why(Dom0Test):
    def setUp(self):
        super().setUp()
        self.after("setup", "move work")
        address = f"10.137.0.{10 + sorted(self.state['vms']).index('work')}"
        self.change(lambda state: state.update(services={"tidegate.Explain": {
            f"{address} 93.184.216.34 udp 7\n": ACCEPTED,
            f"{address} 93.184.216.34 udp 25\n": REFUSED,
            f"{address} 93.184.216.34 tcp 443\n": DEFAULT,
            f"{address} 93.184.216.34 icmp\n": BLOCKED,
        }}))

    def answer(self, *question):
        return self.tidegate("why", *question)

    def test_what_may_be_is_named_with_its_rule(self):
        self.assertEqual(self.answer("work", "93.184.216.34", "udp", "7"), (0, ACCEPTED))

    def test_what_is_refused_is_named_with_its_rule_and_the_rules_are_next(self):
        for port, answer in (("25", REFUSED), ("443", DEFAULT)):
            code, told = self.answer("work", "93.184.216.34", "udp" if port == "25" else "tcp", port)
            self.assertEqual((code, told), (1, f"{answer}next: qvm-firewall work list\n"))

    def test_a_qube_without_valid_rules_is_one_for_the_doctor(self):
        self.assertEqual(self.answer("work", "93.184.216.34", "icmp"), (1, f"{BLOCKED}next: tidegate-doctor\n"))

    def test_what_is_no_question_is_said(self):
        for question, why in (
            (("work", "www.example.org", "tcp", "443"), "invalid ip_address value"),
            (("work", "93.184.216.34", "tcp"), "to which port"),
            (("work", "2606:2800::1", "tcp", "443"), "has no IPv6 address"),
            (("personal", "93.184.216.34", "tcp", "443"), "personal is not behind sys-tidegate"),
            (("wrok", "93.184.216.34", "tcp", "443"), "no such domain"),
        ):
            with self.subTest(question):
                code, told = self.answer(*question)
                self.assertEqual(code, 2, told)
                self.assertIn(why, told)

    def test_a_firewall_that_does_not_answer_is_said(self):
        self.change(lambda state: state.update(services={}))
        code, told = self.answer("work", "93.184.216.34", "tcp", "443")
        self.assertEqual(code, 2)
        self.assertIn("tidegate-why: ", told)


if __name__ == "__main__":
    unittest.main()
