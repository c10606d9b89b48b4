//! All figures in Prometheus' text form (version 0.0.4), put together by the control thread when somebody asks.
//!
//! What OpenTelemetry's semantic conventions have a name for is under that name; the rest begins with `sluice_`.

use std::collections::BTreeMap;
use std::fmt::{Display, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use sluice_rules::queue::Urgency;
use sluice_rules::snapshot::{Listener, Upstream};
use sluice_wire::h2::meter::Flood;

use crate::cache::{Store, WORDS};
use crate::limits::table::Table;
use crate::shield::Gate;
use crate::tls::accept::{Kind, Reason};
use crate::tls::server::Server;
use crate::upstream::permits::Permits;

use super::histogram::{DURATION_BOUNDS, Histogram, OVERHEAD_BOUNDS, SIZE_BOUNDS, Total};
use super::metrics::{CoreMetrics, Counter};
use super::series::{CLASSES, CacheSeries, LimitSeries, METHODS, QueueRefusal, SeriesTable};

/// Where the figures are found.
pub(crate) struct Sources<'a> {
    pub(crate) cores: &'a [Arc<CoreMetrics>],
    pub(crate) series: &'a SeriesTable,
    pub(crate) upstreams: &'a [Upstream],
    /// How many requests each of them may have.
    pub(crate) permits: &'a [Option<Arc<Permits>>],
    /// Messages of our own log that found no room.
    pub(crate) diagnostics_dropped: u64,
    pub(crate) driver: &'a str,
    /// Counts configurations.
    pub(crate) configuration: u64,
    pub(crate) listeners: &'a [Listener],
    /// How each of them is protected, if it is.
    pub(crate) tls: &'a [Option<Arc<Server>>],
    /// The accounts of limits, if there are any.
    pub(crate) accounts: Option<&'a Table>,
    /// The response cache.
    pub(crate) cache: Option<&'a Store>,
}

/// Nanoseconds in the unit that is told, which is seconds.
const NANOS: f64 = 1e9;

/// All of it.
pub(crate) fn render(sources: &Sources<'_>) -> String {
    let mut page = Page(String::with_capacity(64 * 1024));
    page.requests(sources);
    page.floods(sources);
    page.tls(sources);
    page.upstreams(sources);
    page.queues(sources);
    page.shed(sources);
    page.limits(sources);
    page.cache(sources);
    page.own(sources);
    page.0
}

struct Page(String);

impl Page {
    fn put(&mut self, arguments: std::fmt::Arguments<'_>) {
        // A string takes everything.
        let _ = self.0.write_fmt(arguments);
    }

    fn family(&mut self, name: &str, kind: &str, help: &str) {
        self.put(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
    }

    fn single(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.family(name, kind, help);
        self.put(format_args!("{name} {value}\n"));
    }

    /// A histogram's lines. `labels` are without braces, and `unit` is what one of `le` is worth.
    fn histogram<const N: usize>(&mut self, name: &str, labels: &str, bounds: &[u64; N], unit: f64, total: &Total<N>) {
        let comma = if labels.is_empty() { "" } else { "," };
        let mut sum = 0;
        for (bound, count) in bounds.iter().zip(total.counts) {
            sum += count;
            let le = *bound as f64 / unit;
            self.put(format_args!("{name}_bucket{{{labels}{comma}le=\"{le}\"}} {sum}\n"));
        }
        sum += total.beyond;
        self.put(format_args!("{name}_bucket{{{labels}{comma}le=\"+Inf\"}} {sum}\n"));
        let (open, close) = if labels.is_empty() { ("", "") } else { ("{", "}") };
        let value = total.sum as f64 / unit;
        self.put(format_args!("{name}_sum{open}{labels}{close} {value}\n{name}_count{open}{labels}{close} {sum}\n"));
    }

    /// Requests of clients, by route.
    fn requests(&mut self, sources: &Sources<'_>) {
        let active = sum(sources, |core| &core.requests_active);
        self.single("http_server_active_requests", "gauge", "Requests under way.", active);
        let name = "http_server_request_duration_seconds";
        self.family(name, "histogram", "Time from the first byte of a request to the last of its response.");
        for (route, cores) in &sources.series.routes {
            for (row, method) in METHODS.iter().enumerate() {
                for (column, class) in CLASSES.iter().enumerate() {
                    let counted = cores.all().filter_map(|core| core.durations[row][column].get());
                    let Some(total) = totalled(counted) else { continue };
                    let labels = format!(
                        "http_route=\"{}\",http_request_method=\"{method}\",http_response_status_class=\"{class}\"",
                        escaped(route)
                    );
                    self.histogram(name, &labels, &DURATION_BOUNDS, NANOS, &total);
                }
            }
        }
        let name = "http_server_request_body_size_bytes";
        self.family(name, "histogram", "Content of requests.");
        for (route, cores) in &sources.series.routes {
            let Some(total) = totalled(cores.all().map(|core| &core.request_content)) else { continue };
            self.histogram(name, &format!("http_route=\"{}\"", escaped(route)), &SIZE_BOUNDS, 1.0, &total);
        }
        let name = "http_server_response_body_size_bytes";
        self.family(name, "histogram", "Content of responses.");
        for (route, cores) in &sources.series.routes {
            let Some(total) = totalled(cores.all().map(|core| &core.response_content)) else { continue };
            self.histogram(name, &format!("http_route=\"{}\"", escaped(route)), &SIZE_BOUNDS, 1.0, &total);
        }
        let mut overheads = Total::default();
        sources.cores.iter().for_each(|core| overheads.add(&core.overheads));
        let name = "sluice_gateway_overhead_seconds";
        self.family(name, "histogram", "Time that the gateway itself added to requests.");
        self.histogram(name, "", &OVERHEAD_BOUNDS, NANOS, &overheads);
        let requests = sum(sources, |core| &core.requests);
        self.single("sluice_requests_total", "counter", "Requests whose head was read.", requests);
        let name = "sluice_responses_total";
        self.family(name, "counter", "Responses sent to clients by class of status.");
        for (index, class) in CLASSES.iter().enumerate().skip(1) {
            let count: u64 = sources.cores.iter().map(|core| core.responses[index].get()).sum();
            self.put(format_args!("{name}{{class=\"{class}\"}} {count}\n"));
        }
        let mut failures = BTreeMap::new();
        for (label, count) in sources.cores.iter().flat_map(|core| core.failures()) {
            *failures.entry(label).or_insert(0u64) += count;
        }
        let name = "sluice_failures_total";
        self.family(name, "counter", "Requests that ended early, by cause (RFC 9209).");
        for (label, count) in failures {
            self.put(format_args!("{name}{{cause=\"{label}\"}} {count}\n"));
        }
    }

    /// Connections of HTTP/2 that cost too much.
    fn floods(&mut self, sources: &Sources<'_>) {
        let name = "sluice_http2_floods_total";
        self.family(name, "counter", "Connections of HTTP/2 that were ended for a flood, by what it was of.");
        for (position, flood) in Flood::ALL.iter().enumerate() {
            let count = sources.cores.iter().map(|core| core.http2_floods[position].get()).sum::<u64>();
            self.put(format_args!("{name}{{kind=\"{}\"}} {count}\n", flood.label()));
        }
    }

    /// Handshakes of clients.
    fn tls(&mut self, sources: &Sources<'_>) {
        let name = "sluice_tls_handshakes_total";
        self.family(name, "counter", "Handshakes with clients by version and whether they went on with a session.");
        for kind in Kind::ALL {
            let count = sources.cores.iter().map(|core| core.tls_handshakes[kind as usize].get()).sum::<u64>();
            let (version, resumed) = kind.labels();
            self.put(format_args!("{name}{{version=\"{version}\",resumed=\"{resumed}\"}} {count}\n"));
        }
        let name = "sluice_tls_handshake_failures_total";
        self.family(name, "counter", "Handshakes with clients that failed, by reason.");
        for reason in Reason::ALL {
            let count = sources.cores.iter().map(|core| core.tls_failures[reason as usize].get()).sum::<u64>();
            self.put(format_args!("{name}{{reason=\"{}\"}} {count}\n", reason.label()));
        }
        let name = "sluice_tls_certificate_not_after_seconds";
        self.family(name, "gauge", "Until when a certificate is valid, in seconds since 1970.");
        for (listener, server) in sources.listeners.iter().zip(sources.tls) {
            for certificate in server.iter().flat_map(|server| server.certificates.all()) {
                let (listener, file) = (escaped(&listener.name), certificate.files.chain.display().to_string());
                let (file, not_after) = (escaped(&file), certificate.not_after);
                self.put(format_args!("{name}{{listener=\"{listener}\",file=\"{file}\"}} {not_after}\n"));
            }
        }
    }

    /// Requests to upstreams, and the connections to them.
    fn upstreams(&mut self, sources: &Sources<'_>) {
        let name = "http_client_request_duration_seconds";
        self.family(name, "histogram", "Time that an upstream was in use for a request, in its last attempt.");
        for (upstream, cores) in &sources.series.upstreams {
            for (column, class) in CLASSES.iter().enumerate() {
                let Some(total) = totalled(cores.all().filter_map(|core| core.durations[column].get())) else {
                    continue;
                };
                let labels = format!("upstream=\"{}\",http_response_status_class=\"{class}\"", escaped(upstream));
                self.histogram(name, &labels, &DURATION_BOUNDS, NANOS, &total);
            }
        }
        let connects = sum(sources, |core| &core.upstream_connects);
        self.single("sluice_upstream_connects_total", "counter", "Connections made to upstreams.", connects);
        let reuses = sum(sources, |core| &core.upstream_reuses);
        self.single("sluice_upstream_reuses_total", "counter", "Requests sent on a kept connection.", reuses);
        let retries = sum(sources, |core| &core.upstream_retries);
        self.single("sluice_upstream_retries_total", "counter", "Requests sent again.", retries);
        let idle = sum(sources, |core| &core.upstream_idle);
        self.single("sluice_upstream_idle_connections", "gauge", "Kept connections to upstreams.", idle);
    }

    /// How many requests upstreams may have, and who waits.
    fn queues(&mut self, sources: &Sources<'_>) {
        let limited = || {
            sources
                .upstreams
                .iter()
                .zip(sources.permits)
                .filter_map(|(upstream, permits)| Some((escaped(&upstream.name), permits.as_ref()?)))
        };
        if limited().next().is_none() {
            return;
        }
        type Value = fn(&Permits) -> u32;
        let gauges: [(&str, &str, Value); 3] = [
            ("sluice_upstream_concurrency_limit", "Requests that an upstream may have at a time.", Permits::limit),
            ("sluice_upstream_concurrency", "Requests that an upstream has.", |permits| permits.counts().0),
            ("sluice_upstream_queue_length", "Requests that wait for an upstream.", |permits| permits.counts().1),
        ];
        for (name, help, value) in gauges {
            self.family(name, "gauge", help);
            for (upstream, permits) in limited() {
                self.put(format_args!("{name}{{upstream=\"{upstream}\"}} {}\n", value(permits)));
            }
        }
        let name = "sluice_upstream_queue_refused_total";
        self.family(name, "counter", "Requests that an upstream was not given, by reason.");
        for (upstream, cores) in &sources.series.upstreams {
            for reason in QueueRefusal::ALL {
                let count = cores.all().map(|core| core.queue_refused[reason as usize].get()).sum::<u64>();
                let (upstream, reason) = (escaped(upstream), reason.label());
                self.put(format_args!("{name}{{upstream=\"{upstream}\",reason=\"{reason}\"}} {count}\n"));
            }
        }
        let name = "sluice_upstream_queue_wait_seconds";
        self.family(name, "histogram", "Time that requests waited until an upstream may have one more.");
        for (upstream, cores) in &sources.series.upstreams {
            let Some(total) = totalled(cores.all().filter_map(|core| core.queue_waits.get())) else { continue };
            self.histogram(name, &format!("upstream=\"{}\"", escaped(upstream)), &DURATION_BOUNDS, NANOS, &total);
        }
    }

    /// What cores that have too much to do refuse.
    fn shed(&mut self, sources: &Sources<'_>) {
        let name = "sluice_overload_level";
        self.family(name, "gauge", "How many urgencies a core refuses since it has too much to do.");
        for (index, core) in sources.cores.iter().enumerate() {
            self.put(format_args!("{name}{{core=\"{index}\"}} {}\n", core.shedding.get()));
        }
        let name = "sluice_overload_refused_total";
        self.family(name, "counter", "Requests refused since a core had too much to do, by urgency.");
        for urgency in 0..Urgency::COUNT {
            let count = sources.cores.iter().map(|core| core.shed[urgency].get()).sum::<u64>();
            self.put(format_args!("{name}{{urgency=\"{urgency}\"}} {count}\n"));
        }
    }

    /// What limits have decided, and the room for their keys.
    fn limits(&mut self, sources: &Sources<'_>) {
        let name = "sluice_limit_decisions_total";
        self.family(name, "counter", "Requests that a limit was asked about, by what it decided.");
        for (limit, cores) in &sources.series.limits {
            let sum = |of: fn(&LimitSeries) -> &Counter| cores.all().map(|core| of(core).get()).sum::<u64>();
            for (outcome, count) in [
                ("allowed", sum(|core| &core.allowed)),
                ("delayed", sum(|core| &core.delayed)),
                ("refused", sum(|core| &core.refused)),
                ("observed", sum(|core| &core.observed)),
            ] {
                let limit = escaped(limit);
                self.put(format_args!("{name}{{limit=\"{limit}\",outcome=\"{outcome}\"}} {count}\n"));
            }
        }
        let Some(table) = sources.accounts else { return };
        let help = "Decisions about keys that shared an account with others for want of room.";
        self.single("sluice_limit_crowded_total", "counter", help, table.crowded());
        self.single("sluice_limit_table_bytes", "gauge", "Bytes of the table of limits.", table.bytes());
    }

    /// The response cache, by route and as a whole.
    fn cache(&mut self, sources: &Sources<'_>) {
        let counted = |field: &dyn Fn(&CacheSeries) -> u64| -> Vec<(String, u64)> {
            let routes = sources.series.routes.iter().filter_map(|(route, cores)| {
                let counts = cores.all().filter_map(|core| core.cache_if_any()).map(field);
                counts.reduce(u64::wrapping_add).map(|count| (escaped(route), count))
            });
            routes.collect()
        };
        let name = "sluice_cache_requests_total";
        self.family(name, "counter", "Requests on routes with a cache, by what the cache did.");
        for (index, word) in WORDS.iter().enumerate() {
            for (route, count) in counted(&|cache| cache.outcomes[index].get()) {
                self.put(format_args!("{name}{{http_route=\"{route}\",outcome=\"{word}\"}} {count}\n"));
            }
        }
        let name = "sluice_cache_collapsed_total";
        self.family(name, "counter", "Requests that shared one to the origin with others.");
        for (route, count) in counted(&|cache| cache.collapsed.get()) {
            self.put(format_args!("{name}{{http_route=\"{route}\"}} {count}\n"));
        }
        let name = "sluice_cache_origin_seconds_saved_total";
        self.family(name, "counter", "Time that origins would have taken to answer what was given from the cache.");
        for (route, count) in counted(&|cache| cache.saved_millis.get()) {
            self.put(format_args!("{name}{{http_route=\"{route}\"}} {}\n", count as f64 / 1e3));
        }
        let Some(store) = sources.cache else { return };
        let figures = &store.figures;
        for (name, kind, help, value) in [
            ("sluice_cache_objects", "gauge", "Responses that are stored.", figures.objects.load(Relaxed)),
            ("sluice_cache_stored_bytes", "gauge", "Bytes that they take.", figures.stored_bytes.load(Relaxed)),
            (
                "sluice_cache_memory_bytes",
                "gauge",
                "Bytes that the cache takes in all, with what is on its way or still being sent.",
                store.account.in_use_bytes(),
            ),
            ("sluice_cache_limit_bytes", "gauge", "Bytes that it may take.", store.limit_bytes),
            ("sluice_cache_insertions_total", "counter", "Responses stored.", figures.insertions.load(Relaxed)),
            (
                "sluice_cache_evictions_total",
                "counter",
                "Responses that had to go for want of room.",
                figures.evictions.load(Relaxed),
            ),
            ("sluice_cache_purged_total", "counter", "Responses purged.", figures.purged.load(Relaxed)),
            (
                "sluice_cache_refused_total",
                "counter",
                "Responses that there was no room for.",
                figures.refused.load(Relaxed),
            ),
        ] {
            self.single(name, kind, help, value);
        }
    }

    /// The gateway itself.
    fn own(&mut self, sources: &Sources<'_>) {
        let accepted = sum(sources, |core| &core.connections_accepted);
        self.single("sluice_connections_accepted_total", "counter", "Client connections accepted.", accepted);
        let refused = sum(sources, |core| &core.connections_refused);
        let help = "Client connections refused for want of room.";
        self.single("sluice_connections_refused_total", "counter", help, refused);
        let name = "sluice_gate_refusals_total";
        self.family(name, "counter", "Client connections that were closed at once, by why.");
        for gate in Gate::ALL {
            let count = sources.cores.iter().map(|core| core.gate_refusals[gate as usize].get()).sum::<u64>();
            self.put(format_args!("{name}{{reason=\"{}\"}} {count}\n", gate.label()));
        }
        let uncounted = sum(sources, |core| &core.gate_uncounted);
        let help = "Client connections that there was no room to count for their client.";
        self.single("sluice_gate_uncounted_total", "counter", help, uncounted);
        let open = sum(sources, |core| &core.connections_open);
        self.single("sluice_connections_open", "gauge", "Client connections open now.", open);
        let errors = sum(sources, |core| &core.accept_errors);
        let help = "Failures to accept, most of them for want of descriptors.";
        self.single("sluice_accept_errors_total", "counter", help, errors);
        let errors = sum(sources, |core| &core.prefix_errors);
        let help = "Connections that had to begin with a PROXY prefix and did not.";
        self.single("sluice_proxy_protocol_errors_total", "counter", help, errors);
        let tunnels = sum(sources, |core| &core.tunnels_open);
        self.single("sluice_tunnels_open", "gauge", "Upgraded connections open now.", tunnels);
        let buffers = sum(sources, |core| &core.buffer_bytes);
        self.single("sluice_buffer_bytes", "gauge", "Bytes of message buffers in use.", buffers);
        self.single("sluice_cores", "gauge", "Event loops.", sources.cores.len());
        let name = "sluice_core_busy_seconds_total";
        self.family(name, "counter", "Processor time of each core's thread; its rate is how busy the core is.");
        for (index, core) in sources.cores.iter().enumerate() {
            let busy = core.busy_nanos.get() as f64 / NANOS;
            self.put(format_args!("{name}{{core=\"{index}\"}} {busy}\n"));
        }
        let help = "Generation of the configuration that is served.";
        self.single("sluice_config_generation", "gauge", help, sources.configuration);
        let name = "sluice_log_dropped_total";
        self.family(name, "counter", "Lines of logs that were dropped because their target takes them too slowly.");
        let access = sum(sources, |core| &core.log_dropped);
        self.put(format_args!("{name}{{log=\"access\"}} {access}\n"));
        self.put(format_args!("{name}{{log=\"diagnostics\"}} {}\n", sources.diagnostics_dropped));
        self.family("sluice_io_driver", "gauge", "The kernel interface in use.");
        self.put(format_args!("sluice_io_driver{{driver=\"{}\"}} 1\n", escaped(sources.driver)));
        self.family("sluice_build_info", "gauge", "What is running.");
        self.put(format_args!("sluice_build_info{{version=\"{}\"}} 1\n", env!("CARGO_PKG_VERSION")));
    }
}

fn sum(sources: &Sources<'_>, field: fn(&CoreMetrics) -> &Counter) -> u64 {
    sources.cores.iter().map(|core| field(core).get()).fold(0, u64::wrapping_add)
}

/// What the cores' histograms come to. `None`: there is none.
fn totalled<'a, const N: usize>(cores: impl Iterator<Item = &'a Histogram<N>>) -> Option<Total<N>> {
    let mut total = None;
    cores.for_each(|core| total.get_or_insert_with(Total::default).add(core));
    total
}

/// A value as it stands between the quotes of a label.
pub(crate) fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use sluice_rules::failure::Failure;
    use sluice_rules::snapshot::RouteId;

    use super::*;

    fn table(routes: usize) -> SeriesTable {
        let mut text = "[[listener]]\naddress = \"127.0.0.1:0\"\n".to_owned();
        for route in 0..routes {
            let _ = writeln!(text, "[[route]]\npath = \"/{route}\"\nrespond = {{ status = 200 }}");
        }
        let loaded = sluice_config::load_str("test", &text).unwrap_or_else(|report| panic!("{report}"));
        SeriesTable::new(2, &loaded.snapshot)
    }

    fn rendered(cores: &[Arc<CoreMetrics>], series: &SeriesTable) -> String {
        render(&Sources {
            cores,
            series,
            upstreams: &[],
            permits: &[],
            diagnostics_dropped: 0,
            driver: "epoll",
            configuration: 3,
            listeners: &[],
            tls: &[],
            accounts: None,
            cache: None,
        })
    }

    #[test]
    fn failures_are_counted_by_label_over_all_cores() {
        let cores = [Arc::new(CoreMetrics::default()), Arc::new(CoreMetrics::default())];
        cores[0].failed(Failure::NoRoute);
        cores[1].failed(Failure::ConnectionRefused);
        cores[1].failed(Failure::NoRoute);
        let text = rendered(&cores, &table(1));
        assert!(text.contains("sluice_failures_total{cause=\"no_route\"} 2\n"), "{text}");
        assert!(text.contains("sluice_failures_total{cause=\"connection_refused\"} 1\n"));
        assert!(text.contains("sluice_config_generation 3\n"));
    }

    #[test]
    fn buckets_are_cumulative_and_in_seconds() {
        let series = table(1);
        for (core, nanos) in [(0, 90_000), (1, 100_001), (1, u64::from(u32::MAX) * 1000)] {
            series.route(Some(RouteId(0)), core).durations[0][2].made().record(&DURATION_BOUNDS, nanos);
        }
        let text = rendered(&[], &series);
        let labels = "http_route=\"route 1\",http_request_method=\"GET\",http_response_status_class=\"2xx\"";
        for line in [
            format!("http_server_request_duration_seconds_bucket{{{labels},le=\"0.0001\"}} 1\n"),
            format!("http_server_request_duration_seconds_bucket{{{labels},le=\"60\"}} 2\n"),
            format!("http_server_request_duration_seconds_bucket{{{labels},le=\"+Inf\"}} 3\n"),
            format!("http_server_request_duration_seconds_sum{{{labels}}} 4294.967485001\n"),
            format!("http_server_request_duration_seconds_count{{{labels}}} 3\n"),
        ] {
            assert!(text.contains(&line), "{line} in\n{text}");
        }
    }

    #[test]
    fn a_label_s_value_cannot_end_it() {
        assert_eq!(escaped("a\"b\\c\nd"), "a\\\"b\\\\c\\nd");
    }

    /// Ten thousand series are put together in ten milliseconds; unoptimised code may take twenty times that.
    #[test]
    fn ten_thousand_series_are_put_together_quickly() {
        let series = table(200);
        for route in 0..200 {
            let of_core = series.route(Some(RouteId(route)), 0);
            of_core.durations[0][2].made().record(&DURATION_BOUNDS, 1);
        }
        let best = (0..5)
            .map(|_| {
                let began = Instant::now();
                let text = rendered(&[], &series);
                assert!(text.lines().count() > 9_000, "{}", text.lines().count());
                began.elapsed()
            })
            .min();
        assert!(best < Some(Duration::from_millis(if cfg!(debug_assertions) { 200 } else { 10 })), "{best:?}");
    }
}
