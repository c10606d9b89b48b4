//! What the gateway says about itself: one record of each request, from which logs and figures are made.

pub(crate) mod access;
pub(crate) mod clock;
pub(crate) mod diagnostics;
mod histogram;
mod line;
pub(crate) mod metrics;
pub(crate) mod prometheus;
pub(crate) mod record;
pub(crate) mod series;

use sluice_rules::access::USER_AGENT;
use sluice_rules::protection::Subject;
use sluice_rules::traffic::{self, Tally};

use crate::core::{Core, Local};
use crate::exchange::Exchange;
pub(crate) use histogram::DURATION_BOUNDS;
use histogram::{OVERHEAD_BOUNDS, SIZE_BOUNDS};
use record::{Phase, Record};
use series::{class_index, method_index};

/// Has it known who asks for what.
fn seen(core: &Core, record: &Record<'_>) {
    let target = record.request.map_or(&[][..], |request| request.target());
    let path = target.split(|byte| *byte == b'?').next().unwrap_or_default();
    let user_agent = record.request.and_then(|request| request.head.fields.values_of(request.bytes, USER_AGENT).next());
    core.seen(&traffic::Request {
        client: Subject::of(record.client_ip),
        path,
        user_agent: user_agent.unwrap_or_default(),
        tally: Tally::of(record.status, record.failure),
    });
}

/// Takes in what has happened to a request.
pub(crate) fn ended(core: &Core, local: &Local, record: &Record<'_>) {
    let metrics = &core.metrics;
    if let Some(config) = &local.snapshot().log.access {
        core.access.log(&core.clock, metrics, config, record);
    }
    if local.snapshot().protection.is_some() {
        seen(core, record);
    }
    let class = class_index(record.status);
    metrics.responses[class].add(1);
    metrics.overheads.record(&OVERHEAD_BOUNDS, record.times.gateway());
    if let Some(failure) = record.failure {
        metrics.failed(failure);
    }
    let method = method_index(record.request.map_or(&[], |request| request.head.method.of(request.bytes)));
    let route = local.series().route(record.route, core.index);
    route.durations[method][class].made().record(&DURATION_BOUNDS, record.times.total());
    route.request_content.record(&SIZE_BOUNDS, record.bytes.request_content);
    route.response_content.record(&SIZE_BOUNDS, record.bytes.response_content);
    if let Some(note) = &record.cache {
        let cache = route.cache();
        cache.outcomes[note.index()].add(1);
        cache.collapsed.add(u64::from(note.collapsed));
        cache.saved_millis.add(u64::from(note.saved_millis));
    }
    if let Some(destination) = record.destination.filter(|_| record.phase != Phase::Queue) {
        // Without a first byte there was no response of the upstream's.
        let class = record.times.first_byte.map_or(0, |_| class);
        let upstream = local.series().upstream(destination.upstream, core.index);
        upstream.durations[class].made().record(&DURATION_BOUNDS, record.times.upstream());
    }
}

/// Takes in what has happened to a request that the gateway has sent for itself. `status`: there was a response.
pub(crate) fn fetched(core: &Core, local: &Local, exchange: &mut Exchange<'_>, status: Option<u16>) {
    exchange.times.ended = core.clock.now();
    if let Some(destination) = exchange.destination {
        let upstream = local.series().upstream(destination.upstream, core.index);
        let class = status.map_or(0, class_index);
        upstream.durations[class].made().record(&DURATION_BOUNDS, exchange.times.upstream());
    }
}
