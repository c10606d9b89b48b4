//! An upgraded connection: bytes both ways until both sides are done.

use std::cell::Cell;
use std::net::Shutdown;
use std::rc::Rc;
use std::time::Duration;

use crate::core::Core;
use crate::deadline::{Deadline, Expiry};
use crate::exchange::Exchange;
use crate::rt::{self, Buffer};
use crate::transport::Transport;
use crate::upstream::pool::Connection;

/// Tells the client that the protocol is switched, and moves bytes until both sides have closed or nothing has
/// moved for `timeouts.tunnel`. `from_client` and `from_upstream` are what came behind the heads.
pub(super) async fn run(
    core: &Rc<Core>,
    exchange: &mut Exchange<'_>,
    connection: Connection,
    head: &[u8],
    from_client: &[u8],
    from_upstream: &[u8],
) {
    let Some(mut out) = core.buffers.take_large() else { return };
    if !(out.append(head) && out.append(from_upstream)) {
        return;
    }
    let client = exchange.client;
    if client.write_all(core, exchange, out).await.0.is_err() {
        return;
    }
    let idle = client.listener(&exchange.local).timeouts.tunnel;
    core.metrics.tunnels_open.add(1);
    let upstream = connection.stream.clone();
    let since = core.clock.now();
    let idle = Rc::new(Idle { core: Rc::clone(core), time: idle, upstream: Rc::clone(&connection.deadline) });
    idle.moved(&client.deadline);
    let mut first = None;
    if !from_client.is_empty() {
        first = core.buffers.take_large();
        if let Some(buffer) = &mut first {
            let fits = buffer.append(from_client);
            debug_assert!(fits, "it came in one buffer");
        }
    }
    let (received, sent) = (Cell::new(0), Cell::new(0));
    let to_upstream = pump(core, &client.stream, &upstream, &idle, &client.deadline, first, &received);
    let to_client = pump(core, &upstream, &client.stream, &idle, &client.deadline, None, &sent);
    rt::join(to_upstream, to_client).await;
    core.metrics.tunnels_open.sub(1);
    exchange.bytes.received += received.get();
    exchange.bytes.sent += sent.get();
    exchange.times.waited += core.clock.now() - since;
}

/// The time without a byte in either direction.
struct Idle {
    core: Rc<Core>,
    time: Duration,
    upstream: Rc<Deadline>,
}

impl Idle {
    fn moved(&self, client: &Deadline) {
        let due = self.core.deadlines.after(self.time);
        client.set(due, Expiry::ShutBoth);
        self.upstream.set(due, Expiry::ShutBoth);
    }
}

/// Moves bytes one way until the sender has closed its side, and passes that on. Holds no buffer while nothing
/// comes. An error ends both directions. Adds what it has moved to `moved`.
async fn pump(
    core: &Rc<Core>,
    from: &Transport,
    to: &Transport,
    idle: &Idle,
    client: &Deadline,
    mut first: Option<Buffer>,
    moved: &Cell<u64>,
) {
    loop {
        let buffer = match first.take() {
            Some(buffer) => buffer,
            None => {
                if from.readable().await.is_err() {
                    break;
                }
                let Some(buffer) = core.buffers.take() else {
                    // The bytes wait in the kernel; so do we.
                    rt::sleep(crate::deadline::TICK).await;
                    continue;
                };
                match from.read(buffer).await {
                    (Ok(0), _) => {
                        rt::shutdown(to.fd(), Shutdown::Write);
                        return;
                    }
                    (Ok(_), buffer) => buffer,
                    (Err(_), _) => break,
                }
            }
        };
        idle.moved(client);
        moved.set(moved.get() + buffer.len() as u64);
        if crate::body::write_all(to, buffer).await.0.is_err() {
            break;
        }
    }
    rt::reset_on_close(to.fd());
    rt::shutdown(from.fd(), Shutdown::Both);
    rt::shutdown(to.fd(), Shutdown::Both);
}
