//! Fetching an object from its origin, for all who want it: a task of its own, so that it neither ends nor slows down
//! with the client who asked first.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use sluice_rules::cache::lookup::{self, After, Asked, Origin};
use sluice_rules::cache::storable::NotStored;
use sluice_rules::cache::{Moment, Times as CacheTimes, conditional};
use sluice_rules::failure::Failure;
use sluice_rules::snapshot::UpstreamId;
use sluice_wire::head::ResponseHead;

use crate::conn::Client;
use crate::core::{Core, Scratch, ScratchGuard};
use crate::exchange::{Attempted, Detached, Exchange, Filling};
use crate::observe;
use crate::rt::{self, Buffer, SMALL};
use crate::upstream::{self, UpstreamResponse};

use super::fill::{End, Fill};
use super::object::Object;
use super::receive::{LOOKS_MAX, Task};
use super::step::Lookup;

/// How long it is remembered that responses to a key are not stored.
pub(super) const PASS_MILLIS: u64 = 10_000;

/// A response that turned out to be for the client alone who asked first.
pub(super) struct Handed {
    pub(super) response: UpstreamResponse,
    pub(super) head: ResponseHead,
    /// Why it is not for others.
    pub(super) why: Option<NotStored>,
}

/// What the task hands to the request that has started it.
#[derive(Default)]
pub(super) struct Handover {
    pub(super) response: Cell<Option<Box<Handed>>>,
    /// What is known of how the origin was asked.
    pub(super) told: Cell<Option<Attempted>>,
}

/// An object that is about to be fetched.
pub(super) struct Fetch {
    core: Rc<Core>,
    client: Client,
    input: Buffer,
    scratch: ScratchGuard,
    like: Detached,
    fill: Arc<Fill>,
    asked: Asked,
    hash: u128,
    /// What is confirmed, if it still holds.
    stored: Option<Arc<Object>>,
    handover: Option<Rc<Handover>>,
    upstream: UpstreamId,
}

impl Fetch {
    /// Prepares to fetch what `exchange` asks for. `None`: there is no buffer for it, and the fill has ended.
    #[expect(clippy::too_many_arguments, reason = "each is another part of the exchange")]
    pub(super) fn new(
        core: &Rc<Core>,
        exchange: &Exchange<'_>,
        scratch: &Scratch,
        input: &Buffer,
        lookup: &Lookup,
        fill: &Arc<Fill>,
        stored: Option<Arc<Object>>,
        handover: Option<Rc<Handover>>,
        upstream: UpstreamId,
    ) -> Option<Fetch> {
        let mut own = core.scratch();
        own.request.clone_from(&scratch.request);
        own.target.clone_from(&scratch.target);
        own.authority.clone_from(&scratch.authority);
        own.rewritten.clone_from(&scratch.rewritten);
        own.key.clone_from(&scratch.key);
        let bytes = &input.filled()[..scratch.request.length + exchange.buffered_bytes];
        let buffer = if bytes.len() > SMALL { core.buffers.take_large() } else { core.buffers.take() };
        let buffer = buffer.and_then(|mut buffer| buffer.append(bytes).then_some(buffer));
        let Some(buffer) = buffer else {
            core.shared.cache.abandon(fill, None, lookup.now);
            core.ring(fill.end(End::Failed(Failure::OutOfMemory)), fill);
            return None;
        };
        Some(Fetch {
            core: Rc::clone(core),
            client: Client::of_gateway(core, exchange.client),
            input: buffer,
            scratch: own,
            like: exchange.detached(),
            fill: Arc::clone(fill),
            asked: lookup.asked,
            hash: lookup.hash,
            stored,
            handover,
            upstream,
        })
    }

    /// Fetches, in a task of its own.
    pub(super) fn start(self) {
        let guard = EndOnDrop { core: Rc::clone(&self.core), fill: Arc::clone(&self.fill) };
        rt::spawn(async move {
            let guard = guard;
            self.run().await;
            drop(guard);
        });
    }

    async fn run(self) {
        let Fetch { core, client, input, mut scratch, like, fill, asked, hash, stored, handover, upstream } = self;
        let core = &core;
        let local = Rc::clone(like.local());
        let policy = like.route().and_then(|route| local.snapshot().route(route).cache.as_ref());
        let Some(policy) = policy else { return };
        let mut exchange = Exchange::of_gateway(core, &client, like);
        let mut validation = Vec::new();
        if let Some(stored) = &stored {
            conditional::validation([(&stored.facts, stored.head())], &mut validation);
        }
        exchange.fills = Some(Filling { fill: Arc::clone(&fill), validation });
        let sent = core.moment(core.clock.now());
        let outcome = Box::pin(upstream::send(core, &mut exchange, &mut scratch, &input, upstream)).await;
        let received = core.moment(core.clock.now());
        let times = CacheTimes { asked: sent, received, wall: core.wall_seconds() };
        if let Some(handover) = &handover {
            handover.told.set(Some(exchange.attempted()));
        }
        if handover.is_none() {
            observe::fetched(core, &local, &mut exchange, outcome.is_ok().then_some(scratch.response.status));
        }
        let origin = if outcome.is_ok() { Origin::Status(scratch.response.status) } else { Origin::Failed };
        let scheme = client.hop.scheme();
        let task = Task {
            core,
            policy,
            fill: &fill,
            asked,
            hash,
            times,
            local: &local,
            scheme,
            looks_left: Cell::new(LOOKS_MAX),
        };
        if let Some(stored) = &stored {
            match lookup::after(&asked, &stored.facts_now(), origin, received) {
                After::Freshen => {
                    if let Ok(response) = outcome {
                        task.freshen(stored, &scratch, &input, response).await;
                    }
                    return;
                }
                After::Serve(_) => {
                    drop(outcome);
                    return task.end_without(End::Stale(Arc::clone(stored), origin));
                }
                After::Deliver => {}
            }
        }
        let response = match outcome {
            Ok(response) => response,
            // Each follower may take what is stored for itself.
            Err(failure) => {
                let end = match &stored {
                    Some(stored) if handover.is_none() => End::Stale(Arc::clone(stored), Origin::Failed),
                    _ => End::Failed(failure),
                };
                return task.end_without(end);
            }
        };
        match task.judge(&scratch, &response) {
            Ok(storable) => task.pass_on(&mut exchange, scratch, input, storable, response).await,
            Err(why) => {
                let until = why.lasts().then(|| received.after(PASS_MILLIS));
                core.shared.cache.abandon(&fill, until, received);
                let head = std::mem::take(&mut scratch.response);
                match handover.filter(|handover| Rc::strong_count(handover) > 1) {
                    Some(handover) => {
                        handover.response.set(Some(Box::new(Handed { response, head, why: Some(why) })));
                    }
                    None => drop(response),
                }
                core.ring(fill.end(End::Released), &fill);
            }
        }
    }
}

/// Lets nobody wait for a task that has panicked.
struct EndOnDrop {
    core: Rc<Core>,
    fill: Arc<Fill>,
}

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        if !self.fill.has_ended() {
            self.core.shared.cache.abandon(&self.fill, None, Moment::default());
            self.core.ring(self.fill.end(End::Failed(Failure::Internal)), &self.fill);
        }
    }
}
