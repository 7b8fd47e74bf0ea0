"""Both accountants keep one contract; golden values; Opacus, asked beside ours, is near."""

from __future__ import annotations

from decimal import Decimal
from typing import ClassVar

import pytest
from opacus.accountants import PRVAccountant
from opacus.accountants import RDPAccountant as PeerRdp

from fl_alliance.errors import BadPlan
from fl_alliance.privacy.accountant import Accountant, PldAccountant, RdpAccountant
from fl_alliance.privacy.events import GaussianEvent, event_of, from_wire, merged, to_wire
from tests.evidence.alliance import plan_of

DELTA = Decimal("0.00001")

# sigma, q, steps, delta: RDP, PLD
GOLDEN = [
    ("1", "0.01", 1000, "0.00001", "2.101", "1.828"),
    ("0.8", "0.02", 500, "0.00001", "5.372", "4.668"),
    ("2", "0.1", 500, "0.00001", "6.035", "5.556"),
    ("4", "0.5", 200, "0.00001", "9.673", "8.819"),
    ("5", "1", 100, "0.00001", "10.726", "9.997"),
    ("10", "0.1", 100, "0.00001", "0.383", "0.347"),
    ("1", "0.1", 50, "0.0001", "4.987", "4.265"),
]


def gauss(sigma: str, q: str, steps: int) -> GaussianEvent:
    return GaussianEvent(noise_multiplier=Decimal(sigma), sampling_rate=Decimal(q), steps=steps)


class AccountantContract:
    accountant: ClassVar[Accountant]
    column: ClassVar[int]

    @pytest.mark.parametrize("row", GOLDEN, ids=lambda row: "-".join(map(str, row[:3])))
    def test_golden_value(self, row: tuple[str, str, int, str, str, str]) -> None:
        sigma, q, steps, delta, *columns = row
        seen = self.accountant.epsilon([gauss(sigma, q, steps)], Decimal(delta))
        assert abs(seen - Decimal(columns[self.column])) < Decimal("0.001")

    def test_nothing_costs_nothing(self) -> None:
        assert self.accountant.epsilon([], DELTA) == 0

    def test_a_trivial_budget_is_not_negative(self) -> None:
        assert self.accountant.epsilon([gauss("50", "0.001", 1)], Decimal("0.01")) == 0

    def test_rounded_to_six_places(self) -> None:
        seen = self.accountant.epsilon([gauss("5", "0.1", 7)], DELTA)
        assert seen > 0
        assert seen.as_tuple().exponent == -6

    def test_splitting_and_order_change_nothing(self) -> None:
        a, b = gauss("5", "0.1", 3), gauss("6", "0.2", 2)
        assert self.accountant.epsilon([a, b, a], DELTA) == self.accountant.epsilon([b, a.times(2)], DELTA)

    def test_more_steps_cost_more_and_more_noise_costs_less(self) -> None:
        def epsilon(sigma: str, steps: int) -> Decimal:
            return self.accountant.epsilon([gauss(sigma, "0.1", steps)], DELTA)

        assert epsilon("6", 10) < epsilon("5", 10) < epsilon("5", 20)

    @pytest.mark.parametrize("delta", ["0", "1", "2"])
    def test_delta_outside_its_range_is_refused(self, delta: str) -> None:
        with pytest.raises(BadPlan, match=f"delta {delta}"):
            self.accountant.epsilon([gauss("5", "0.1", 1)], Decimal(delta))

    def test_a_hostile_plan_is_answered_at_once(self) -> None:
        assert self.accountant.epsilon([gauss("0.05", "0.1", 10**6)], DELTA) > 10**6
        with pytest.raises(BadPlan, match="no finite epsilon"):
            self.accountant.epsilon([gauss("0.000000000000000001", "0.1", 10)], DELTA)


class TestPldAccountant(AccountantContract):
    accountant = PldAccountant()
    column = 1


class TestRdpAccountant(AccountantContract):
    accountant = RdpAccountant()
    column = 0


@pytest.mark.parametrize(("sigma", "q", "steps"), [(1.0, 0.01, 1000), (5.0, 1.0, 100), (10.0, 0.1, 100)])
def test_opacus_is_near(sigma: float, q: float, steps: int) -> None:
    rdp, prv = PeerRdp(), PRVAccountant()
    rdp.history = prv.history = [(sigma, q, steps)]
    event = gauss(str(sigma), str(q), steps)
    ours_rdp, ours_pld = (float(a.epsilon([event], DELTA)) for a in (RdpAccountant(), PldAccountant()))
    assert ours_rdp == pytest.approx(rdp.get_epsilon(1e-5), rel=0.02)
    assert ours_pld == pytest.approx(prv.get_epsilon(1e-5), abs=0.02)
    assert ours_pld < ours_rdp


def test_the_event_of_a_plan_is_one_round_and_survives_the_wire() -> None:
    event = event_of(plan_of())
    assert event == gauss("1.5", "0.1", 4)
    assert from_wire(to_wire(event)) == event
    assert merged([event, event]) == (event.times(2),)


@pytest.mark.parametrize(("sigma", "q", "steps"), [("0", "0.1", 1), ("1", "0", 1), ("1", "1.1", 1), ("1", "0.1", 0)])
def test_an_event_out_of_range_can_not_be_made(sigma: str, q: str, steps: int) -> None:
    with pytest.raises(ValueError, match="needs sigma > 0"):
        gauss(sigma, q, steps)
