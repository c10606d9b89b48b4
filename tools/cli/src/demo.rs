//! `sluice demo`: an origin and a gateway in front of it.

use std::process::ExitCode;

use sluice_load::demo;

use crate::run;

/// The configuration of the demo, with a hole for each address.
const CONFIGURATION: &str = include_str!("demo.toml");

/// Starts both and prints what to try.
pub(crate) fn demo(listen: &str) -> ExitCode {
    let origin = match demo::serve(([127, 0, 0, 1], 0).into()) {
        Ok(origin) => origin,
        Err(error) => {
            eprintln!("sluice: cannot start the demo's origin: {error}");
            return ExitCode::from(1);
        }
    };
    let text = CONFIGURATION.replace("LISTEN", listen).replace("ORIGIN", &origin.address().to_string());
    run::serve(run::accept(sluice_config::load_str("demo.toml", &text), false), None, |gateway| {
        let url = gateway.listening.first().map(|address| format!("http://{address}")).unwrap_or_default();
        println!("{}\n", run::ready_line(gateway));
        println!("An origin is at http://{}, the gateway in front of it at {url}. Try:\n", origin.address());
        for (path, what) in TRY {
            println!("  curl {:44} # {what}", format!("-i {url}{path}"));
        }
        if let Some(admin) = &gateway.admin {
            println!("  curl {:44} # what the gateway counts", format!("{admin}/metrics"));
        }
        println!("\nA WebSocket echo is at {}/ws. Press Ctrl-C to stop.", url.replace("http:", "ws:"));
    })
}

const TRY: [(&str, &str); 7] = [
    ("/", "a page from the origin"),
    ("/a/../echo", "what the origin received: one canonical path, Forwarded, Via"),
    ("/users/42", "a path parameter, rewritten to a query"),
    ("/old", "a redirect"),
    ("/hello", "an answer of the gateway itself"),
    ("/stream", "server-sent events, as they come"),
    ("/nowhere%2f", "what the gateway refuses, and how it says so"),
];
