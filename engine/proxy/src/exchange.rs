//! The facts of one request, filled in from left to right as they become known.

use std::rc::Rc;

use sluice_rules::failure::Failure;
use sluice_rules::snapshot::{Route, RouteId};
use sluice_wire::Version;
use sluice_wire::fields::ConnectionOptions;
use sluice_wire::h1::body::Framing;

use crate::conn::Client;
use crate::core::{Core, Local};
use crate::deadline::Pace;
use crate::upload::{Incoming, Upload};
use crate::wheel::Tick;

/// What is known of one request and its response.
pub(crate) struct Exchange<'c> {
    pub(crate) client: &'c Client,
    /// The configuration that it began with and keeps.
    pub(crate) local: Rc<Local>,
    pub(crate) version: Version,
    pub(crate) is_head: bool,
    /// What the client's `Connection` says.
    pub(crate) connection: ConnectionOptions,
    /// Whether the client waits for a 100 before it sends its content.
    pub(crate) expects_continue: bool,
    /// The protocol that the client asks to upgrade to, if its route allows it.
    pub(crate) upgrade: Option<String>,
    /// Whether the connection to the client may carry a further request.
    pub(crate) keep_alive: bool,
    pub(crate) framing: Framing,
    /// Content that has arrived with the head, all of it: bytes of the buffer behind the head.
    pub(crate) buffered_bytes: usize,
    /// Content that is still to come.
    pub(crate) incoming: Option<Incoming>,
    pub(crate) route: Option<RouteId>,
    /// How fast the client takes the response.
    pub(crate) write_pace: Pace,
    /// When all of it has to be over.
    pub(crate) due: Option<Tick>,
    pub(crate) attempts: u32,
    /// What `Max-Forwards` is sent on.
    pub(crate) max_forwards: Option<u64>,
    /// The rest of a request whose upstream has failed.
    pub(crate) orphan: Option<Upload>,
}

impl<'c> Exchange<'c> {
    pub(crate) fn open(core: &Core, client: &'c Client) -> Self {
        let local = client.local(core);
        let listener = client.listener(&local);
        let write_pace = Pace::new(listener.timeouts.write, listener.limits.rate_min);
        Exchange {
            client,
            write_pace,
            local,
            version: Version::Http11,
            is_head: false,
            connection: ConnectionOptions::default(),
            expects_continue: false,
            upgrade: None,
            keep_alive: false,
            framing: Framing::Empty,
            buffered_bytes: 0,
            incoming: None,
            route: None,
            due: None,
            attempts: 0,
            max_forwards: None,
            orphan: None,
        }
    }

    /// The route that was found.
    pub(crate) fn route(&self) -> Option<&Route> {
        self.route.map(|route| self.local.snapshot().route(route))
    }

    /// Holds content that is still to come to what its route allows.
    pub(crate) fn limit_content(&mut self, limit_bytes: u64, trailers: &[String]) {
        if let Some(incoming) = &mut self.incoming {
            incoming.limit_bytes = limit_bytes;
            incoming.trailers = trailers.to_vec();
        }
    }

    /// When a wait that may last until `due` ends: the route may want an end before that.
    pub(crate) fn bounded(&self, due: Tick) -> Tick {
        self.due.map_or(due, |whole| due.min(whole))
    }

    /// Counts how it ended.
    pub(crate) fn close(&self, core: &Core, status: u16, failure: Option<Failure>) {
        core.metrics.responses[usize::from(status / 100).min(5)].add(1);
        if let Some(failure) = failure {
            core.metrics.failed(failure);
        }
    }
}
