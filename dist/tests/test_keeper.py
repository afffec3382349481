"""When the keeper starts a dead firewall, over every combination."""

import itertools
import unittest

import dom0
from tidegate_dom0.keeper import LIMIT, WINDOW, Act, decide

END = dom0.said("console")
DEATH = END.replace("ending: Poweroff", "panic: out of memory")


class Table(unittest.TestCase):
    def test_every_combination(self):
        few, many, old = [900.0], [900.0] * LIMIT, [1000.0 - WINDOW] * LIMIT
        for seen, running, words, starts in itertools.product((True, False), (True, False), (DEATH, END, ""),
                                                              ([], few, many, old)):
            with self.subTest(seen=seen, running=running, words=words, starts=starts):
                self.assertIs(decide(seen, running, words, starts, 1000.0), self.wanted(seen, running, words, starts))

    @staticmethod
    def wanted(seen, running, words, starts):
        match (seen, running, words == END, len(starts) == LIMIT and starts[0] == 900.0):
            case (False, True, _, _):
                return Act.REMEMBER
            case (True, True, _, _) | (False, False, _, _):
                return Act.WAIT
            case (True, False, True, _):
                return Act.REST
            case (True, False, False, True):
                return Act.GIVE_UP
            case _:
                return Act.START

    def test_an_end_is_known_with_the_time_that_xenconsoled_writes_before_it(self):
        for end in ("ending: Poweroff", "ending: Reboot"):
            self.assertIs(decide(True, False, f"[2026-11-22 19:20:00] {end}\r\n", [], 0.0), Act.REST)

    def test_an_end_long_ago_does_not_excuse_a_death(self):
        self.assertIs(decide(True, False, END + DEATH, [], 0.0), Act.START)


class Service(dom0.Dom0Test):
    def test_a_firewall_that_keeps_dying_is_started_three_times_and_each_log_kept(self):
        self.after("setup")
        kept = self.folder / "kept"
        self.log(DEATH)
        self.change(lambda state: (state["vms"]["sys-tidegate"].update(running=True),
                                   state.update(defects=["dies"])))
        code, said = self.tidegate("keeper", "--keep-in", str(kept))
        self.assertEqual(code, 1, said)
        self.assertIn("died 4 times", said)
        self.assertEqual([call for call in self.state["calls"] if call[0] == "qvm_start"][-3:],
                         [["qvm_start", "sys-tidegate"]] * 3)
        logs = [log.read_text(encoding="utf-8") for log in kept.glob("death-*.log")]
        self.assertEqual(len(logs), 4)
        self.assertTrue(all("panic: out of memory" in log for log in logs))


if __name__ == "__main__":
    unittest.main()
