//! The response cache: stored bodies once on the node, an index of them on each core.
//!
//! What may be stored and given is law (`sluice_rules::cache`); this is where it is kept and how it is moved. A request
//! comes in by `step.rs`. A hit is answered from the index of its core; a miss looks in the store of the node, and then
//! one task fetches (`fetch.rs`) what all who want the same follow (`fill.rs`, `follow.rs`).

mod account;
mod answer;
mod fetch;
mod fill;
mod follow;
mod index;
pub mod measure;
mod miss;
mod note;
mod object;
mod pass;
pub mod policy;
mod post;
mod purge;
mod receive;
mod step;
mod store;

pub(crate) use account::Segment;
pub(crate) use answer::{Answer, Cached, Filling, Source};
pub(crate) use fill::{End, Fill, Next, bit};
pub(crate) use follow::next;
pub(crate) use index::{Index, Indexed};
pub(crate) use note::{Note, WORDS};
pub(crate) use object::Object;
pub(crate) use post::Post;
pub(crate) use purge::{Manner, Purgeable};
pub(crate) use step::{asked, respond};
pub(crate) use store::Store;
