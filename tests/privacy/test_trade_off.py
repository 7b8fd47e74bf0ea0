"""The trade-off of both errors: right where it is known, and never promising more than the accountant does."""

from __future__ import annotations

import math
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from fl_alliance.privacy.accountant import PldAccountant, RdpAccountant, deltas_of
from fl_alliance.privacy.events import GaussianEvent
from fl_alliance.privacy.trade_off import TradeOff, gaussian_beta, gaussian_delta, trade_off_of

DELTA = Decimal("0.00001")
ALPHAS = (0.001, 0.01, 0.05, 0.2, 0.5, 0.8, 0.99)


def event(sigma: str, rate: str = "1", steps: int = 1) -> GaussianEvent:
    return GaussianEvent(noise_multiplier=Decimal(sigma), sampling_rate=Decimal(rate), steps=steps)


def of(*events: GaussianEvent) -> TradeOff:
    found = trade_off_of(events, DELTA)
    assert found is not None
    return found


@pytest.mark.parametrize(("sigma", "steps"), [("1", 1), ("2", 1), ("4", 16), ("3", 4)])
def test_without_sampling_mu_is_the_root_of_the_steps_over_sigma(sigma: str, steps: int) -> None:
    """Dong, Roth and Su 2022, corollary 3.3: exact, so the accountant may only be a little above."""
    exact = math.sqrt(steps) / float(sigma)
    curve = of(event(sigma, steps=steps))
    assert exact - 0.001 <= float(curve.mu) <= 1.02 * exact + 0.002
    for alpha in ALPHAS:
        assert float(curve.beta(alpha)) <= gaussian_beta(exact, alpha) + 1e-9
        assert float(curve.beta(alpha)) == pytest.approx(gaussian_beta(exact, alpha), abs=0.006)


@pytest.mark.parametrize(
    "events", [(event("1.5", "0.1", 8),), (event("0.8", "0.02", 200), event("3")), (event("5", "0.5", 50),)]
)
def test_no_claim_is_stronger_than_what_the_accountant_says_anywhere(events: tuple[GaussianEvent, ...]) -> None:
    """Between the points of the profile too: mu covers delta(epsilon) up to delta, and so does the curve."""
    curve = of(*events)
    between = [float(PldAccountant().epsilon(events, DELTA)) * place / 97 for place in range(98)]
    told = deltas_of(events, between, DELTA)
    assert told is not None
    for epsilon, delta in zip(between, told, strict=True):
        assert delta <= gaussian_delta(float(curve.mu), epsilon) + float(DELTA) + 1e-12
    tighter = float(curve.mu) - 0.02
    assert any(
        delta > gaussian_delta(tighter, epsilon) + float(DELTA) for epsilon, delta in zip(between, told, strict=True)
    )
    for alpha in ALPHAS:
        assert float(curve.beta(alpha)) >= gaussian_beta(float(curve.mu), alpha) - float(DELTA) - 1e-4


def test_the_curve_follows_from_every_point_of_the_profile_and_not_from_one() -> None:
    curve = of(event("1.5", "0.1", 8))
    epsilon = curve.epsilons[-1]
    assert curve.deltas[-1] == pytest.approx(float(DELTA), rel=1e-3)
    one = TradeOff((epsilon,), (curve.deltas[-1],), DELTA)
    assert all(curve.beta(alpha) >= one.beta(alpha) for alpha in ALPHAS)
    assert curve.beta(0.2) > one.beta(0.2) + Decimal("0.2")
    assert curve.beta(0) == 1 - Decimal(str(round(curve.deltas[-1], 4))).quantize(Decimal("0.0001")) - Decimal("0.0001")
    assert curve.beta(1) == 0


@given(mu=st.floats(0.01, 6), alpha=st.floats(0.001, 0.999))
@settings(max_examples=50)
def test_gaussian_formulas_agree_with_their_definitions(mu: float, alpha: float) -> None:
    assert gaussian_beta(mu, alpha) == pytest.approx(stats.norm.cdf(stats.norm.isf(alpha) - mu), abs=1e-9)
    slope = optimize.approx_fprime([0.3], lambda x: gaussian_delta(mu, float(x[0])), 1e-6)[0]
    assert -1 <= slope <= 0  # delta falls as epsilon grows


def test_nothing_released_tells_nothing_and_too_much_has_no_curve() -> None:
    nothing = of()
    assert (nothing.mu, nothing.beta(0.25)) == (Decimal(0), Decimal("0.75"))
    assert trade_off_of([event("0.05", steps=20)], DELTA) is None
    assert deltas_of([event("0.05", steps=20)], [1.0], DELTA) is None


def test_renyi_divergences_of_a_step_add_up_to_the_librarys_own_composition() -> None:
    import dp_accounting

    mixed = (event("1.5", "0.1", 8), event("3", "1", 2), event("1.1", "0.01", 100))
    library = dp_accounting.rdp.RdpAccountant()
    for one in mixed:
        gaussian = dp_accounting.GaussianDpEvent(float(one.noise_multiplier))
        library.compose(dp_accounting.PoissonSampledDpEvent(float(one.sampling_rate), gaussian), one.steps)
    assert float(RdpAccountant().epsilon(mixed, DELTA)) == pytest.approx(library.get_epsilon(float(DELTA)), abs=1e-6)
