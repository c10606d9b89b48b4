//! Listening sockets: which of them a configuration keeps, which it adds and which it ends.

use std::collections::HashMap;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Weak};

use sluice_rules::snapshot::Listener;

use crate::StartError;
use crate::listen::Door;
use crate::rt::{self, Mode};

/// All doors that something still refers to, by their number.
pub(crate) struct Doors {
    all: Vec<Weak<Door>>,
    cores: usize,
    mode: Mode,
}

/// The doors of a configuration.
pub(crate) struct Assigned {
    /// One for each listener.
    pub(crate) doors: Vec<Arc<Door>>,
    /// The new ones of them, each with a socket for every core.
    pub(crate) opened: Vec<(Arc<Door>, Vec<TcpListener>)>,
    /// Those of before that are not among them.
    pub(crate) closed: Vec<Arc<Door>>,
}

impl Doors {
    pub(crate) fn new(cores: usize, mode: Mode) -> Self {
        Doors { all: Vec::new(), cores, mode }
    }

    /// Finds the doors of `listeners` among the present ones, by their addresses as written, and opens the others.
    ///
    /// # Errors
    /// If one cannot be opened. Nothing has changed then.
    pub(crate) fn assign(&mut self, listeners: &[Listener], present: &[Arc<Door>]) -> Result<Assigned, StartError> {
        // Several may be written alike: port 0 is another port each time. They keep their order.
        let mut kept: HashMap<SocketAddr, Vec<&Arc<Door>>> = HashMap::new();
        for door in present.iter().rev() {
            kept.entry(door.written).or_default().push(door);
        }
        let mut assigned = Assigned { doors: Vec::new(), opened: Vec::new(), closed: Vec::new() };
        for listener in listeners {
            if let Some(door) = kept.get_mut(&listener.address).and_then(Vec::pop) {
                assigned.doors.push(Arc::clone(door));
                continue;
            }
            let (door, sockets) = self.open(listener)?;
            assigned.doors.push(Arc::clone(&door));
            assigned.opened.push((door, sockets));
        }
        assigned.closed.extend(kept.into_values().flatten().map(Arc::clone));
        Ok(assigned)
    }

    fn open(&mut self, listener: &Listener) -> Result<(Arc<Door>, Vec<TcpListener>), StartError> {
        let mut address = listener.address;
        let mut sockets = Vec::new();
        for _ in 0..self.cores {
            let what = || format!("listener {}", listener.name);
            let failed = |error| StartError::Bind { address: address.to_string(), what: what(), error };
            let socket = rt::bind(address, self.mode == Mode::Epoll).map_err(failed)?;
            // The first socket settles a port that was left to the kernel.
            address = socket.local_addr()?;
            sockets.push(socket);
        }
        let slot = self.all.iter().position(|door| door.strong_count() == 0).unwrap_or(self.all.len());
        let door = Arc::new(Door::new(slot as u32, listener.address, address, self.cores));
        if slot == self.all.len() {
            self.all.push(Weak::new());
        }
        self.all[slot] = Arc::downgrade(&door);
        Ok((door, sockets))
    }

    /// Whether connections are open on any door, or may still be accepted.
    pub(crate) fn in_use(&self) -> bool {
        self.all.iter().filter_map(Weak::upgrade).any(|door| door.is_in_use())
    }
}
