//! Which versions can be restored: those to which a whole base leads through versions that are all whole.

use std::ops::RangeInclusive;

/// Ranges of versions, first and last, that cannot be restored. `is_base` says of which versions there is a whole base, `is_whole` which
/// versions are whole by themselves.
pub(crate) fn lost(
    versions: RangeInclusive<u64>,
    is_base: impl Fn(u64) -> bool,
    is_whole: impl Fn(u64) -> bool,
) -> Vec<(u64, u64)> {
    let mut lost: Vec<(u64, u64)> = Vec::new();
    let mut reached = false;
    for version in versions {
        reached = is_base(version) || (reached && is_whole(version));
        match lost.last_mut() {
            _ if reached => {}
            Some((_, last)) if *last + 1 == version => *last = version,
            _ => lost.push((version, version)),
        }
    }
    lost
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(bases: &[u64], broken: &[u64]) -> Vec<(u64, u64)> {
        lost(0..=20, |version| bases.contains(&version), |version| !broken.contains(&version))
    }

    #[test]
    fn a_damaged_version_takes_those_up_to_the_next_base_with_it() {
        assert_eq!(shown(&[0], &[]), []);
        assert_eq!(shown(&[0, 10], &[7]), [(7, 9)]);
        assert_eq!(shown(&[0], &[7, 9]), [(7, 20)]);
        assert_eq!(shown(&[0, 10], &[7, 15]), [(7, 9), (15, 20)]);
    }

    #[test]
    fn a_damaged_base_takes_nothing_with_it_if_the_versions_before_lead_there() {
        assert_eq!(shown(&[0, 10], &[10]), []);
        assert_eq!(shown(&[10], &[]), [(0, 9)]);
        assert_eq!(shown(&[], &[]), [(0, 20)]);
    }
}
