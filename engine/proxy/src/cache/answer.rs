//! A response that the cache gives: all of it, a part, or only that the client has it already.

use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

use sluice_rules::cache::Seconds;
use sluice_rules::cache::conditional::{self, Precondition};
use sluice_rules::cache::lookup::Asked;
use sluice_rules::cache::range::{self, Multipart, Selection};
use sluice_rules::cache::stored::{self, Facts};
use sluice_wire::head::{Request, Response as ResponseView};

use crate::core::Core;

use super::fill::Follower;
use super::follow::Waiting;
use super::index::Indexed;
use super::object::Object;

/// Where a response that the cache gives comes from.
pub(crate) enum Source {
    /// The index of the core.
    Stored(Rc<Indexed>),
    /// It is on its way; its head, and the length of its body if that is known.
    Fill(Box<Filling>),
}

/// A response on its way.
pub(crate) struct Filling {
    pub(crate) head: Arc<Object>,
    pub(crate) length: Option<u64>,
    pub(crate) follower: Follower,
    pub(crate) waiting: Waiting,
}

/// What of it the client gets.
pub(crate) enum Answer {
    Whole,
    NotModified,
    Part(Range<u64>),
    Parts(Box<Multipart>),
    Unsatisfiable,
}

/// A response that the cache gives.
pub(crate) struct Cached {
    pub(crate) source: Source,
    pub(crate) answer: Answer,
    pub(crate) age: Seconds,
}

impl Cached {
    /// The stored response.
    pub(crate) fn object(&self) -> &Object {
        match &self.source {
            Source::Stored(indexed) => indexed.object(),
            Source::Fill(filling) => &filling.head,
        }
    }
}

/// Decides what of a stored response a client gets.
pub(super) fn give(core: &Core, request: Request<'_>, asked: &Asked, stored: Rc<Indexed>, age: Seconds) -> Cached {
    let object = stored.object();
    let answer = if asked.is_conditional || asked.has_range {
        answer(core, request, asked, &object.facts, object.head(), Some(object.body_bytes()))
    } else {
        Answer::Whole
    };
    Cached { source: Source::Stored(stored), answer, age }
}

/// What of a response a client gets that has it already, or wants a part.
pub(super) fn answer(
    core: &Core,
    request: Request<'_>,
    asked: &Asked,
    facts: &Facts,
    head: &[u8],
    length: Option<u64>,
) -> Answer {
    let wall = core.wall_seconds();
    if asked.is_conditional && conditional::precondition(request, facts, head, wall) == Precondition::NotModified {
        return Answer::NotModified;
    }
    let Some(length) = length.filter(|_| asked.has_range) else { return Answer::Whole };
    match range::select(request, facts, head, length, wall) {
        Selection::Whole => Answer::Whole,
        Selection::One(range) => Answer::Part(range),
        Selection::Unsatisfiable => Answer::Unsatisfiable,
        Selection::Several(ranges) => {
            let parsed = stored::parse(head);
            let view = parsed.as_ref().map(|parsed| ResponseView { bytes: head, head: parsed });
            let random = u128::from(core.random()) << 64 | u128::from(core.random());
            Answer::Parts(Box::new(Multipart::new(ranges, length, view.and_then(stored::content_type), random)))
        }
    }
}
