//! A request that what is stored does not answer: it fetches, follows who fetches, or goes to the origin on its own.

use std::rc::Rc;
use std::sync::Arc;

use sluice_rules::cache::lookup::{self, After, Decision, Forward};
use sluice_rules::cache::status::Outcome;
use sluice_rules::failure::Failure;
use sluice_wire::head::Request;

use crate::conn::response;
use crate::core::{Core, Scratch};
use crate::exchange::Exchange;
use crate::respond::Response;
use crate::rt::Buffer;

use super::answer::{Cached, Filling, Source, answer, give};
use super::fetch::{Fetch, Handover};
use super::fill::{End, Fill, Follower, Known};
use super::follow::Waiting;
use super::note::Note;
use super::pass::{self, Passed};
use super::step::{Looked, look_up, selects};
use super::store::Begun;

/// How often a request looks again before it goes to the origin on its own: what it has followed was not for it.
const ROUNDS_MAX: u32 = 3;

/// A request that what is stored does not answer.
pub(super) struct Miss<'m> {
    pub(super) passed: Passed<'m>,
    pub(super) looked: Looked,
}

/// What came of following a fill.
#[expect(clippy::large_enum_variant, reason = "it is taken apart at once")]
enum Followed {
    Response(Response),
    /// It was not for this request.
    Again,
    /// It goes to the origin on its own.
    Alone,
}

impl Miss<'_> {
    /// Answers it by way of the origin.
    pub(super) async fn respond(
        mut self,
        core: &Rc<Core>,
        exchange: &mut Exchange<'_>,
        scratch: &mut Scratch,
        input: &Buffer,
        mut decision: Decision,
    ) -> Result<Response, Failure> {
        let mut rounds = 0;
        let mut last_failure = None;
        loop {
            let (why, validates) = match decision {
                Decision::GatewayTimeout => {
                    return Ok(pass::only_if_cached(exchange));
                }
                Decision::Fill(why) => (why, None),
                Decision::Validate(why) => (why, self.looked.stored.clone()),
                Decision::Pass(why) => {
                    return self.passed.alone(core, exchange, scratch, input, why).await;
                }
                Decision::Hit(hit) => {
                    let Some(stored) = self.looked.stored.clone() else { return Err(Failure::Internal) };
                    let request = Request { bytes: input.filled(), head: &scratch.request };
                    exchange.cache = Some(Note::new(Outcome::Hit(hit)));
                    let asked = &self.passed.lookup.asked;
                    return Ok(Response::Cached(give(core, request, asked, stored, hit.age)));
                }
            };
            rounds += 1;
            if rounds > ROUNDS_MAX {
                if let Some(failure) = last_failure {
                    exchange.cache = Some(Note::forwarded(why));
                    return Err(failure);
                }
                return self.passed.alone(core, exchange, scratch, input, why).await;
            }
            if self.looked.passes && validates.is_none() {
                return self.passed.alone(core, exchange, scratch, input, why).await;
            }
            let request = Request { bytes: input.filled(), head: &scratch.request };
            let joins = |fill: &Fill| {
                !fill.is_spoiled()
                    && fill.is_whole()
                    && fill.head().is_none_or(|head| {
                        head.key() == scratch.key.as_slice() && selects(&head, request, &mut Vec::new())
                    })
            };
            let followed = match core.shared.cache.begin(self.passed.lookup.hash, self.looked.insertions, joins) {
                Begun::Again => Ok(Followed::Again),
                Begun::Alone => Ok(Followed::Alone),
                Begun::Follow(fill) => self.follow(core, exchange, scratch, input, why, &fill, None).await,
                Begun::Lead(fill) => {
                    let handover = Rc::new(Handover::default());
                    let stored = validates.as_ref().map(|stored| Arc::clone(stored.object()));
                    let there = Some(Rc::clone(&handover));
                    let lookup = &self.passed.lookup;
                    let fetch =
                        Fetch::new(core, exchange, scratch, input, lookup, &fill, stored, there, self.passed.upstream)
                            .ok_or(Failure::OutOfMemory)?;
                    fetch.start();
                    self.follow(core, exchange, scratch, input, why, &fill, Some(handover)).await
                }
            };
            match followed {
                Ok(Followed::Response(response)) => return Ok(response),
                Ok(Followed::Alone) => return self.passed.alone(core, exchange, scratch, input, why).await,
                Ok(Followed::Again) => {}
                Err(failure) => {
                    let is_own = matches!(failure, Failure::ClientGone | Failure::OutOfMemory) || exchange.attempts > 0;
                    if is_own || exchange.due.is_some_and(|due| due <= core.deadlines.now()) {
                        return Err(failure);
                    }
                    last_failure = Some(failure);
                }
            }
            self.passed.lookup.now = core.moment(core.clock.now());
            self.looked = look_up(core, scratch, input, &self.passed.lookup);
            decision = self.looked.decide(&self.passed.lookup);
        }
    }

    /// Waits for what somebody fetches.
    #[expect(clippy::too_many_arguments, reason = "each is another part of the exchange")]
    async fn follow(
        &self,
        core: &Rc<Core>,
        exchange: &mut Exchange<'_>,
        scratch: &mut Scratch,
        input: &Buffer,
        why: Forward,
        fill: &Arc<Fill>,
        handover: Option<Rc<Handover>>,
    ) -> Result<Followed, Failure> {
        let Some(follower) = Follower::new(fill) else { return Ok(Followed::Alone) };
        let waiting = Waiting::new(core, exchange);
        let since = core.clock.now();
        let mut interim = 0;
        let known = loop {
            match waiting.head(core, fill, interim).await {
                Ok(Known::Interim(head)) => {
                    interim += 1;
                    response::pass_on(core, exchange, &head).await?;
                }
                known => break known,
            }
        };
        exchange.times.waited += core.clock.now() - since;
        let is_leader = handover.is_some();
        let told = handover.as_ref().and_then(|handover| handover.told.take());
        if let Some(told) = told {
            exchange.take_over(&told);
        }
        let mut note = Note { collapsed: !is_leader, ..Note::forwarded(why) };
        let request = Request { bytes: input.filled(), head: &scratch.request };
        let asked = &self.passed.lookup.asked;
        let now = core.moment(core.clock.now());
        exchange.cache = Some(note);
        match known? {
            Known::Interim(_) => Err(Failure::Internal),
            Known::Head(head, length) => {
                let is_for_it = head.key() == scratch.key.as_slice() && selects(&head, request, &mut Vec::new());
                if !is_for_it {
                    return Ok(Followed::Again);
                }
                note.stored = is_leader;
                note.ttl = Some(head.facts.ttl(now));
                exchange.cache = Some(note);
                let age = head.facts.age(now);
                // Parts are of what is stored; until then who wants one gets all (RFC 9110 §14.2).
                let answer = answer(core, request, asked, &head.facts, head.head(), None);
                let filling = Box::new(Filling { head, length, follower, waiting });
                Ok(Followed::Response(Response::Cached(Cached { source: Source::Fill(filling), answer, age })))
            }
            Known::End(End::Stored(object)) => {
                if object.key() != scratch.key.as_slice() || !selects(&object, request, &mut Vec::new()) {
                    return Ok(Followed::Again);
                }
                let facts = object.facts_now();
                note.outcome = Outcome::Forwarded { why, status: Some(304) };
                note.stored = is_leader;
                note.ttl = Some(facts.ttl(now));
                exchange.cache = Some(note);
                let stored = core.cache.lend(object);
                let age = facts.age(now);
                Ok(Followed::Response(Response::Cached(give(core, request, asked, stored, age))))
            }
            Known::End(End::Stale(object, origin)) => {
                let facts = object.facts_now();
                match lookup::after(asked, &facts, origin, now) {
                    After::Serve(hit) => {
                        exchange.cache = Some(Note { collapsed: !is_leader, ..Note::new(Outcome::Hit(hit)) });
                        let stored = core.cache.lend(object);
                        Ok(Followed::Response(Response::Cached(give(core, request, asked, stored, hit.age))))
                    }
                    After::Freshen | After::Deliver => Ok(Followed::Alone),
                }
            }
            Known::End(End::Released) => {
                let Some(handed) = handover.and_then(|handover| handover.response.take()) else {
                    return Ok(Followed::Alone);
                };
                note.detail = handed.why.map(|why| why.label());
                exchange.cache = Some(note);
                drop(waiting);
                let (mut response, head) = (handed.response, handed.head);
                scratch.response = head;
                response.leg.watch(core, exchange);
                Ok(Followed::Response(Response::Upstream(response)))
            }
            Known::End(End::Failed(failure)) => Err(failure),
            // Nothing is whole without a head.
            Known::End(End::Whole) => Err(Failure::Internal),
        }
    }
}
