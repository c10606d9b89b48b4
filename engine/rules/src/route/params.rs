//! The values of path parameters, as places in the path.

/// Values of path parameters, as ranges of the path, by position in the pattern. What `/*` stands for is the last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Params {
    ranges: [(u16, u16); Params::MAX],
    count: u8,
}

impl Params {
    /// Parameters that a path may have.
    pub const MAX: usize = 8;

    /// The value of a parameter within the `path` that was looked up; empty if there is no such parameter.
    pub fn get<'p>(&self, index: usize, path: &'p str) -> &'p str {
        let range = self.ranges[..self.len()].get(index);
        range.and_then(|(start, end)| path.get(usize::from(*start)..usize::from(*end))).unwrap_or_default()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        usize::from(self.count)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// These and one more behind them. The router has checked that paths are short enough and parameters few.
    pub(super) fn with(mut self, start: usize, end: usize) -> Params {
        self.ranges[self.len()] = (start as u16, end as u16);
        self.count += 1;
        self
    }
}
