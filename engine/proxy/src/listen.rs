//! Accepting connections.

use std::rc::Rc;
use std::time::Duration;

use sluice_rules::reply::OVERLOADED;

use crate::conn::{self, Client};
use crate::core::Core;
use crate::rt;

/// Accepts under way at a time for each listener and core.
const ACCEPTS: usize = 8;

/// How long accepting rests when no descriptor is left. What waits meanwhile waits in the kernel's queue.
const EXHAUSTED: Duration = Duration::from_millis(100);

/// Starts accepting on a listener of the configuration.
pub(crate) fn start(core: &Rc<Core>, listener: rt::Listener, index: usize) -> Rc<rt::Listener> {
    let listener = Rc::new(listener);
    for _ in 0..ACCEPTS {
        rt::spawn(accept(Rc::clone(core), Rc::clone(&listener), index));
    }
    listener
}

async fn accept(core: Rc<Core>, listener: Rc<rt::Listener>, index: usize) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                core.metrics.connections_accepted.add(1);
                match Client::admit(&core, stream.clone(), peer, index) {
                    Some(client) => rt::spawn(conn::h1::serve(Rc::clone(&core), client)),
                    None => rt::send_now(stream.fd(), OVERLOADED),
                }
            }
            Err(_) if core.draining() => return,
            Err(error) => {
                core.metrics.accept_errors.add(1);
                // Without a rest a full descriptor table would make this loop spin, and a client that broke
                // its connection before we took it is no reason to hurry either.
                let rest = if rt::is_descriptor_limit(&error) { EXHAUSTED } else { Duration::from_millis(1) };
                rt::sleep(rest).await;
            }
        }
    }
}
