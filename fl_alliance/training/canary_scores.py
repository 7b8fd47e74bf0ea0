"""How likely each canary was in, judged from the noised gradients that a run released.

A released step is y = sum over canaries of s_c v_c + noise, where v_c is a canary's clipped gradient, which an attacker
can compute, and s_c says whether it was in *and* sampled. y is projected on the v_c and solved for s by the best linear
estimate (ridge, its weight from the noise that no canary explains); what is left for each canary is close to Gaussian,
and gives the likelihood ratio of "in" against "out" under Poisson sampling. Nothing here knows the coins.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

QUIET = 1e-4
"""Least noise that is assumed, over the clip norm: rounding of float32 is of this order in a sum of many."""


@dataclass(frozen=True)
class Sighting:
    """What a released step shows of the canaries, in float64."""

    overlaps: Tensor
    """(m, m) dot products v_c v_c'."""
    seen: Tensor
    """(m,) dot products v_c y."""
    energy: float
    """y y"""
    size: int
    """d, coordinates of y; well above m."""


def log_ratios(sighting: Sighting, *, sampling_rate: float, clip_norm: float) -> Tensor:
    """Return for each canary the logarithm of P[y | it is in] / P[y | it is out], (m,), for one step.

    Before the step a canary is in with probability one half, and then sampled with probability `sampling_rate`.
    """
    expected = sampling_rate / 2
    spread = expected * (1 - expected)
    values, axes = torch.linalg.eigh(sighting.overlaps)
    values = values.clamp(min=0.0)
    noise = max(_noise(sighting, values, axes), (QUIET * clip_norm) ** 2)
    weights = 1 / (values + noise / spread)
    estimate = axes @ (weights * (axes.T @ (sighting.seen - expected * sighting.overlaps.sum(1))))
    # estimate = gain * (s - expected) + error, of variance spread * gain * (1 - gain)
    gain = (axes.square() @ (weights * values)).clamp(1e-12, 1 - 1e-9)
    present = (estimate / gain + expected - 0.5) * gain / (spread * (1 - gain))
    return _mixed(present, sampling_rate)


def _noise(sighting: Sighting, values: Tensor, axes: Tensor) -> float:
    """Return the variance of a coordinate of what no canary explains: the noise, and the records of others."""
    held = values > values.max() * 1e-9
    explained = float(((axes.T @ sighting.seen)[held].square() / values[held]).sum())
    return max(0.0, sighting.energy - explained) / (sighting.size - int(held.sum()))


def _mixed(present: Tensor, sampling_rate: float) -> Tensor:
    """Return log(1 - q + q e^present): a canary that is in may still not be in the sample."""
    if sampling_rate == 1:
        return present
    absent = torch.tensor(math.log1p(-sampling_rate), dtype=present.dtype)
    return torch.logaddexp(absent, math.log(sampling_rate) + present)
