//! `sluice`: an API gateway. Arguments in, library calls, text out.

mod admin;
mod cache;
mod cert;
mod check;
mod demo;
mod explain;
mod protection;
mod proxy;
mod run;
mod status;
mod table;

use std::io::IsTerminal;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};

use admin::Whom;
use cache::Purged;
use explain::Question;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The exit code for arguments that mean nothing, as that of clap.
const USAGE: u8 = 2;

/// An API gateway: one event loop for each core, HTTP/1.1 and HTTP/2, configured by one TOML file.
#[derive(Parser)]
#[command(name = "sluice", version, disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve as the file says; prints one line once ready
    Run {
        /// The configuration
        file: PathBuf,
    },
    /// Look for mistakes in a configuration and run its tests: exit code 0 fine, 1 errors, 2 usage
    Check {
        /// The configuration
        file: PathBuf,
        /// How to print what was found
        #[arg(long, value_enum, default_value = "human")]
        format: Format,
    },
    /// Print how a running gateway is
    Status {
        #[command(flatten)]
        whom: Whom,
        /// How to print it
        #[arg(long, value_enum, default_value = "human")]
        format: Format,
    },
    /// Have a running gateway read its configuration again: exit code 0 once every core serves by it
    Reload {
        #[command(flatten)]
        whom: Whom,
    },
    /// Tell a running gateway to finish what it has begun and end
    Drain {
        #[command(flatten)]
        whom: Whom,
    },
    /// Print who loads a running gateway now and why, and what is done about whom
    Top {
        /// Print it again and again, this often, such as 1s
        #[arg(long, value_name = "TIME", value_parser = protection::time)]
        every: Option<Duration>,
        #[command(flatten)]
        whom: Whom,
    },
    /// Close the connections of a network, on a running gateway
    Ban {
        #[command(subcommand)]
        command: BanCommand,
    },
    /// The response cache of a running gateway
    Cache {
        #[command(subcommand)]
        command: CacheCommand,
    },
    /// Say what would happen to a request and why, from the code that serves traffic; without one, list the routes
    Explain {
        /// The configuration
        file: PathBuf,
        /// The method
        #[arg(requires = "url")]
        method: Option<String>,
        /// The URL, as https://host/path?query
        url: Option<String>,
        /// A field of the request; may be given several times
        #[arg(short = 'H', long = "field", value_name = "NAME: VALUE")]
        fields: Vec<String>,
        /// Where the request comes from
        #[arg(long, value_name = "IP")]
        client_ip: Option<IpAddr>,
        /// The client speaks HTTP/2, if the listener does
        #[arg(long)]
        http2: bool,
        /// How to print it
        #[arg(long, value_enum, default_value = "human")]
        format: Format,
    },
    /// Print the configuration as it holds, with the origin of each value; secrets are hidden
    Config {
        /// The configuration
        file: PathBuf,
        /// How to print it
        #[arg(long, value_enum, default_value = "human")]
        format: Format,
    },
    /// Print the JSON Schema of the configuration
    Schema {
        /// Print the reference instead, as Markdown
        #[arg(long)]
        reference: bool,
    },
    /// Certificates
    Cert {
        #[command(subcommand)]
        command: CertCommand,
    },
    /// A reverse proxy without a file
    Proxy {
        /// Where to listen, as IP:PORT
        #[arg(long, value_name = "ADDRESS")]
        listen: String,
        /// Where to forward, as HOST:PORT, http://HOST or https://HOST; several are taken in turn
        #[arg(long, value_name = "ORIGIN", required = true)]
        to: Vec<String>,
        /// Event loops; one for each core by default
        #[arg(long, value_name = "NUMBER")]
        cores: Option<usize>,
    },
    /// Try it: an origin and a gateway in front of it, on loopback; prints addresses to open
    Demo {
        /// Where the gateway listens
        #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
        listen: String,
    },
}

#[derive(Subcommand)]
enum BanCommand {
    /// Ban an address or a network until its time has passed, the ban is lifted or the gateway ends
    Add {
        /// An address, or a network such as 203.0.113.0/24
        network: String,
        /// How long, such as 10m; without it, for good
        #[arg(long = "for", value_name = "TIME", value_parser = protection::time)]
        time: Option<Duration>,
        /// Why, for those who will ask
        #[arg(long, value_name = "TEXT", default_value = "")]
        reason: String,
        #[command(flatten)]
        whom: Whom,
    },
    /// Print what is banned, by operators and by the ladder
    List {
        #[command(flatten)]
        whom: Whom,
    },
    /// Lift a ban, whoever has made it
    Remove {
        /// The address or the network, as it is listed
        network: String,
        #[command(flatten)]
        whom: Whom,
    },
}

#[derive(Subcommand)]
enum CacheCommand {
    /// Print what it holds and what it has done, as JSON
    Stats {
        #[command(flatten)]
        whom: Whom,
    },
    /// Print what is stored for a URL: each variant with its head, as JSON
    Get {
        /// The URL, as http://host/path?query
        url: String,
        #[command(flatten)]
        whom: Whom,
    },
    /// Print the URLs of what is stored, with status, size and age
    Keys {
        /// What the URLs begin with
        #[arg(long, value_name = "URL", default_value = "")]
        prefix: String,
        /// How many at most
        #[arg(long, value_name = "NUMBER", default_value_t = 1000)]
        limit: u32,
        #[command(flatten)]
        whom: Whom,
    },
    /// Purge a URL, all below one (http://host/a/*), a host, a tag or everything
    Purge {
        #[command(flatten)]
        what: Purged,
        /// Make it stale instead: still of use while a fresh one is fetched or the origin fails
        #[arg(long)]
        soft: bool,
        #[command(flatten)]
        whom: Whom,
    },
}

#[derive(Subcommand)]
enum CertCommand {
    /// Make certificates to try TLS with: an authority, and what it signs; nothing is overwritten
    Local {
        /// A host name or an IP address that the certificate is for; may be given several times [default: localhost,
        /// 127.0.0.1 and ::1]
        #[arg(long = "name", value_name = "NAME", value_parser = cert::name)]
        names: Vec<String>,
        /// The folder where the files go
        #[arg(long, default_value = ".", value_name = "FOLDER")]
        dir: PathBuf,
        /// Make a certificate for a client of this name, too
        #[arg(long, value_name = "NAME", value_parser = cert::client_name)]
        client: Option<String>,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    /// For people
    Human,
    /// For programs
    Json,
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Run { file } => run::run(&file),
        Command::Check { file, format } => check::check(&file, format),
        Command::Status { whom, format } => admin::status(&whom, format),
        Command::Reload { whom } => admin::reload(&whom),
        Command::Drain { whom } => admin::drain(&whom),
        Command::Top { every, whom } => protection::top(&whom, every),
        Command::Ban { command } => match command {
            BanCommand::Add { network, time, reason, whom } => protection::add(&whom, &network, time, &reason),
            BanCommand::List { whom } => protection::list(&whom),
            BanCommand::Remove { network, whom } => protection::remove(&whom, &network),
        },
        Command::Cache { command } => match command {
            CacheCommand::Stats { whom } => cache::stats(&whom),
            CacheCommand::Get { url, whom } => cache::get(&whom, &url),
            CacheCommand::Keys { prefix, limit, whom } => cache::keys(&whom, &prefix, limit),
            CacheCommand::Purge { what, soft, whom } => cache::purge(&whom, &what, soft),
        },
        Command::Explain { file, method, url, fields, client_ip, http2, format } => {
            let asked = method.as_deref().zip(url.as_deref());
            let question = asked.map(|(method, url)| Question { method, url, fields: &fields, client_ip, http2 });
            explain::explain(&file, question, format)
        }
        Command::Config { file, format } => config(&file, format),
        Command::Schema { reference } => schema(reference),
        Command::Cert { command: CertCommand::Local { names, dir, client } } => {
            cert::local(&names, &dir, client.as_deref())
        }
        Command::Proxy { listen, to, cores } => proxy::proxy(&listen, &to, cores),
        Command::Demo { listen } => demo::demo(&listen),
    }
}

/// Prints the effective configuration, or what is wrong with it.
fn config(file: &Path, format: Format) -> ExitCode {
    match (sluice_config::load(file), format) {
        (Ok(loaded), Format::Human) => print!("{}", loaded.effective.to_toml()),
        (Ok(loaded), Format::Json) => println!("{}", loaded.effective.to_json()),
        (Err(report), _) => {
            eprintln!("{}", report.render(std::io::stderr().is_terminal()));
            return ExitCode::from(1);
        }
    }
    ExitCode::SUCCESS
}

/// Prints what may be written.
fn schema(reference: bool) -> ExitCode {
    if reference {
        print!("{}", sluice_config::reference());
    } else {
        println!("{}", sluice_config::json_schema());
    }
    ExitCode::SUCCESS
}
