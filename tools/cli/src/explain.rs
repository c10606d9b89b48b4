//! `sluice explain`: what would happen to a request, and why; without a request, all routes.

mod human;
mod json;
pub(crate) mod routes;
#[cfg(test)]
mod tests;

use std::io::IsTerminal;
use std::net::IpAddr;
use std::path::Path;
use std::process::ExitCode;

use sluice_rules::check::{TestRequest, Url};
use sluice_rules::explain::explain as explained;

use crate::{Format, USAGE};

/// What is asked about.
pub(crate) struct Question<'a> {
    pub(crate) method: &'a str,
    pub(crate) url: &'a str,
    /// Fields as `name: value`.
    pub(crate) fields: &'a [String],
    pub(crate) client_ip: Option<IpAddr>,
    pub(crate) http2: bool,
}

/// Prints what would happen to a request, or all routes.
pub(crate) fn explain(file: &Path, question: Option<Question<'_>>, format: Format) -> ExitCode {
    let request = match question.map(|question| request(&question)).transpose() {
        Ok(request) => request,
        Err(why) => {
            eprintln!("sluice: {why}");
            return ExitCode::from(USAGE);
        }
    };
    let loaded = match sluice_config::load(file) {
        Ok(loaded) => loaded,
        Err(report) => {
            eprintln!("{}", report.render(std::io::stderr().is_terminal()));
            return ExitCode::from(1);
        }
    };
    let explanation = request.map(|request| explained(&loaded.snapshot, &request));
    match (explanation, format) {
        (None, Format::Human) => print!("{}", routes::table(&loaded.snapshot)),
        (None, Format::Json) => println!("{:#}", routes::object(&loaded.snapshot)),
        (Some(explanation), Format::Human) => print!("{}", human::text(&explanation)),
        (Some(explanation), Format::Json) => println!("{:#}", json::object(&explanation)),
    }
    ExitCode::SUCCESS
}

fn request(question: &Question<'_>) -> Result<TestRequest, String> {
    // A client drops what follows a `#` before it sends.
    let url = question.url.split('#').next().unwrap_or_default();
    let url = Url::parse(url).map_err(|why| format!("{:?}: {why}", question.url))?;
    let field = |field: &String| {
        let (name, value) = field.split_once(':').ok_or_else(|| format!("{field:?}: expected 'name: value'"))?;
        // One argument is one line, or what is explained would be another request.
        if field.contains(['\r', '\n']) {
            return Err(format!("{field:?}: a field is one line"));
        }
        Ok((name.to_owned(), value.trim().to_owned()))
    };
    Ok(TestRequest {
        method: question.method.to_owned(),
        url,
        fields: question.fields.iter().map(field).collect::<Result<_, _>>()?,
        client_ip: question.client_ip,
        http2: question.http2,
    })
}
