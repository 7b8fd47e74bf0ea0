"""Sums under encryption, local steps only: fixed point, packing, masks, shares, cipher."""
