//! What a request asks for where it may have to wait: how much it matters, and whom it is from.

use std::net::IpAddr;

use sluice_wire::head::{FieldLine, Request};

use super::Urgency;
use crate::snapshot::{FairBy, Route, RouteId, UrgencyFrom, Waiting};

/// Where the urgency of a request is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Its route says so.
    Route,
    /// It says so itself.
    Field,
    /// Nobody says anything that is believed.
    Default,
}

/// How much a request matters: what its route says, or else what it says itself, if its client is believed.
pub fn urgency(waiting: &Waiting, route: &Route, request: Request<'_>, is_trusted: bool) -> (Urgency, Source) {
    if let Some(urgency) = route.priority {
        return (urgency, Source::Route);
    }
    let said = waiting.priority.as_ref().filter(|from| is_trusted || !from.trusted_only).and_then(|from| {
        let value = field(request, &from.field)?;
        if from.field == UrgencyFrom::STANDARD { Urgency::read_parameter(value) } else { Urgency::read(value) }
    });
    said.map_or((Urgency::NORMAL, Source::Default), |urgency| (urgency, Source::Field))
}

/// Whom a request is from, as far as that matters for its turn. To be hashed with a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tenant<'r> {
    /// All are one.
    All,
    /// A client's address; of IPv6 the network that one client has, a /64.
    Client(IpAddr),
    /// A route.
    Route(RouteId),
    /// The value of a field. `None`: there is none.
    Field(Option<&'r [u8]>),
}

/// Whom a request from a client is from.
pub fn tenant<'r>(waiting: &Waiting, route: RouteId, request: Request<'r>, client: IpAddr) -> Tenant<'r> {
    match &waiting.fair_by {
        FairBy::Nobody => Tenant::All,
        FairBy::Client => Tenant::Client(network(client)),
        FairBy::Route => Tenant::Route(route),
        FairBy::Field(name) => Tenant::Field(field(request, name)),
    }
}

fn network(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => IpAddr::V6((address.to_bits() >> 64 << 64).into()),
    }
}

/// The value of the first line of this name, which is in lower case.
fn field<'r>(request: Request<'r>, name: &str) -> Option<&'r [u8]> {
    let is_it = |line: &&FieldLine| line.name_span.of(request.bytes).eq_ignore_ascii_case(name.as_bytes());
    request.head.fields.lines().iter().find(is_it).map(|line| line.value_span.of(request.bytes))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use sluice_wire::h1::parse::{self, HeadLimits, Progress};
    use sluice_wire::head::RequestHead;

    use super::*;

    fn route(priority: Option<Urgency>) -> Route {
        Route { priority, ..Route::bare() }
    }

    fn waiting(field: &str, trusted_only: bool, fair_by: FairBy) -> Waiting {
        let priority = Some(UrgencyFrom { field: field.to_owned(), trusted_only });
        Waiting { depth: 100, wait_max: Duration::from_secs(1), priority, fair_by }
    }

    fn with_request<T>(fields: &str, then: impl FnOnce(Request<'_>) -> T) -> T {
        let bytes = format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        let limits = HeadLimits { head_bytes: 4096, fields: 100, line_bytes: 4096 };
        let mut head = RequestHead::default();
        assert_eq!(parse::request(bytes.as_bytes(), &mut Progress::default(), limits, &mut head), Ok(true));
        then(Request { bytes: bytes.as_bytes(), head: &head })
    }

    #[test]
    fn a_route_outranks_what_a_request_says_of_itself() {
        let low = Urgency::LOW;
        let anybody = waiting("x-priority", false, FairBy::Nobody);
        let trusted = waiting("x-priority", true, FairBy::Nobody);
        let standard = waiting("priority", false, FairBy::Nobody);
        for (waiting, of_route, fields, is_trusted, expected) in [
            (&anybody, None, "", false, (Urgency::NORMAL, Source::Default)),
            (&anybody, None, "X-Priority: high\r\n", false, (Urgency::HIGH, Source::Field)),
            (&anybody, None, "X-Priority: 7\r\n", false, (Urgency::LEAST, Source::Field)),
            (&anybody, None, "X-Priority: best\r\n", false, (Urgency::NORMAL, Source::Default)),
            (&anybody, Some(low), "X-Priority: high\r\n", true, (low, Source::Route)),
            (&trusted, None, "X-Priority: high\r\n", false, (Urgency::NORMAL, Source::Default)),
            (&trusted, None, "X-Priority: high\r\n", true, (Urgency::HIGH, Source::Field)),
            (&standard, None, "Priority: u=1, i\r\n", false, (Urgency::HIGH, Source::Field)),
            (&standard, None, "Priority: high\r\n", false, (Urgency::NORMAL, Source::Default)),
        ] {
            let found = with_request(fields, |request| urgency(waiting, &route(of_route), request, is_trusted));
            assert_eq!(found, expected, "{fields:?}");
        }
    }

    #[test]
    fn a_client_of_ipv6_is_a_network() {
        let of = |client: &str| {
            let client = client.parse().expect("an address");
            with_request("", |request| {
                format!("{:?}", tenant(&waiting("a", false, FairBy::Client), RouteId(0), request, client))
            })
        };
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
    }

    #[test]
    fn a_field_that_is_missing_is_a_tenant_of_its_own() {
        let waiting = waiting("a", false, FairBy::Field("x-tenant".into()));
        let of = |fields: &str| {
            let client = IpAddr::from([127, 0, 0, 1]);
            with_request(fields, |request| format!("{:?}", tenant(&waiting, RouteId(0), request, client)))
        };
        assert_ne!(of(""), of("X-Tenant:\r\n"));
        assert_ne!(of("X-Tenant: a\r\n"), of("X-Tenant: b\r\n"));
        assert_eq!(of("X-Tenant: a\r\n"), of("x-tenant: a\r\n"));
    }
}
