//! Message buffers: taken from a pool of the core, given back when dropped, bounded in all.
//!
//! A buffer leaves room in front of what is read into it, so that a rewritten head or the size line of a chunk
//! is put before the content without moving it, and a little behind for the end of a chunk.

use std::cell::{Cell, RefCell};
use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};
use std::rc::Rc;

use monoio::buf::{IoBuf, IoBufMut};

/// Bytes in front of what is read: a chunk's size line always fits, most rewritten heads do.
pub(crate) const HEADROOM: usize = 1024;

/// Bytes behind what is read: the end of a chunk and of chunked content.
const TAILROOM: usize = 16;

/// Bytes that one read may bring into a buffer of the usual size.
pub(crate) const SMALL: usize = 16 * 1024;

/// Bytes that one read may bring into a buffer for bulk.
pub(crate) const LARGE: usize = 128 * 1024;

/// The buffers of a core.
pub(crate) struct BufferPool {
    small: RefCell<Free>,
    large: RefCell<Free>,
    in_use_bytes: Cell<usize>,
    limit_bytes: usize,
}

/// Buffers of one size that wait for their next use.
#[derive(Default)]
struct Free {
    #[expect(clippy::vec_box, reason = "a buffer is passed on as a pointer, and so are free ones")]
    buffers: Vec<Box<Space>>,
    /// How few there were at some time since the last [`BufferPool::shrink`]: so many were not needed.
    fewest: usize,
}

impl Free {
    fn take(&mut self) -> Option<Box<Space>> {
        let taken = self.buffers.pop();
        self.fewest = self.fewest.min(self.buffers.len());
        taken
    }

    fn shrink(&mut self) {
        let kept = self.buffers.len() - self.fewest.div_ceil(2);
        self.buffers.truncate(kept);
        self.fewest = kept;
    }
}

impl BufferPool {
    /// A pool that hands out at most `limit_bytes` at a time.
    pub(crate) fn new(limit_bytes: usize) -> Rc<Self> {
        Rc::new(BufferPool {
            small: RefCell::default(),
            large: RefCell::default(),
            in_use_bytes: Cell::new(0),
            limit_bytes,
        })
    }

    /// A buffer of the usual size, or `None` if the core's share of memory is in use.
    pub(crate) fn take(self: &Rc<Self>) -> Option<Buffer> {
        self.take_from(&self.small, SMALL, self.limit_bytes)
    }

    /// A buffer for bulk. The last quarter of the memory is left to buffers of the usual size.
    pub(crate) fn take_large(self: &Rc<Self>) -> Option<Buffer> {
        self.take_from(&self.large, LARGE, self.limit_bytes / 4 * 3)
    }

    /// Bytes in buffers that are handed out.
    pub(crate) fn in_use_bytes(&self) -> usize {
        self.in_use_bytes.get()
    }

    /// Gives half of the buffers that were not needed since the last time back to the allocator.
    pub(crate) fn shrink(&self) {
        self.small.borrow_mut().shrink();
        self.large.borrow_mut().shrink();
    }

    fn take_from(self: &Rc<Self>, free: &RefCell<Free>, size: usize, limit: usize) -> Option<Buffer> {
        let bytes = HEADROOM + size + TAILROOM;
        let in_use = self.in_use_bytes.get() + bytes;
        if in_use > limit {
            return None;
        }
        self.in_use_bytes.set(in_use);
        let recycled = free.borrow_mut().take();
        let mut space = recycled.unwrap_or_else(|| {
            Box::new(Space { bytes: vec![0; bytes].into_boxed_slice(), start: 0, end: 0, pool: None })
        });
        space.pool = Some(Rc::clone(self));
        let mut buffer = Buffer(ManuallyDrop::new(space));
        buffer.clear();
        Some(buffer)
    }

    fn give_back(&self, space: Box<Space>) {
        self.in_use_bytes.set(self.in_use_bytes.get() - space.bytes.len());
        let is_large = space.bytes.len() > HEADROOM + SMALL + TAILROOM;
        let free = if is_large { &self.large } else { &self.small };
        free.borrow_mut().buffers.push(space);
    }
}

/// Bytes between a start and an end within an allocation of fixed size that is always initialised. A pointer, since
/// it is passed through several futures on its way to the kernel and back.
pub(crate) struct Buffer(ManuallyDrop<Box<Space>>);

/// What a [`Buffer`] points to.
pub(crate) struct Space {
    bytes: Box<[u8]>,
    start: usize,
    end: usize,
    /// Where it goes back to; `None` while it is there.
    pool: Option<Rc<BufferPool>>,
}

impl Deref for Buffer {
    type Target = Space;

    fn deref(&self) -> &Space {
        &self.0
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut Space {
        &mut self.0
    }
}

impl Space {
    /// The bytes in it.
    pub(crate) fn filled(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// The bytes in it.
    pub(crate) fn filled_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.end]
    }

    /// How many bytes are in it.
    pub(crate) fn len(&self) -> usize {
        self.end - self.start
    }

    /// Whether nothing is in it.
    pub(crate) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// How many more bytes a read can bring.
    pub(crate) fn spare(&self) -> usize {
        (self.bytes.len() - TAILROOM).saturating_sub(self.end)
    }

    /// Drops bytes from the front.
    pub(crate) fn consume(&mut self, count: usize) {
        debug_assert!(count <= self.len());
        self.start += count;
        if self.start == self.end {
            self.clear();
        }
    }

    /// Drops bytes from the end.
    pub(crate) fn truncate(&mut self, length: usize) {
        self.end = self.end.min(self.start + length);
    }

    /// Drops all bytes.
    pub(crate) fn clear(&mut self) {
        self.start = HEADROOM;
        self.end = HEADROOM;
    }

    /// Moves the bytes to the front of the room, so that the next read brings as much as can be.
    pub(crate) fn compact(&mut self) {
        if self.start > HEADROOM {
            self.bytes.copy_within(self.start..self.end, HEADROOM);
            self.end -= self.start - HEADROOM;
            self.start = HEADROOM;
        }
    }

    /// Moves the bytes to the very front, for what is not passed on and needs no room there: a whole TLS record fits
    /// into a buffer of the usual size then.
    pub(crate) fn use_headroom(&mut self) {
        self.bytes.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
    }

    /// How many more bytes [`Space::append_with`] can bring.
    pub(crate) fn room(&self) -> usize {
        self.bytes.len() - self.end
    }

    /// Puts bytes in front of those in it. `false` if there is no room, and then nothing is done.
    #[must_use]
    pub(crate) fn prepend(&mut self, bytes: &[u8]) -> bool {
        let Some(start) = self.start.checked_sub(bytes.len()) else { return false };
        self.bytes[start..self.start].copy_from_slice(bytes);
        self.start = start;
        true
    }

    /// Puts bytes behind those in it, into the tailroom too. `false` if there is no room, and then nothing is
    /// done.
    #[must_use]
    pub(crate) fn append(&mut self, bytes: &[u8]) -> bool {
        let Some(space) = self.bytes.get_mut(self.end..self.end + bytes.len()) else { return false };
        space.copy_from_slice(bytes);
        self.end += bytes.len();
        true
    }

    /// Lets `write` fill the room behind the bytes; it returns how many bytes it wrote.
    pub(crate) fn append_with<E>(&mut self, write: impl FnOnce(&mut [u8]) -> Result<usize, E>) -> Result<(), E> {
        let written = write(&mut self.bytes[self.end..])?;
        self.end += written;
        Ok(())
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: the buffer is being dropped, so nobody takes or uses the space after this.
        let mut space = unsafe { ManuallyDrop::take(&mut self.0) };
        if let Some(pool) = space.pool.take() {
            pool.give_back(space);
        }
    }
}

/// A buffer on its way to the kernel to be read into behind what is in it.
pub(super) struct Spare(pub(super) Buffer);

// SAFETY: the pointer is into the boxed slice, which neither moves nor is freed while the buffer lives, and
// `bytes_total` ends before the slice does. All bytes are initialised from the start, so `set_init` only has
// to move the end, by what the kernel says it wrote, which is at most `bytes_total`.
unsafe impl IoBufMut for Spare {
    fn write_ptr(&mut self) -> *mut u8 {
        let space = &mut *self.0;
        space.bytes[space.end..].as_mut_ptr()
    }

    fn bytes_total(&mut self) -> usize {
        self.0.spare()
    }

    unsafe fn set_init(&mut self, count: usize) {
        self.0.end += count;
    }
}

/// A buffer on its way to the kernel to be written from.
pub(super) struct Filled(pub(super) Buffer);

// SAFETY: the pointer is into the boxed slice, which neither moves nor is freed while the buffer lives, and
// `bytes_init` bytes behind it are initialised and within it.
unsafe impl IoBuf for Filled {
    fn read_ptr(&self) -> *const u8 {
        self.0.filled().as_ptr()
    }

    fn bytes_init(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may end in a panic")]
    use super::*;

    #[test]
    fn a_pool_hands_out_no_more_than_its_limit_and_takes_everything_back() {
        let size = HEADROOM + SMALL + TAILROOM;
        let pool = BufferPool::new(2 * size);
        let first = pool.take();
        let second = pool.take();
        assert!(first.is_some() && second.is_some() && pool.take().is_none());
        assert_eq!(pool.in_use_bytes(), 2 * size);
        drop(first);
        assert!(pool.take().is_some());
        drop(second);
        assert_eq!(pool.in_use_bytes(), 0);
    }

    #[test]
    fn buffers_that_are_not_needed_go_back_to_the_allocator() {
        let pool = BufferPool::new(1 << 20);
        drop((0..8).map(|_| pool.take()).collect::<Vec<_>>());
        pool.shrink();
        assert_eq!(pool.small.borrow().buffers.len(), 8, "all were in use since");
        let used = (pool.take(), pool.take());
        drop(used);
        pool.shrink();
        assert_eq!(pool.small.borrow().buffers.len(), 5, "half of six");
        for _ in 0..8 {
            pool.shrink();
        }
        assert_eq!(pool.small.borrow().buffers.len(), 0);
    }

    #[test]
    fn room_in_front_and_behind_frames_what_was_read() {
        let pool = BufferPool::new(1 << 20);
        let mut buffer = pool.take().unwrap();
        assert_eq!(buffer.spare(), SMALL);
        let content = vec![b'x'; SMALL];
        buffer
            .append_with(|space| {
                space[..SMALL].copy_from_slice(&content);
                Ok::<_, ()>(SMALL)
            })
            .unwrap();
        assert_eq!(buffer.spare(), 0);
        assert!(buffer.prepend(b"4000\r\n") && buffer.append(b"\r\n0\r\n\r\n"));
        assert!(!buffer.append(&[0; TAILROOM]) && !buffer.prepend(&[0; HEADROOM]));
        buffer.consume(6);
        buffer.truncate(3);
        assert_eq!(buffer.filled(), b"xxx");
        buffer.consume(3);
        assert_eq!((buffer.len(), buffer.spare()), (0, SMALL));
    }

    #[test]
    fn compacting_moves_what_is_left_to_the_front() {
        let pool = BufferPool::new(1 << 20);
        let mut buffer = pool.take().unwrap();
        assert!(buffer.append(b"head|rest"));
        buffer.consume(5);
        buffer.compact();
        assert_eq!((buffer.filled(), buffer.spare()), (&b"rest"[..], SMALL - 4));
    }
}
