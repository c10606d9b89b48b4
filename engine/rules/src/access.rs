//! Who may come in, by address, and which requests may, by what they look like.
//!
//! An access list has conditions, and each that is there has to hold. Several lists are asked in their order, so a
//! hole in a list that allows is another list, which denies, in front of it.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use sluice_wire::head::Request;

use crate::failure::Failure;
use crate::prefixes::Prefixes;
use crate::route::ValuePattern;
use crate::snapshot::Snapshot;

/// An index into [`crate::snapshot::Snapshot::access`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccessId(pub u32);

/// An access list as the configuration has it.
#[derive(Debug)]
pub struct Access {
    /// The name from the file.
    pub name: String,
    /// Addresses that pass, whether or not they are denied too. Where nothing is denied, no others pass.
    pub allow: Side,
    /// Addresses that do not pass.
    pub deny: Side,
    /// Methods that pass. Empty: all.
    pub methods: Vec<String>,
    /// User agents that do not pass. A request without one has an empty one.
    pub deny_user_agents: Vec<ValuePattern>,
}

/// Networks of one kind in an access list.
#[derive(Debug, Default)]
pub struct Side {
    /// Those that stand in the configuration.
    pub listed: Prefixes,
    /// A file with more of them.
    pub file: Option<ListFile>,
}

/// A file with a list of networks.
#[derive(Clone, Debug)]
pub struct ListFile {
    /// Where it is.
    pub path: PathBuf,
    /// What was in it when the configuration was read.
    pub prefixes: Arc<Prefixes>,
}

/// What is in the files of an access list now: they change more often than the configuration.
#[derive(Clone, Debug, Default)]
pub struct Lists {
    /// Of [`Access::allow`].
    pub allow: Option<Arc<Prefixes>>,
    /// Of [`Access::deny`].
    pub deny: Option<Arc<Prefixes>>,
}

/// Why an access list does not let something pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denial {
    /// The address is among those that are denied.
    Denied,
    /// The address is not among those that are allowed.
    NotAllowed,
    /// The method is none of those that are allowed.
    Method,
    /// The user agent is denied.
    UserAgent,
}

impl From<Denial> for Failure {
    fn from(_: Denial) -> Self {
        Failure::AccessDenied
    }
}

impl Side {
    /// Whether it says anything of any address.
    pub fn is_given(&self) -> bool {
        !self.listed.is_empty() || self.file.is_some()
    }

    fn contains(&self, file: Option<&Prefixes>, address: IpAddr) -> bool {
        self.listed.contains(address) || file.is_some_and(|prefixes| prefixes.contains(address))
    }
}

impl Access {
    /// What its files had when the configuration was read.
    pub fn lists(&self) -> Lists {
        let prefixes = |side: &Side| side.file.as_ref().map(|file| Arc::clone(&file.prefixes));
        Lists { allow: prefixes(&self.allow), deny: prefixes(&self.deny) }
    }

    /// Whether a client of this address passes: one that is allowed does, others do not if they are denied, or if
    /// only allowing is spoken of.
    ///
    /// # Errors
    /// Why not.
    pub fn address(&self, lists: &Lists, address: IpAddr) -> Result<(), Denial> {
        let (allows, denies) = (self.allow.is_given(), self.deny.is_given());
        if allows && self.allow.contains(lists.allow.as_deref(), address) {
            return Ok(());
        }
        if denies && self.deny.contains(lists.deny.as_deref(), address) {
            return Err(Denial::Denied);
        }
        if allows && !denies { Err(Denial::NotAllowed) } else { Ok(()) }
    }

    /// Whether a request passes.
    ///
    /// # Errors
    /// Why not.
    pub fn request(&self, lists: &Lists, address: IpAddr, request: Request<'_>) -> Result<(), Denial> {
        self.address(lists, address)?;
        if !self.methods.is_empty() && !self.methods.iter().any(|method| method == request.method()) {
            return Err(Denial::Method);
        }
        if !self.deny_user_agents.is_empty() {
            let mut agents = request.head.fields.values_of(request.bytes, USER_AGENT);
            let first = agents.next().unwrap_or_default();
            let is_denied = |agent: &[u8]| self.deny_user_agents.iter().any(|pattern| pattern.matches(agent));
            // The first that is denied, if there are several: a second one would else be a way round.
            if is_denied(first) || agents.any(is_denied) {
                return Err(Denial::UserAgent);
            }
        }
        Ok(())
    }
}

/// Whether a client of this address passes all of these lists; `lists` is what their files have now.
///
/// # Errors
/// The first that it does not pass, and why.
pub fn pass_address(
    snapshot: &Snapshot,
    lists: &[Lists],
    ids: &[AccessId],
    address: IpAddr,
) -> Result<(), (AccessId, Denial)> {
    let nothing = Lists::default();
    ids.iter().try_for_each(|id| {
        let lists = lists.get(id.0 as usize).unwrap_or(&nothing);
        snapshot.access(*id).address(lists, address).map_err(|denial| (*id, denial))
    })
}

/// Whether a request passes all of these lists.
///
/// # Errors
/// The first that it does not pass, and why.
pub fn pass(
    snapshot: &Snapshot,
    lists: &[Lists],
    ids: &[AccessId],
    address: IpAddr,
    request: Request<'_>,
) -> Result<(), (AccessId, Denial)> {
    let nothing = Lists::default();
    ids.iter().try_for_each(|id| {
        let lists = lists.get(id.0 as usize).unwrap_or(&nothing);
        snapshot.access(*id).request(lists, address, request).map_err(|denial| (*id, denial))
    })
}

/// The field that tells of a client's software (RFC 9110 §10.1.5).
pub const USER_AGENT: &str = "user-agent";

#[cfg(test)]
mod tests {
    use sluice_wire::h1::parse::{self, HeadLimits, Progress};
    use sluice_wire::head::RequestHead;

    use super::*;

    fn side(networks: &[&str]) -> Side {
        let listed = networks.iter().map(|network| network.parse().expect("a network")).collect();
        Side { listed, file: None }
    }

    fn access(allow: &[&str], deny: &[&str]) -> Access {
        let (allow, deny) = (side(allow), side(deny));
        Access { name: "a".to_owned(), allow, deny, methods: Vec::new(), deny_user_agents: Vec::new() }
    }

    #[test]
    fn allowing_outranks_denying_and_alone_it_denies_the_rest() {
        let (ten, one) = ("10.0.0.0/8", "10.0.0.1/32");
        let cases = [
            (access(&[], &[]), "10.0.0.1", Ok(())),
            (access(&[], &[ten]), "10.0.0.1", Err(Denial::Denied)),
            (access(&[], &[ten]), "::ffff:10.0.0.1", Err(Denial::Denied)),
            (access(&[], &[ten]), "11.0.0.1", Ok(())),
            (access(&[ten], &[]), "10.0.0.1", Ok(())),
            (access(&[ten], &[]), "11.0.0.1", Err(Denial::NotAllowed)),
            (access(&[one], &[ten]), "10.0.0.1", Ok(())),
            (access(&[one], &[ten]), "10.0.0.2", Err(Denial::Denied)),
            (access(&[one], &[ten]), "11.0.0.1", Ok(())),
            (access(&[ten], &["0.0.0.0/0", "::/0"]), "2001:db8::1", Err(Denial::Denied)),
        ];
        for (access, address, expected) in cases {
            let found = access.address(&Lists::default(), address.parse().expect("an address"));
            assert_eq!(found, expected, "{address} of {access:?}");
        }
    }

    /// An allow list whose file has become empty must not let everybody in.
    #[test]
    fn a_file_counts_even_if_nothing_is_in_it() {
        let file = |prefixes| ListFile { path: PathBuf::from("list"), prefixes };
        let allow = Side { listed: Prefixes::default(), file: Some(file(Arc::default())) };
        let only = Access { allow, ..access(&[], &[]) };
        let address = "10.0.0.1".parse().expect("an address");
        assert_eq!(only.address(&only.lists(), address), Err(Denial::NotAllowed));
        let lists = Lists { allow: Some(Arc::new(side(&["10.0.0.0/8"]).listed)), deny: None };
        assert_eq!(only.address(&lists, address), Ok(()), "what is in it now counts");
    }

    #[test]
    fn requests_pass_by_method_and_user_agent() {
        let regex = regex::Regex::new("(?i)scan").expect("a regular expression");
        let patterns = vec![ValuePattern::Exact(String::new()), ValuePattern::Regex(regex)];
        let methods = vec!["GET".to_owned(), "HEAD".to_owned()];
        let access = Access { methods, deny_user_agents: patterns, ..access(&[], &[]) };
        let cases = [
            ("GET", "User-Agent: curl/8\r\n", Ok(())),
            ("POST", "User-Agent: curl/8\r\n", Err(Denial::Method)),
            ("HEAD", "User-Agent: BigScanner\r\n", Err(Denial::UserAgent)),
            ("GET", "", Err(Denial::UserAgent)),
            ("GET", "User-Agent: curl/8\r\nuser-agent: scan\r\n", Err(Denial::UserAgent)),
        ];
        for (method, fields, expected) in cases {
            let bytes = format!("{method} / HTTP/1.1\r\nHost: a\r\n{fields}\r\n").into_bytes();
            let limits = HeadLimits { head_bytes: 4096, fields: 20, line_bytes: 4096 };
            let mut head = RequestHead::default();
            assert_eq!(parse::request(&bytes, &mut Progress::default(), limits, &mut head), Ok(true));
            let request = Request { bytes: &bytes, head: &head };
            let address = "10.0.0.1".parse().expect("an address");
            assert_eq!(access.request(&Lists::default(), address, request), expected, "{method} {fields}");
        }
    }
}
