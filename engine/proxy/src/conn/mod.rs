//! Connections of clients.

pub(crate) mod h1;
mod request;
mod response;
mod tunnel;

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use sluice_rules::snapshot::Listener;
use sluice_wire::forwarded::Hop;

use crate::core::{Core, Local, Shared};
use crate::deadline::{Deadline, Expiry};
use crate::exchange::Exchange;
use crate::observe::metrics::CoreMetrics;
use crate::rt::{Buffer, Stream};

/// A connection that a client has made.
pub(crate) struct Client {
    /// Dropped before the stream, whose descriptor it watches.
    pub(crate) deadline: Deadline,
    pub(crate) stream: Stream,
    listener: usize,
    /// What upstreams are told of it.
    pub(crate) hop: Hop,
    /// Whether it has sent a request already.
    pub(crate) served: Cell<bool>,
    _open: Open,
}

impl Client {
    /// Takes in a connection that was accepted. `None`: the listener has as many as it may have.
    pub(crate) fn admit(core: &Core, stream: Stream, peer: SocketAddr, listener: usize) -> Option<Client> {
        let local = core.local();
        let config = &local.snapshot().listeners[listener];
        let open = Open::count(core, listener, config.limits.connections)?;
        Some(Client {
            deadline: core.deadlines.watch(stream.fd()),
            stream,
            listener,
            hop: config.hop(peer.ip()),
            served: Cell::new(false),
            _open: open,
        })
    }

    /// What its listener expects of it.
    pub(crate) fn listener<'l>(&self, local: &'l Local) -> &'l Listener {
        &local.snapshot().listeners[self.listener]
    }

    /// Writes all of a buffer, at least at the pace that is asked of clients.
    pub(crate) async fn write_all(
        &self,
        core: &Rc<Core>,
        exchange: &mut Exchange<'_>,
        mut buffer: Buffer,
    ) -> (io::Result<()>, Buffer) {
        while !buffer.is_empty() {
            let before = core.deadlines.now();
            let due = before.saturating_add(exchange.write_pace.patience()).saturating_add(1);
            self.deadline.set(exchange.bounded(due), Expiry::ShutBoth);
            let (result, returned) = self.stream.write(buffer).await;
            buffer = returned;
            match result {
                Ok(count) => exchange.write_pace.moved(count, core.deadlines.now() - before),
                Err(error) => return (Err(error), buffer),
            }
        }
        (Ok(()), buffer)
    }
}

/// Counts a connection as open until it is dropped.
struct Open {
    shared: Arc<Shared>,
    metrics: Arc<CoreMetrics>,
    listener: usize,
}

impl Open {
    fn count(core: &Core, listener: usize, limit: usize) -> Option<Open> {
        let count = &core.shared.connections[listener];
        if count.fetch_add(1, Ordering::Relaxed) >= limit {
            count.fetch_sub(1, Ordering::Relaxed);
            core.metrics.connections_refused.add(1);
            return None;
        }
        core.metrics.connections_open.add(1);
        Some(Open { shared: Arc::clone(&core.shared), metrics: Arc::clone(&core.metrics), listener })
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.shared.connections[self.listener].fetch_sub(1, Ordering::Relaxed);
        self.metrics.connections_open.sub(1);
    }
}
