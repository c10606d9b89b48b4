//! Writes a head into a fixed slice and notices when it does not fit.

/// The head was longer than the space for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the message head does not fit into {capacity} bytes")]
pub struct Full {
    /// The space that there was.
    pub capacity: usize,
}

/// Appends to a slice. Once something did not fit, nothing more is written and [`Writer::finish`] says so, so
/// that the code that writes a head needs no check at each step.
#[derive(Debug)]
pub struct Writer<'a> {
    bytes: &'a mut [u8],
    length: usize,
    overflowed: bool,
}

impl<'a> Writer<'a> {
    /// Writes to the front of `bytes`.
    pub fn new(bytes: &'a mut [u8]) -> Self {
        Writer { bytes, length: 0, overflowed: false }
    }

    /// Appends `part`.
    #[inline]
    pub fn put(&mut self, part: &[u8]) {
        match self.bytes.get_mut(self.length..self.length + part.len()) {
            Some(space) if !self.overflowed => {
                space.copy_from_slice(part);
                self.length += part.len();
            }
            _ => self.overflowed = true,
        }
    }

    /// Appends a number in decimal.
    pub fn put_number(&mut self, number: u64) {
        self.put(itoa::Buffer::new().format(number).as_bytes());
    }

    /// Appends a field line.
    pub fn put_field(&mut self, name: &str, value: &[u8]) {
        self.put(name.as_bytes());
        self.put(b": ");
        self.put(value);
        self.put(b"\r\n");
    }

    /// The bytes written.
    ///
    /// # Errors
    /// [`Full`] if anything was left out.
    pub fn finish(self) -> Result<usize, Full> {
        if self.overflowed { Err(Full { capacity: self.bytes.len() }) } else { Ok(self.length) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_noticed_and_nothing_follows_it() {
        let mut space = [0; 8];
        let mut writer = Writer::new(&mut space);
        writer.put(b"12345");
        writer.put(b"67890");
        writer.put(b"x");
        assert_eq!(writer.finish(), Err(Full { capacity: 8 }));
        assert_eq!(&space, b"12345\0\0\0");
    }

    #[test]
    fn a_full_slice_is_no_overflow() {
        let mut space = [0; 8];
        let mut writer = Writer::new(&mut space);
        writer.put_field("a", b"b");
        writer.put_number(42);
        assert_eq!(writer.finish(), Ok(8));
        assert_eq!(&space, b"a: b\r\n42");
    }
}
