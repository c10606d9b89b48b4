//! How what a core has seen of its traffic gets to the control thread: windows that go there and back, so that neither
//! waits and nothing is allocated.

use std::sync::OnceLock;

use crossbeam_queue::ArrayQueue;
use sluice_rules::traffic::Window;

/// A window on its way, with the time that it covers.
pub(crate) struct Seen {
    pub(crate) window: Box<Window>,
    pub(crate) ticks: u32,
}

/// What a core and the control thread hand to each other.
pub(crate) struct Exchanges {
    seed: u64,
    queues: OnceLock<Queues>,
}

struct Queues {
    /// To the control thread.
    full: ArrayQueue<Seen>,
    /// Back to the core.
    empty: ArrayQueue<Box<Window>>,
}

/// Windows of a core: one that it fills, and one that is looked at.
const WINDOWS: usize = 2;

impl Exchanges {
    pub(crate) fn new(seed: u64) -> Self {
        Exchanges { seed, queues: OnceLock::new() }
    }

    /// Makes the windows, if they are not there yet: not for a core.
    pub(crate) fn prepare(&self) {
        self.queues.get_or_init(|| {
            let queues = Queues { full: ArrayQueue::new(WINDOWS), empty: ArrayQueue::new(WINDOWS) };
            for _ in 0..WINDOWS {
                // The queue has room for all of them.
                let _ = queues.empty.push(Box::new(Window::new(self.seed)));
            }
            queues
        });
    }

    /// An empty window, for the core. `None`: the control thread has not come to give one back.
    pub(crate) fn empty(&self) -> Option<Box<Window>> {
        self.queues.get()?.empty.pop()
    }

    /// Hands a window over, on the core.
    pub(crate) fn hand_over(&self, seen: Seen) {
        if let Some(queues) = self.queues.get() {
            // There are no more windows than the queue has room for.
            let _ = queues.full.push(seen);
        }
    }

    /// The window that was handed over, for the control thread.
    pub(crate) fn seen(&self) -> Option<Seen> {
        self.queues.get()?.full.pop()
    }

    /// Gives a window back, on the control thread.
    pub(crate) fn give_back(&self, mut window: Box<Window>) {
        window.clear();
        if let Some(queues) = self.queues.get() {
            let _ = queues.empty.push(window);
        }
    }
}
