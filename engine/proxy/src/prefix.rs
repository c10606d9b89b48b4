//! Taking the PROXY prefix of a connection, and not a byte of what follows.

use std::net::SocketAddr;

use sluice_wire::proxy_protocol::{self, Origin, PREFIX_MAX, PrefixError};

use crate::rt::{self, Stream};

/// Why there is no prefix.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PrefixFailed {
    /// The connection ended or was ended first.
    #[error("the connection ended")]
    Closed,
    /// It is not valid.
    #[error(transparent)]
    Invalid(#[from] PrefixError),
}

/// Takes the prefix. `None`: the sender talks for itself. The caller bounds the time, by shutting the socket down.
///
/// What is there is looked at before it is taken, so that whoever comes next finds the connection as a client made it.
pub(crate) async fn take(stream: &Stream) -> Result<Option<SocketAddr>, PrefixFailed> {
    let mut prefix = Vec::new();
    loop {
        stream.readable().await.map_err(|_| PrefixFailed::Closed)?;
        let before = prefix.len();
        // Long prefixes are rare, and none is longer than this.
        prefix.resize(PREFIX_MAX, 0);
        let seen = rt::peek(stream.fd(), &mut prefix[before..]).map_err(|_| PrefixFailed::Closed)?;
        prefix.truncate(before + seen);
        let read = proxy_protocol::read(&prefix)?;
        let length = read.map_or(prefix.len(), |(_, length)| length);
        if seen == 0 || !rt::discard(stream.fd(), &mut prefix[before..length]) {
            return Err(PrefixFailed::Closed);
        }
        match read {
            Some((Origin::Proxied { source, .. }, _)) => return Ok(Some(source)),
            Some((Origin::Sender, _)) => return Ok(None),
            None => {}
        }
    }
}
