"""Last of all: after everything that the other tests did, the books are right and nothing is left open."""

import unittest

from gateway import Bed, eventually


class Ledger(unittest.TestCase):
    def test_1_the_ledger_verifies_and_no_hold_is_open(self):
        def settled():
            report = Bed.gateway.verify_ledger()
            self.assertTrue(report["ok"], report)
            return report["verified"]["open_holds"] == 0

        eventually("no hold is open", settled)
        self.assertGreater(Bed.gateway.verify_ledger()["verified"]["charges"], 20)
        self.assertEqual(Bed.mock.stats()["in_flight"], 0)

    def test_2_the_gateway_stops_in_order(self):
        self.assertTrue(Bed.gateway.is_alive())
        self.assertEqual(Bed.gateway.stop(), 0)
