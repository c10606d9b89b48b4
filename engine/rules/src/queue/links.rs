//! Lists whose members are slots of a table: a member is taken out wherever it stands, without a search.

/// No slot.
pub(super) const NONE: u32 = u32::MAX;

/// The first and last member of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ends {
    pub(super) first: u32,
    pub(super) last: u32,
}

impl Default for Ends {
    fn default() -> Self {
        Ends { first: NONE, last: NONE }
    }
}

impl Ends {
    pub(super) fn is_empty(self) -> bool {
        self.first == NONE
    }
}

#[derive(Clone, Copy, Debug)]
struct Link {
    before: u32,
    after: u32,
}

/// The links of one kind of list. A slot is a member of one list of the kind at most.
#[derive(Debug, Default)]
pub(super) struct Links(Vec<Link>);

impl Links {
    /// Puts a slot at the end of a list.
    pub(super) fn push(&mut self, ends: &mut Ends, slot: u32) {
        let index = slot as usize;
        if self.0.len() <= index {
            self.0.resize(index + 1, Link { before: NONE, after: NONE });
        }
        self.0[index] = Link { before: ends.last, after: NONE };
        match ends.last {
            NONE => ends.first = slot,
            last => self.0[last as usize].after = slot,
        }
        ends.last = slot;
    }

    /// Takes a slot out of its list, whose ends these are.
    pub(super) fn remove(&mut self, ends: &mut Ends, slot: u32) {
        let Link { before, after } = self.0[slot as usize];
        match before {
            NONE => ends.first = after,
            before => self.0[before as usize].after = after,
        }
        match after {
            NONE => ends.last = before,
            after => self.0[after as usize].before = before,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn members(links: &Links, ends: Ends) -> Vec<u32> {
        let mut members = Vec::new();
        let mut slot = ends.first;
        while slot != NONE {
            members.push(slot);
            slot = links.0[slot as usize].after;
        }
        members
    }

    proptest! {
        /// Against a vector that is searched.
        #[test]
        fn lists_agree_with_the_obvious(steps in proptest::collection::vec(0u32..12, 1..100)) {
            let (mut links, mut ends, mut expected) = (Links::default(), Ends::default(), Vec::new());
            for slot in steps {
                match expected.iter().position(|member| *member == slot) {
                    Some(at) => { expected.remove(at); links.remove(&mut ends, slot); }
                    None => { expected.push(slot); links.push(&mut ends, slot); }
                }
                prop_assert_eq!(members(&links, ends), expected.clone());
                let last = expected.last().copied().unwrap_or(NONE);
                prop_assert_eq!((ends.last, ends.is_empty()), (last, expected.is_empty()));
            }
        }
    }
}
