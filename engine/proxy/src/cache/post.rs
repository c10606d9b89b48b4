//! What the cache tells a core: objects that are gone, and fills that have got on.
//!
//! A place for each core where others leave word, and its mailbox as the bell. Word that is left while the mailbox is
//! full waits for the core's next beat.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::Message;
use crate::rt::Mailbox;

use super::fill::Fill;

/// Word for one core.
#[derive(Default)]
pub(crate) struct Word {
    /// The hashes of objects that are gone and may be in its index.
    pub(crate) gone: Vec<u128>,
    /// Fills that somebody on the core waits for.
    pub(crate) fills: Vec<Arc<Fill>>,
}

#[derive(Default)]
struct Letterbox {
    word: Mutex<Word>,
    /// Whether there is any that the core has not taken.
    is_full: AtomicBool,
}

/// Word for all cores.
pub(crate) struct Post {
    boxes: Box<[Letterbox]>,
    bells: Arc<[Mailbox<Message>]>,
}

impl Post {
    pub(crate) fn new(cores: usize, bells: Arc<[Mailbox<Message>]>) -> Self {
        Post { boxes: (0..cores).map(|_| Letterbox::default()).collect(), bells }
    }

    /// How many cores there are.
    pub(crate) fn cores(&self) -> usize {
        self.boxes.len()
    }

    /// Leaves word for the cores of a set of bits, and rings.
    pub(crate) fn leave(&self, cores: u64, mut leave: impl FnMut(&mut Word)) {
        if cores == 0 {
            return;
        }
        for (core, letterbox) in self.boxes.iter().enumerate() {
            if cores & super::fill::bit(core) == 0 {
                continue;
            }
            leave(&mut letterbox.word.lock().unwrap_or_else(PoisonError::into_inner));
            if !letterbox.is_full.swap(true, Ordering::AcqRel)
                && let Some(bell) = self.bells.get(core)
            {
                // A full mailbox is as good as a bell: the core is to look into it anyway, or beats before.
                let _ = bell.send(Message::Cache);
            }
        }
    }

    /// What there is for a core.
    pub(crate) fn take(&self, core: usize) -> Option<Word> {
        let letterbox = &self.boxes[core];
        // First the flag, then the word: what comes in between rings again.
        letterbox
            .is_full
            .swap(false, Ordering::AcqRel)
            .then(|| std::mem::take(&mut *letterbox.word.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}
