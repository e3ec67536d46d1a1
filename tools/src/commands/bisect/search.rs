//! Which version to try next: halving, over versions of which some cannot be told from others, and some say nothing.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

/// What a version turned out to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    /// All is well.
    Good,
    /// It is not.
    Bad,
    /// It cannot be told.
    Skip,
}

/// A search among versions, by their place in a list whose first is good and whose last is bad.
pub(super) struct Search {
    /// The last that is known to be good.
    good: usize,
    /// The first that is known to be bad.
    bad: usize,
    /// Those between of which it cannot be told.
    skipped: BTreeSet<usize>,
}

impl Search {
    /// Among so many, at least two.
    pub(super) fn among(count: usize) -> Self {
        Search { good: 0, bad: count - 1, skipped: BTreeSet::new() }
    }

    /// The next to be tried, if any is left. `is_same` says whether two have the same in them, so that one need not be tried where
    /// the other was; whatever lies between such two has the same, too.
    pub(super) fn next<E>(
        &mut self,
        mut is_same: impl FnMut(usize, usize) -> Result<bool, E>,
    ) -> Result<Option<usize>, E> {
        while let Some(place) = self.nearest() {
            let verdict = if is_same(self.good, place)? {
                Verdict::Good
            } else if is_same(place, self.bad)? {
                Verdict::Bad
            } else if self.is_as_one_skipped(place, &mut is_same)? {
                Verdict::Skip
            } else {
                return Ok(Some(place));
            };
            self.know(place, verdict);
        }
        Ok(None)
    }

    fn is_as_one_skipped<E>(
        &self,
        place: usize,
        is_same: &mut impl FnMut(usize, usize) -> Result<bool, E>,
    ) -> Result<bool, E> {
        for &skipped in &self.skipped {
            if is_same(skipped.min(place), skipped.max(place))? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The nearest to the middle of those that may be tried.
    fn nearest(&self) -> Option<usize> {
        let middle = self.good + (self.bad - self.good) / 2;
        (self.good + 1..self.bad)
            .filter(|place| !self.skipped.contains(place))
            .min_by_key(|place| place.abs_diff(middle))
    }

    /// Notes what one turned out to be.
    pub(super) fn know(&mut self, place: usize, verdict: Verdict) {
        match verdict {
            Verdict::Good => self.good = place,
            Verdict::Bad => self.bad = place,
            Verdict::Skip => drop(self.skipped.insert(place)),
        }
        let between = self.good + 1..self.bad;
        self.skipped.retain(|skipped| between.contains(skipped));
    }

    /// How many may be the first bad one.
    pub(super) fn left(&self) -> usize {
        self.bad - self.good
    }

    /// Those of which any may be the first bad one; of which there is one, unless some could not be told.
    pub(super) fn suspects(&self) -> RangeInclusive<usize> {
        self.good + 1..=self.bad
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Searches among `count` for the first bad one; how many were tried, and what is suspected.
    fn search(
        count: usize,
        verdict: impl Fn(usize) -> Verdict,
        state: impl Fn(usize) -> usize,
    ) -> (u32, RangeInclusive<usize>) {
        let mut search = Search::among(count);
        let mut tried = 0;
        let same = |one: usize, other: usize| {
            assert!(one < other);
            Ok::<_, ()>(state(one) == state(other))
        };
        while let Some(place) = search.next(same).unwrap() {
            tried += 1;
            search.know(place, verdict(place));
        }
        (tried, search.suspects())
    }

    fn from(first: usize) -> impl Fn(usize) -> Verdict {
        move |place| if place < first { Verdict::Good } else { Verdict::Bad }
    }

    #[test]
    fn the_first_bad_one_is_found_in_as_many_tries_as_halving_takes() {
        for count in 2..130 {
            for first in 1..count {
                let (tried, suspects) = search(count, from(first), |place| place);
                assert_eq!(suspects, first..=first);
                assert!(tried <= (count - 1).next_power_of_two().ilog2(), "{tried} tries among {count}");
            }
        }
    }

    #[test]
    fn what_is_the_same_is_tried_once() {
        // Something changes in every tenth.
        for first in [10, 20, 500, 990] {
            let (tried, suspects) = search(1000, from(first), |place| place / 10);
            assert_eq!(suspects, first..=first);
            assert!(tried <= 10, "{tried}");
        }
        assert_eq!(search(1000, from(500), |place| usize::from(place >= 500)), (0, 500..=500));
    }

    #[test]
    fn what_cannot_be_told_is_gone_around() {
        let skips = |place: usize| match place {
            30..40 => Verdict::Skip,
            _ => from(70)(place),
        };
        assert_eq!(search(100, skips, |place| place).1, 70..=70);
        let hidden = |place: usize| match place {
            60..80 => Verdict::Skip,
            _ => from(70)(place),
        };
        let (tried, suspects) = search(100, hidden, |place| place);
        assert_eq!(suspects, 60..=80);
        assert!(tried <= 30, "{tried}");
        // All of one state are skipped at once.
        let (tried, suspects) =
            search(100, hidden, |place| if (60..80).contains(&place) { 60 } else { place });
        assert_eq!(suspects, 60..=80);
        assert!(tried <= 8, "{tried}");
    }
}
