//! How endpoints are asked whether they can serve.

use sluice_rules::snapshot::{HealthCheck, HealthQuestion};

use crate::error::{Code, Diagnostic, Place};
use crate::read::{Context, Optional};
use crate::schema::{self, HealthKind};

/// The health check of an upstream, if it has one.
pub(super) fn health(upstream: &schema::Upstream, context: &mut Context<'_>) -> Option<HealthCheck> {
    let table = upstream.health.given()?;
    let kind = match &table.check {
        Optional::Absent => HealthKind::Http,
        Optional::Given(kind) => kind.0,
        // What the rest was meant for is not known.
        Optional::Broken => return None,
    };
    let chosen = table.check.given().and_then(|kind| kind.place);
    let of_http =
        [("path", table.path.given().map(|key| key.place)), ("host", table.host.given().map(|key| key.place))];
    let of_grpc = [("service", table.service.given().map(|key| key.place))];
    let unused: &[(&str, Option<Option<Place>>)] = match kind {
        HealthKind::Http => &of_grpc,
        HealthKind::Grpc => &of_http,
        HealthKind::Connect => &[of_http[0], of_http[1], of_grpc[0]],
    };
    for (key, place) in unused.iter().filter_map(|(key, place)| Some((key, (*place)?))) {
        let note = Diagnostic::warning(Code::Unused, place, format!("this check has no use for `{key}`"));
        context.push(note.label("has no effect").related(chosen, "because of this"));
    }
    if table.timeout.0 > table.interval.0 {
        let place = table.timeout.place.or(table.interval.place);
        let note = Diagnostic::error(Code::OutOfRange, place, "`timeout` is more than `interval`");
        let label = format!("has to be at most {}", crate::units::show_duration(table.interval.0.as_millis() as u64));
        context.push(note.label(label).help("ask less often, or wait less long"));
    }
    let question = match kind {
        HealthKind::Connect => HealthQuestion::Connect,
        HealthKind::Http => HealthQuestion::Http {
            path: table.path.given().map_or_else(|| "/".to_owned(), |path| path.0.clone()),
            host: table.host.given().map(|host| host.0.clone()),
        },
        HealthKind::Grpc => {
            HealthQuestion::Grpc { service: table.service.given().map(|name| name.value.clone()).unwrap_or_default() }
        }
    };
    Some(HealthCheck {
        question,
        interval: table.interval.0,
        timeout: table.timeout.0,
        rise: table.rise.0 as u32,
        fall: table.fall.0 as u32,
    })
}
