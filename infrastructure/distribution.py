"""How values are spread: counts between fixed bounds, cheap enough for every commit."""

from bisect import bisect_left
from collections.abc import Sequence


class Distribution:
    """Counts of values up to each bound; written by one thread, read by any."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(self._bounds) + 1)
        self.total = 0.0
        """Sum of all values."""

    def add(self, value: float) -> None:
        """Count one more value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self.total += value

    def cumulative(self) -> list[tuple[str, float]]:
        """Bounds as text, the last one `+Inf`, with how many values do not exceed each."""
        labels = [*(f"{bound:g}" for bound in self._bounds), "+Inf"]
        counted = 0
        rows = []
        for label, count in zip(labels, tuple(self._counts), strict=True):
            counted += count
            rows.append((label, float(counted)))
        return rows
