//! A response on its way into the store: shown to all who follow as it comes, and stored once it is whole.

use std::cell::Cell;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use sluice_rules::cache::conditional;
use sluice_rules::cache::lookup::Asked;
use sluice_rules::cache::storable::{self, NotStored, Storable};
use sluice_rules::cache::{Times as CacheTimes, stored, tags};
use sluice_rules::failure::Failure;
use sluice_rules::snapshot::CachePolicy;
use sluice_wire::h1::body::Framing;
use sluice_wire::head::{Request, Response as ResponseView};

use crate::conn::response;
use crate::core::{Core, Local, Scratch, ScratchGuard};
use crate::deadline::Expiry;
use crate::exchange::Exchange;
use crate::rt::{Buffer, SMALL};
use crate::upstream::UpstreamResponse;

use super::account::{Charge, Segment};
use super::fetch::PASS_MILLIS;
use super::fill::{End, Fill};
use super::index::Waiter;
use super::object::{Object, Parts};

/// Bytes of an object that is not kept that the fastest follower may be ahead of the slowest.
const HELD_BYTES: u64 = 512 * 1024;

/// Segments of a stored body are at least this long on average, or they are joined.
const SEGMENT_BYTES_MIN: usize = 8 * 1024;

/// Segments that small ones are joined to.
const SEGMENT_BYTES: usize = 128 * 1024;

/// How long the slowest follower of an object that is not kept is waited for, in looks of a tenth of a second or more.
pub(super) const LOOKS_MAX: u32 = 50;

/// A fetch whose response has come.
pub(super) struct Task<'t> {
    pub(super) core: &'t Rc<Core>,
    pub(super) policy: &'t CachePolicy,
    pub(super) fill: &'t Arc<Fill>,
    pub(super) asked: Asked,
    pub(super) hash: u128,
    pub(super) times: CacheTimes,
    pub(super) local: &'t Local,
    pub(super) scheme: &'static str,
    /// How often it still waits for the slowest of several followers.
    pub(super) looks_left: Cell<u32>,
}

impl Task<'_> {
    /// Nothing is stored.
    pub(super) fn end_without(&self, end: End) {
        self.core.shared.cache.abandon(self.fill, None, self.times.received);
        self.core.ring(self.fill.end(end), self.fill);
    }

    /// Bytes of the content of a stored response.
    fn object_bytes_max(&self) -> u64 {
        self.policy.object_bytes_max.unwrap_or(self.local.snapshot().cache.object_bytes_max)
    }

    /// Whether the response may be stored.
    pub(super) fn judge(&self, scratch: &Scratch, response: &UpstreamResponse) -> Result<Storable, NotStored> {
        let view = ResponseView { bytes: response.buffer.filled(), head: &scratch.response };
        let storable = storable::judge(self.policy, &self.asked, view, self.times, self.core.random() as u32)?;
        match response.framing {
            Framing::Length(length) if length > self.object_bytes_max() => Err(NotStored::TooLarge),
            Framing::Length(_) | Framing::Empty | Framing::Chunked | Framing::UntilClose => Ok(storable),
        }
    }

    /// What is stored still holds: its head is made anew.
    pub(super) async fn freshen(
        &self,
        before: &Arc<Object>,
        scratch: &Scratch,
        input: &Buffer,
        response: UpstreamResponse,
    ) {
        let core = self.core;
        let view = ResponseView { bytes: response.buffer.filled(), head: &scratch.response };
        if conditional::confirmed(view, [(&before.facts, before.head())], self.times.wall).is_empty() {
            // It is about something else than what was asked about: all that is left is to ask for the whole.
            core.shared.cache.remove(self.hash, |other| std::ptr::eq(other, &**before));
            drop(response);
            return self.end_without(End::Released);
        }
        let parsed = stored::parse(before.head());
        let merged = parsed.as_ref().and_then(|parsed| {
            let own = ResponseView { bytes: before.head(), head: parsed };
            stored::freshen(self.policy, own, view, self.times.wall)
        });
        let random = core.random() as u32;
        let storable = merged.map(|merged| {
            storable::judge_merged(self.policy, &self.asked, &merged, view, self.times, random).map_err(|_| merged)
        });
        let reusable = response::is_reusable(view, response.framing);
        let object = match storable {
            Some(Ok(storable)) => {
                let segments = before.segments(&core.shared.cache.account);
                segments.and_then(|segments| self.object(scratch, input, &storable, Some(segments)))
            }
            Some(Err(_)) | None => None,
        };
        response::finish_unwatched(core, response, reusable, self.local).await;
        let Some(object) = object else {
            // It holds, and there is no room for its new head, or it must not be stored any longer.
            core.shared.cache.remove(self.hash, |other| std::ptr::eq(other, &**before));
            return self.end_without(End::Stored(Arc::clone(before)));
        };
        let replaces = |other: &Object| std::ptr::eq(other, &**before);
        if core.shared.cache.put(self.fill, Arc::clone(&object), self.times.received, replaces) {
            core.cache.insert(Arc::clone(&object));
        }
        core.take_word();
        core.ring(self.fill.end(End::Stored(object)), self.fill);
    }

    /// Room for something, for which others may have to go.
    fn charge(&self, bytes: u64) -> Option<Charge> {
        let store = &self.core.shared.cache;
        store.charge(self.hash, bytes).or_else(|| {
            // What has gone may have been held by this core alone.
            self.core.take_word();
            store.account.charge(bytes)
        })
    }

    /// An object of the response: with its body, or for those who follow it.
    fn object(
        &self,
        scratch: &Scratch,
        input: &Buffer,
        storable: &Storable,
        body: Option<Vec<Arc<Segment>>>,
    ) -> Option<Arc<Object>> {
        let store = &self.core.shared.cache;
        let request = Request { bytes: input.filled(), head: &scratch.request };
        let mut secondary = Vec::new();
        storable.selecting.write(request, &mut secondary);
        let parsed = stored::parse(&storable.head)?;
        let view = ResponseView { bytes: &storable.head, head: &parsed };
        let tags: Vec<u64> = tags::of(self.policy, view).iter().map(|tag| store.purges.tag(tag)).collect();
        let (scheme, authority) = (self.scheme, scratch.authority.as_str());
        let url = format!("{scheme}://{authority}{}", scratch.target.as_str());
        let selecting = (!storable.selecting.is_empty()).then(|| Arc::new(storable.selecting.clone()));
        let parts = Parts {
            hash: self.hash,
            key: &scratch.key,
            url: &url,
            tags: &tags,
            selecting,
            secondary: &secondary,
            head: &storable.head,
            facts: storable.facts,
            generation: self.fill.generation,
            fetched_millis: u32::try_from(self.times.received.since(self.times.asked)).unwrap_or(u32::MAX),
        };
        match body {
            Some(segments) => {
                let charge = self.charge(Object::charged_bytes(&parts, &segments))?;
                Object::new(&parts, segments, charge)
            }
            // It lives as long as the fill.
            None => Object::new(&parts, Vec::new(), Charge::none(&store.account)),
        }
    }

    /// Stores the response while it is passed on to all who follow.
    pub(super) async fn pass_on(
        &self,
        exchange: &mut Exchange<'_>,
        scratch: ScratchGuard,
        input: Buffer,
        storable: Storable,
        response: UpstreamResponse,
    ) {
        let core = self.core;
        let Some(head) = self.object(&scratch, &input, &storable, None) else {
            return self.end_without(End::Failed(Failure::Internal));
        };
        let length = match response.framing {
            Framing::Length(length) => Some(length),
            Framing::Empty => Some(0),
            Framing::Chunked | Framing::UntilClose => None,
        };
        core.ring(self.fill.begin(head, length), self.fill);
        let view = ResponseView { bytes: response.buffer.filled(), head: &scratch.response };
        let reusable = response::is_reusable(view, response.framing);
        let head_bytes = scratch.response.length;
        let (response, failure, is_kept) = self.receive(exchange, response, head_bytes).await;
        if let Some(failure) = failure {
            response.leg.link.deadline().end();
            return self.end_without(End::Failed(failure));
        }
        response::finish_unwatched(core, response, reusable, self.local).await;
        let segments = if is_kept { self.fill.segments() } else { None };
        let object =
            segments.and_then(|segments| self.object(&scratch, &input, &storable, Some(self.joined(segments))));
        match object {
            Some(object) => {
                let request = Request { bytes: input.filled(), head: &scratch.request };
                let replaces = |other: &Object| {
                    other.key() == scratch.key.as_slice()
                        && other.selecting().is_none_or(|selecting| {
                            let mut secondary = Vec::new();
                            selecting.write(request, &mut secondary);
                            secondary == other.secondary()
                        })
                };
                let is_in = core.shared.cache.put(self.fill, Arc::clone(&object), self.times.received, replaces);
                if is_in {
                    core.cache.insert(object);
                }
            }
            None => core.shared.cache.abandon(self.fill, None, self.times.received),
        }
        core.take_word();
        core.ring(self.fill.end(End::Whole), self.fill);
    }

    /// Takes the content as it comes. Returns why it has not all come, and whether all of it is held.
    async fn receive(
        &self,
        exchange: &mut Exchange<'_>,
        mut response: UpstreamResponse,
        head_bytes: usize,
    ) -> (UpstreamResponse, Option<Failure>, bool) {
        let core = self.core;
        let local = Rc::clone(&exchange.local);
        let upstream = local.snapshot().upstream(response.leg.upstream);
        let UpstreamResponse { mut buffer, framing, mut content, leg } = response;
        buffer.consume(head_bytes);
        let mut failure = content.decode(&mut buffer).err().map(Failure::ResponseChunk);
        let (mut is_kept, mut is_abandoned, mut total) = (true, false, 0u64);
        while failure.is_none() {
            total = total.saturating_add(buffer.len() as u64);
            is_kept &= total <= self.object_bytes_max();
            if !buffer.is_empty() {
                let was_kept = is_kept && !is_abandoned;
                is_kept &= self.push(buffer.filled(), is_kept).await;
                if was_kept && !is_kept {
                    // Who comes now would not get its beginning.
                    is_abandoned = true;
                    let now = core.moment(core.clock.now());
                    core.shared.cache.abandon(self.fill, Some(now.after(PASS_MILLIS)), now);
                }
            }
            if content.ended() {
                break;
            }
            if !is_kept && self.fill.followers() == 0 {
                // Nobody wants it, and it is not kept.
                failure = Some(Failure::ClientGone);
                break;
            }
            let is_bulk = buffer.len() >= SMALL;
            leg.link.deadline().set(exchange.bounded(core.deadlines.after(upstream.timeouts.idle)), Expiry::ShutBoth);
            if is_bulk {
                buffer = core.buffers.take_large().unwrap_or(buffer);
            }
            let (received, returned) = content.read(buffer).await;
            buffer = returned;
            failure = response::cut_short(&leg, &received, &content);
        }
        response = UpstreamResponse { buffer, framing, content, leg };
        (response, failure, is_kept)
    }

    /// Shows a part of the content to who follows. Returns whether all of it can be kept.
    async fn push(&self, content: &[u8], is_kept: bool) -> bool {
        let core = self.core;
        let charge = if is_kept { self.charge(Segment::charged_bytes(content.len())) } else { None };
        let is_kept = charge.is_some();
        let charge = match charge {
            Some(charge) => charge,
            None => {
                self.let_them_catch_up().await;
                Charge::none(&core.shared.cache.account)
            }
        };
        let segment = Segment::new(content, charge);
        let held = if is_kept { u64::MAX } else { HELD_BYTES };
        core.ring(self.fill.push(segment, held), self.fill);
        is_kept
    }

    /// Waits for the slowest follower of an object that is not kept: for as long as it takes, if it is the only one,
    /// who has its own time to read. With others the fill as a whole waits for [`LOOKS_MAX`], and then the slow lose.
    async fn let_them_catch_up(&self) {
        let waiter = Rc::new(Waiter::default());
        loop {
            if self.fill.followers() > 1 {
                match self.looks_left.get().checked_sub(1) {
                    Some(left) => self.looks_left.set(left),
                    None => return,
                }
            }
            let deadline = self.core.deadlines.waits();
            deadline.set_after(Duration::from_millis(100), Expiry::Wake);
            let keeps_up = poll_fn(|context| {
                if self.fill.is_kept_up_with(HELD_BYTES / 2, self.core.index) {
                    return Poll::Ready(true);
                }
                if deadline.poll_over(context) {
                    return Poll::Ready(false);
                }
                self.core.cache.wait(self.fill, &waiter, context.waker());
                Poll::Pending
            });
            if keeps_up.await {
                return;
            }
        }
    }

    /// Small segments as larger ones: each has a price of its own.
    fn joined(&self, segments: Vec<Arc<Segment>>) -> Vec<Arc<Segment>> {
        let bytes: usize = segments.iter().map(|segment| segment.bytes().len()).sum();
        if segments.len() <= 1 || bytes / segments.len() >= SEGMENT_BYTES_MIN {
            return segments;
        }
        let mut joined = Vec::new();
        let mut current = Vec::with_capacity(bytes.min(SEGMENT_BYTES));
        let flush = |current: &mut Vec<u8>, joined: &mut Vec<Arc<Segment>>| -> Option<()> {
            let charge = self.charge(Segment::charged_bytes(current.len()))?;
            joined.push(Segment::new(current, charge));
            current.clear();
            Some(())
        };
        for segment in &segments {
            current.extend_from_slice(segment.bytes());
            if current.len() >= SEGMENT_BYTES && flush(&mut current, &mut joined).is_none() {
                return segments;
            }
        }
        if !current.is_empty() && flush(&mut current, &mut joined).is_none() {
            return segments;
        }
        joined
    }
}
