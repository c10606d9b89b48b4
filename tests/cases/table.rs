//! Tables of requests that must be refused, or forwarded in one certain form.

use crate::harness::{Broken, Client, Response, Site};
use crate::json::is_json;

/// What may reach the origin of a refused request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reaches {
    /// Not a byte.
    Nothing,
    /// Its head, when the fault is in the body; never the whole.
    Head,
    /// All of it.
    All,
}

/// What must become of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum After {
    /// Closed, whatever follows unread.
    Closed,
    /// Either.
    Either,
}

/// A row of a table: these bytes, one of these statuses.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) send: Vec<u8>,
    pub(crate) want: Vec<u16>,
    pub(crate) after: After,
    pub(crate) reaches: Reaches,
}

/// A request that is refused, and whose connection is closed. `send` is the whole of it.
pub(crate) fn refused(name: &str, send: impl AsRef<[u8]>, want: &[u16]) -> Case {
    let send = send.as_ref().to_vec();
    Case { name: name.to_owned(), send, want: want.to_vec(), after: After::Closed, reaches: Reaches::Nothing }
}

impl Case {
    pub(crate) fn after(self, after: After) -> Self {
        Self { after, ..self }
    }

    pub(crate) fn reaches(self, reaches: Reaches) -> Self {
        Self { reaches, ..self }
    }

    fn method(&self) -> &str {
        let first = self.send.split(|b| *b == b' ').next().unwrap_or_default();
        std::str::from_utf8(first).unwrap_or_default()
    }
}

/// Follows each attack on its connection: if the origin sees it, the attack desynchronised the gateway.
const SMUGGLED: &[u8] = b"GET /smuggled HTTP/1.1\r\nHost: a.test\r\n\r\n";

/// Runs all cases, then fails with all that went wrong, so that one run shows the whole picture.
pub(crate) fn run(site: &Site, cases: &[Case]) {
    let mut failures = Vec::new();
    for case in cases {
        site.origin.forget();
        if let Err(why) = check(site, case) {
            failures.push(format!("{}: {why}\n      sent {:?}", case.name, preview(&case.send)));
        }
    }
    assert!(failures.is_empty(), "{} of {} cases:\n  {}", failures.len(), cases.len(), failures.join("\n  "));
}

pub(crate) fn preview(bytes: &[u8]) -> String {
    let shown: String = bytes.iter().take(300).flat_map(|b| std::ascii::escape_default(*b)).map(char::from).collect();
    if bytes.len() > 300 { format!("{shown}... ({} bytes)", bytes.len()) } else { shown }
}

fn check(site: &Site, case: &Case) -> Result<(), String> {
    let mut client = site.connect();
    let mut bytes = case.send.clone();
    bytes.extend_from_slice(SMUGGLED);
    // The gateway may answer and close while this is still being sent.
    let _ = client.try_send(&bytes);
    let response = client.try_response(case.method()).map_err(|broken| format!("no answer: {broken:?}"))?;
    if !case.want.contains(&response.status()) {
        return Err(format!("status {}, not {:?}", response.status(), case.want));
    }
    if case.reaches != Reaches::All {
        problem(&response, case.method())?;
    }
    let ends = connection_ends(&mut client)?;
    match case.after {
        After::Closed if !ends => return Err("the connection goes on".to_owned()),
        After::Closed | After::Either => {}
    }
    // One more request, so that all that was on its way to the origin has arrived there.
    let sentinel = site.ask("GET /sentinel HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n");
    if sentinel.status() != 200 {
        return Err(format!("the next request got {}", sentinel.status()));
    }
    let (heads, whole) = (site.origin.heads(), site.origin.requests());
    let expected = |target: &str| target == "/sentinel" || (!ends && target == "/smuggled");
    let strange = |target: &str| !expected(target);
    if ends && heads.iter().any(|h| h.target == "/smuggled") {
        return Err("what followed on the connection reached the origin".to_owned());
    }
    match case.reaches {
        Reaches::All => {}
        Reaches::Head if whole.iter().any(|r| strange(&r.head.target)) => {
            return Err("the whole request reached the origin".to_owned());
        }
        Reaches::Nothing if heads.iter().any(|h| strange(&h.target)) => {
            return Err(format!("reached the origin: {:?}", heads.iter().map(|h| &h.target).collect::<Vec<_>>()));
        }
        Reaches::Head | Reaches::Nothing => {}
    }
    match site.origin.violations().as_slice() {
        [] => Ok(()),
        violations => Err(format!("sent to the origin: {violations:?}")),
    }
}

/// All errors of the gateway have one form (RFC 9457), and name their cause where RFC 9209 has a name for it.
fn problem(response: &Response, method: &str) -> Result<(), String> {
    if !response.is_problem() {
        return Err(format!("content-type {:?}", response.field("content-type")));
    }
    let proxy_status = response.field("proxy-status");
    let named = proxy_status.as_ref().is_some_and(|v| v.starts_with("sluice; error="));
    if !named {
        return Err(format!("proxy-status {proxy_status:?}"));
    }
    if method != "HEAD" && !(response.text().starts_with('{') && is_json(&response.text())) {
        return Err(format!("body {:?}", response.text()));
    }
    Ok(())
}

/// Whether the connection ends without a further answer; an error for half an answer.
fn connection_ends(client: &mut Client) -> Result<bool, String> {
    match client.try_response("GET") {
        Ok(next) if next.status() == 200 => Ok(false),
        Ok(next) => Err(format!("a second answer with status {}", next.status())),
        Err(Broken::Nothing(_)) => Ok(true),
        Err(broken) => Err(format!("after the answer: {broken:?}")),
    }
}

/// A request and the target that the origin must see.
pub(crate) fn forwarded(site: &Site, cases: &[(&str, &str)]) {
    let mut failures = Vec::new();
    for (sent, want) in cases {
        site.origin.forget();
        let mut client = site.connect();
        client.send(format!("GET {sent} HTTP/1.1\r\nHost: a.test\r\n\r\n"));
        let outcome = client.try_response("GET");
        let got = site.origin.requests().first().map(|r| r.head.target.clone());
        if got.as_deref() != Some(want) || !outcome.as_ref().is_ok_and(|r| r.status() == 200) {
            let status = outcome.map(|r| r.status());
            failures.push(format!("{sent}: {want} due, the origin got {got:?}, the client {status:?}"));
        }
        let violations = site.origin.violations();
        if !violations.is_empty() {
            failures.push(format!("{sent}: {violations:?}"));
        }
    }
    site.origin.forget();
    assert!(failures.is_empty(), "{} of {} cases:\n  {}", failures.len(), cases.len(), failures.join("\n  "));
}
