"""Finding feeds on which a model runs: guess, try, learn from the refusal, guess again."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from graphopt.verify.feeds import Feeds, Guess, Plan

__all__ = ["Attempt", "Search", "refusal"]

_TRIES: Final = 60
_MOSTLY: Final = 0.5  # share of finite output elements below which other values are worth a try


@dataclass(frozen=True, slots=True)
class Attempt:
    """What became of a run: ``error`` is empty when it went well; ``finite`` is the share of finite elements."""

    error: str = ""
    finite: float = 1.0


@dataclass(slots=True)
class Search:
    """Looks for the samples of one model.

    Attributes:
        plan: How the model can be fed.
        attempt: Runs the model. Feeds that run become a sample; with ``replace`` in place of the last one.
        seed: Of the first sample; the following ones count up.
        tried: Each refused guess, with the reason.
        finite: The share of finite output elements of the first sample.
    """

    plan: Plan
    attempt: Callable[[Feeds, bool], Attempt]
    seed: int
    tried: list[str] = field(default_factory=list)
    finite: float = 1.0

    def run(self, samples: int) -> bool:
        """Find up to ``samples`` samples, and some with replaced initializers; False when not even one runs."""
        found = self.first(self.plan.guesses(), self.seed)
        if found is None:
            return False
        guess, self.finite = found
        if self.finite < _MOSTLY:
            guess = self._calmed(guess)
        for number in range(1, samples):
            self.first(self.plan.variations(guess, number), self.seed + number)
        base = self.plan.fill(guess, self.seed)
        for other in self.plan.overrides(self.seed):
            if other and base is not None:  # an initializer that callers may replace: folding it must show
                self.attempt({**base, **other}, False)
        return True

    def first(self, guesses: Iterable[Guess], seed: int) -> tuple[Guess, float] | None:
        """The first guess that runs, with the share of finite outputs."""
        for first in islice(guesses, _TRIES):
            guess: Guess | None = first
            while guess is not None:
                result = self._try(guess, seed)
                if not result.error:
                    return guess, result.finite
                self.tried.append(f"{guess}: {result.error}")
                guess = self.plan.tightened(guess, result.error)
        return None

    def _try(self, guess: Guess, seed: int, *, again: bool = False) -> Attempt:
        feeds = self.plan.fill(guess, seed)
        return Attempt("too large to allocate") if feeds is None else self.attempt(feeds, again)

    def _calmed(self, guess: Guess) -> Guess:
        """Mostly NaN proves little: try floats between 0 and 1, and keep what gives more finite outputs."""
        calm = replace(guess, style="unit")
        result = self._try(calm, self.seed, again=True)
        if not result.error and result.finite > self.finite:
            self.finite = result.finite
            return calm
        if not result.error:
            self._try(guess, self.seed, again=True)
        return guess


def refusal(tried: list[str]) -> str:
    """What to tell a user for whose model no guess runs."""
    return (
        f"no generated inputs run; {len(tried)} tried, the first: {tried[0]}" if tried else "no inputs are small enough"
    )
