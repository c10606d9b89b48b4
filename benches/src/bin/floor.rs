//! Forwards bytes and knows nothing of HTTP, on the same event loop with the same flags as the gateway: what a
//! proxied request costs at least. `floor 127.0.0.1:9210 127.0.0.1:9000`

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut addresses = std::env::args().skip(1).map(|argument| argument.parse());
    match (addresses.next(), addresses.next()) {
        (Some(Ok(listen)), Some(Ok(to))) => match sluice_proxy::floor::serve(listen, to) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("floor: {error}");
                ExitCode::from(1)
            }
        },
        _ => {
            eprintln!("usage: floor LISTEN ORIGIN");
            ExitCode::from(2)
        }
    }
}
