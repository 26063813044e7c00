//! A set of members of a group, by their places.

use std::ops::BitAnd;

use crate::model::Group;

/// No group has more members.
pub(super) const MOST_MEMBERS: usize = Group::MOST_MEMBERS;

/// See the module. A word, so that nothing on the way of a request allocates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Members(u64);

impl Members {
    /// With this one.
    #[must_use]
    pub fn with(self, at: usize) -> Self {
        Self(self.0 | bit(at))
    }

    /// Without this one.
    #[must_use]
    pub fn without(self, at: usize) -> Self {
        Self(self.0 & !bit(at))
    }

    /// Whether this one is in it.
    pub fn has(self, at: usize) -> bool {
        self.0 & bit(at) != 0
    }

    /// How many there are.
    pub fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The first so many of them.
    #[must_use]
    pub fn first(self, count: usize) -> Self {
        self.iter().take(count).collect()
    }

    /// Their places, from the first on.
    pub fn iter(self) -> impl Iterator<Item = usize> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let at = rest.trailing_zeros();
            // Of none left there is none to take away.
            rest &= rest.checked_sub(1)?;
            Some(at as usize)
        })
    }
}

impl BitAnd for Members {
    type Output = Self;

    fn bitand(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

impl FromIterator<usize> for Members {
    fn from_iter<I: IntoIterator<Item = usize>>(places: I) -> Self {
        places.into_iter().fold(Self::default(), Self::with)
    }
}

/// Places beyond the last are in no set.
fn bit(at: usize) -> u64 {
    u32::try_from(at).ok().and_then(|at| 1u64.checked_shl(at)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_holds_what_was_put_in() {
        let set: Members = [0, 5, 63, 64].into_iter().collect();
        assert_eq!(set.iter().collect::<Vec<_>>(), [0, 5, 63]);
        assert_eq!((set.len(), set.has(5), set.has(6), set.has(64)), (3, true, false, false));
        assert_eq!(set.without(5).first(2).iter().collect::<Vec<_>>(), [0, 63]);
        assert!(set.without(0).without(5).without(63).is_empty());
    }
}
