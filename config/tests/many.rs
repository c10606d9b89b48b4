//! Ten thousand routes are checked in a moment.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::fmt::Write;
use std::time::{Duration, Instant};

use sluice_config::load_str_with;

/// Without optimisation, on a machine that does other things too. Optimised it is less than a second.
const TIME_MAX: Duration = Duration::from_secs(20);

/// Routes of every kind: hosts, prefixes, templates, and thousands that only a field parts.
fn many(count: usize) -> String {
    let mut text = String::from("[[listener]]\naddress = '127.0.0.1:80'\n");
    for index in 0..count / 10 {
        writeln!(text, "[upstream.u{index}]\nendpoints = ['10.0.0.1:{}']", 1 + index % 60_000).unwrap();
    }
    for index in 0..count {
        let matches = match index % 5 {
            0 => format!("host = 'h{index}.example.com'\npath = '/*'"),
            1 => format!("path = '/api/v{index}/*'\nmethods = ['GET', 'POST']"),
            2 => format!("path = '/users/{{id}}/x{index}/*'"),
            3 => format!("path = '/tenant'\nheaders = {{ x-tenant = 't{index}' }}"),
            _ => format!("path = '/exact/{index}'\nquery = {{ a = 'b', c = true }}"),
        };
        writeln!(text, "[[route]]\nname = 'r{index}'\n{matches}\nupstream = 'u{}'", index % (count / 10)).unwrap();
    }
    text
}

#[test]
fn ten_thousand_routes_take_a_moment() {
    let text = many(10_000);
    let start = Instant::now();
    let loaded = load_str_with("many.toml", &text, &|_| None).unwrap_or_else(|report| panic!("{report}"));
    let sound = start.elapsed();
    assert!(loaded.report.diagnostics().is_empty(), "{}", loaded.report);
    assert_eq!(loaded.snapshot.routes.len(), 10_000);

    let broken = text.replace("upstream = 'u", "upstrem = 'u");
    let start = Instant::now();
    let report = load_str_with("many.toml", &broken, &|_| None).unwrap_err();
    assert_eq!(report.diagnostics().len(), 10_000);
    assert!(report.render(false).ends_with("and 9900 more, which --format json shows"));
    assert!(report.to_json().len() > 1_000_000);
    println!("sound: {sound:?}, broken and shown: {:?}", start.elapsed());
    assert!(sound < TIME_MAX && start.elapsed() < TIME_MAX, "{sound:?} {:?}", start.elapsed());
}
