//! Bytes that belong to somebody else and are written from where they are.

use std::any::Any;
use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;

use monoio::buf::IoVecBuf;

use super::buffer::Buffer;

/// What keeps leased bytes alive.
#[expect(dead_code, reason = "held, not read")]
#[derive(Clone)]
enum Owner {
    Core(Rc<dyn Any>),
    Node(Arc<dyn Any + Send + Sync>),
}

/// A slice of what an owner holds, for as long as it is needed.
pub(crate) struct Lease {
    start: *const u8,
    length: usize,
    owner: Owner,
}

impl Lease {
    /// No bytes.
    pub(crate) fn empty() -> Self {
        Lease::of(&Rc::new(()), |()| &[])
    }

    /// A part of what an owner on this core holds.
    pub(crate) fn of<T: 'static>(owner: &Rc<T>, part: impl for<'a> FnOnce(&'a T) -> &'a [u8]) -> Self {
        let bytes = part(owner);
        Lease { start: bytes.as_ptr(), length: bytes.len(), owner: Owner::Core(Rc::clone(owner) as Rc<dyn Any>) }
    }

    /// A part of what an owner holds that cores share.
    pub(crate) fn of_shared<T: Send + Sync + 'static>(
        owner: &Arc<T>,
        part: impl for<'a> FnOnce(&'a T) -> &'a [u8],
    ) -> Self {
        let bytes = part(owner);
        Lease { start: bytes.as_ptr(), length: bytes.len(), owner: Owner::Node(Arc::clone(owner) as _) }
    }

    /// Parts so many bytes from the front.
    pub(crate) fn take(&mut self, count: usize) -> Lease {
        let length = count.min(self.length);
        let taken = Lease { start: self.start, length, owner: self.owner.clone() };
        self.consume(length);
        taken
    }

    /// Drops bytes from the front.
    pub(crate) fn consume(&mut self, count: usize) {
        let count = count.min(self.length);
        // SAFETY: it stays within the slice, or one past its end.
        self.start = unsafe { self.start.add(count) };
        self.length -= count;
    }
}

impl Deref for Lease {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the slice was borrowed from the owner for as long as the owner itself is borrowed, whatever that
        // lifetime is, so nothing that shares the owner can change or free it while the owner lives; and the owner
        // is kept. It lives in an allocation that does not move.
        unsafe { std::slice::from_raw_parts(self.start, self.length) }
    }
}

/// A buffer and leased bytes behind it, on their way to the kernel in one piece.
pub(crate) struct Gather {
    _head: Option<Buffer>,
    _leases: Vec<Lease>,
    /// What is left to be written, from `first` on.
    parts: Vec<libc::iovec>,
    first: usize,
}

impl Gather {
    pub(crate) fn new(head: Option<Buffer>, leases: Vec<Lease>) -> Self {
        let head_part = head.as_ref().filter(|head| !head.is_empty()).map(|head| part_of(head.filled()));
        let parts = head_part.into_iter().chain(leases.iter().map(|lease| part_of(lease))).collect();
        Gather { _head: head, _leases: leases, parts, first: 0 }
    }

    /// How many bytes are left.
    pub(crate) fn len(&self) -> usize {
        self.parts[self.first..].iter().map(|part| part.iov_len).sum()
    }

    /// Drops bytes from the front.
    pub(super) fn consume(&mut self, mut count: usize) {
        while let Some(part) = self.parts.get_mut(self.first) {
            let taken = count.min(part.iov_len);
            part.iov_len -= taken;
            // SAFETY: it stays within the part, or one past its end.
            part.iov_base = unsafe { part.iov_base.cast::<u8>().add(taken) }.cast();
            count -= taken;
            if part.iov_len > 0 {
                return;
            }
            self.first += 1;
        }
    }
}

fn part_of(bytes: &[u8]) -> libc::iovec {
    libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() }
}

// SAFETY: the list of parts is on the heap and is not touched while the runtime has it. Its entries point into the
// buffer and the leases, which it holds and which do not move; the kernel only reads them.
unsafe impl IoVecBuf for Gather {
    fn read_iovec_ptr(&self) -> *const libc::iovec {
        self.parts[self.first..].as_ptr()
    }

    fn read_iovec_len(&self) -> usize {
        self.parts.len() - self.first
    }
}

#[cfg(test)]
mod tests {
    use super::super::BufferPool;
    use super::*;

    #[test]
    fn a_lease_outlives_whoever_made_it() {
        let owner = Rc::new(b"hello".to_vec());
        let mut lease = Lease::of(&owner, |bytes| &bytes[1..]);
        drop(owner);
        assert_eq!(&*lease, b"ello");
        assert_eq!(&*lease.take(2), b"el");
        lease.consume(1);
        assert_eq!(&*lease, b"o");
        lease.consume(9);
        assert!(lease.is_empty());
    }

    #[test]
    fn what_was_written_is_dropped_from_the_front_across_parts() {
        let shared = Arc::new(b"abcdef".to_vec());
        let mut head = BufferPool::new(1 << 20).take().expect("there is room");
        assert!(head.append(b"head"));
        let leases = vec![Lease::of_shared(&shared, |all| &all[..2]), Lease::of_shared(&shared, |all| &all[2..])];
        let mut gather = Gather::new(Some(head), leases);
        let mut written = Vec::new();
        for count in [3, 2, 1, 4] {
            // SAFETY: as the kernel reads it.
            let part = unsafe { *gather.read_iovec_ptr() };
            written.push((gather.len(), part.iov_len));
            gather.consume(count);
        }
        assert_eq!(written, [(10, 4), (7, 1), (5, 1), (4, 4)]);
        assert_eq!((gather.len(), gather.read_iovec_len()), (0, 0));
    }
}
