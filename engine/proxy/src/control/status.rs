//! What the gateway says of itself: `/api/status`, and what is counted of reloads.

use std::fmt::Write;
use std::time::Duration;

use serde_json::{Value, json};

use super::Control;
use crate::observe::metrics::CoreMetrics;
use crate::observe::prometheus::{self, Sources};

/// The time since a core's last beat.
fn since_beat(control: &Control, core: &CoreMetrics) -> Duration {
    control.shared.started.elapsed().saturating_sub(Duration::from_millis(core.last_tick.get()))
}

/// The longest time since any core's last beat.
pub(super) fn slowest_beat(control: &Control) -> Duration {
    control.metrics.iter().map(|core| since_beat(control, core)).max().unwrap_or_default()
}

/// The whole state in JSON.
pub(super) fn status(control: &Control) -> Value {
    let current = control.shared.published.current();
    let snapshot = &current.snapshot;
    let reloads: serde_json::Map<String, Value> =
        control.reloads.all().into_iter().map(|(outcome, count)| (outcome.to_owned(), json!(count))).collect();
    let cores = control.metrics.iter().enumerate().map(|(index, core)| {
        json!({
            "core": index,
            "last-beat-seconds": since_beat(control, core).as_secs_f64(),
            "generation": core.generation.get(),
            "connections": core.connections_open.get(),
            "requests": core.requests.get(),
        })
    });
    let listeners = snapshot.listeners.iter().zip(&current.doors).map(|(listener, door)| {
        json!({
            "name": listener.name,
            "address": door.address.to_string(),
            "accepting": !door.is_closing(),
            "connections": door.connections(),
        })
    });
    let upstreams = snapshot.upstreams.iter().zip(&current.addresses).map(|(upstream, addresses)| {
        let endpoints: Vec<String> = addresses.iter().map(|address| address.socket.to_string()).collect();
        let down = addresses.iter().filter(|address| !address.is_up).map(|address| address.socket.to_string());
        json!({ "name": upstream.name, "endpoints": endpoints, "down": down.collect::<Vec<_>>() })
    });
    let limits = control.shared.accounts.get().map(|accounts| {
        let (used, cells) = accounts.used();
        json!({ "bytes": accounts.table.bytes(), "keys": used, "cells": cells, "crowded": accounts.table.crowded() })
    });
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "state": if control.is_draining() { "draining" } else { "serving" },
        "uptime-seconds": control.shared.started.elapsed().as_secs_f64(),
        "driver": control.driver,
        "configuration": current.configuration,
        "generation": current.generation,
        "reloads": reloads,
        "connections": control.metrics.iter().map(|core| core.connections_open.get()).sum::<u64>(),
        "cores": cores.collect::<Vec<_>>(),
        "listeners": listeners.collect::<Vec<_>>(),
        "upstreams": upstreams.collect::<Vec<_>>(),
        "limits": limits,
    })
}

/// What cores have counted, in Prometheus' text form.
pub(super) fn figures(control: &Control) -> String {
    let publication = control.shared.published.current();
    prometheus::render(&Sources {
        cores: &control.metrics,
        series: &publication.series,
        upstreams: &publication.snapshot.upstreams,
        permits: &publication.permits,
        diagnostics_dropped: control.shared.diagnostics.dropped(),
        driver: &control.driver,
        configuration: publication.configuration,
        listeners: &publication.snapshot.listeners,
        tls: &publication.tls,
        accounts: control.shared.accounts.get().map(|accounts| &accounts.table),
        cache: Some(&control.shared.cache),
    })
}

/// How reloads ended, in Prometheus' text form.
pub(super) fn reload_metrics(control: &Control) -> String {
    let name = "sluice_config_reloads_total";
    let mut out = format!("# HELP {name} Reloads of the configuration by outcome.\n# TYPE {name} counter\n");
    for (outcome, count) in control.reloads.all() {
        let _ = writeln!(out, "{name}{{outcome=\"{outcome}\"}} {count}");
    }
    let name = "sluice_tls_certificate_reloads_total";
    let help = "Certificates and ticket keys that were read again since they had changed, by outcome.";
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} counter");
    for (outcome, count) in control.renewals.all() {
        let _ = writeln!(out, "{name}{{outcome=\"{outcome}\"}} {count}");
    }
    let name = "sluice_access_list_reloads_total";
    let help = "Files of access lists that were read again since they had changed, by outcome.";
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} counter");
    for (outcome, count) in control.list_renewals.all() {
        let _ = writeln!(out, "{name}{{outcome=\"{outcome}\"}} {count}");
    }
    out + &control.checks.metrics()
}
