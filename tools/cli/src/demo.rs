//! `sluice demo`: an origin and a gateway in front of it.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use sluice_load::demo;
use sluice_proxy::Gateway;

use crate::explain::routes;
use crate::run;

/// The configuration of the demo, with a hole for each address.
const CONFIGURATION: &str = include_str!("demo.toml");

/// Starts both and prints what to try. The configuration is a file, so that it can be changed and explained.
pub(crate) fn demo(listen: &str) -> ExitCode {
    let started = demo::serve(([127, 0, 0, 1], 0).into()).and_then(|origin| {
        let text = CONFIGURATION.replace("LISTEN", listen).replace("ORIGIN", &origin.address().to_string());
        Ok((origin, Configuration::create(&text)?))
    });
    let (origin, configuration) = match started {
        Ok(started) => started,
        Err(error) => {
            eprintln!("sluice: cannot start the demo: {error}");
            return ExitCode::from(1);
        }
    };
    let file = configuration.0.as_path();
    let (reading, source) = run::open(file);
    let table = reading.snapshot.as_ref().map(routes::table).unwrap_or_default();
    run::serve(reading, Some(source), |gateway| {
        println!("{}", run::ready_line(gateway));
        println!("origin: http://{}\n\nIts routes:\n\n{table}", origin.address());
        print!("{}", to_try(gateway, file));
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

/// Commands that show what it does.
fn to_try(gateway: &Gateway, file: &Path) -> String {
    let file = file.display();
    // As it was called, since it may not be in the path.
    let sluice = std::env::args().next().unwrap_or_else(|| "sluice".to_owned());
    let url = gateway.listening.first().cloned().unwrap_or_default();
    let mut lines = vec!["Try:\n".to_owned()];
    let curl = |arguments: String, what: &str| format!("  curl {arguments:54} # {what}");
    lines.extend(TRY.map(|(path, what)| curl(format!("-i --path-as-is {url}{path}"), what)));
    let users = format!("{url}/users/42");
    lines.push(format!("\nWhy is /users/42 sent where it is?\n\n  {sluice} explain {file} GET {users}"));
    if let Some(admin) = &gateway.admin {
        let address = admin.trim_start_matches("http://");
        lines.push(format!("\nWhat does it count?\n\n  curl {admin}/metrics"));
        lines.push(format!(
            "\nChange a route while it serves:\n\n  sed -i 's/user={{id}}/id={{id}}/' {file}\n  \
             {sluice} reload --admin {address} && curl {users}"
        ));
    }
    lines.push(format!("\nA WebSocket echo is at {}/ws. Press Ctrl-C to stop.\n", url.replace("http:", "ws:")));
    lines.join("\n")
}

/// A file that is there as long as the demo.
struct Configuration(PathBuf);

impl Configuration {
    fn create(text: &str) -> io::Result<Self> {
        let path = std::env::temp_dir().join(format!("sluice-demo-{}.toml", std::process::id()));
        // Never one that somebody else has put there.
        let mut file = OpenOptions::new().write(true).create_new(true).open(&path)?;
        let configuration = Configuration(path);
        file.write_all(text.as_bytes())?;
        Ok(configuration)
    }
}

impl Drop for Configuration {
    fn drop(&mut self) {
        // Whoever has removed it already has done no harm.
        let _ = std::fs::remove_file(&self.0);
    }
}
