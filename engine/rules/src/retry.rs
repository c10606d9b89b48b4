//! Whether a request that failed may be sent again.

/// What is known when an attempt has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Whether the connection had served a request before.
    pub reused: bool,
    /// How far the request got.
    pub sent: Sent,
    /// Whether a byte of the response was seen.
    pub response_begun: bool,
    /// Whether all of the request is still at hand.
    pub replayable: bool,
    /// Whether there is another endpoint to go to.
    pub has_alternative: bool,
}

/// How far a request got on a connection that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// No connection came about.
    Nothing,
    /// Some or all of it was handed to the kernel, so the upstream may have acted on it.
    Something,
    /// All of it, and the upstream has said that it did nothing with it (RFC 9113 §8.7).
    Refused,
}

/// Whether to try again (RFC 9110 §9.2.2, RFC 9112 §9.3.1).
///
/// What was never sent may always be sent elsewhere. What may have been acted on is sent again only if its method
/// is idempotent, and only if the failure may be no more than a stale connection or there is somewhere else to
/// go. Once a byte of the response was seen, never.
pub fn may_retry(method: &str, attempt: Attempt) -> bool {
    if attempt.response_begun || !attempt.replayable {
        return false;
    }
    match attempt.sent {
        Sent::Nothing => attempt.has_alternative,
        Sent::Refused => true,
        Sent::Something => is_idempotent(method) && (attempt.reused || attempt.has_alternative),
    }
}

/// RFC 9110 §9.2.2.
pub fn is_idempotent(method: &str) -> bool {
    matches!(method, "GET" | "HEAD" | "PUT" | "DELETE" | "OPTIONS" | "TRACE")
}

#[cfg(test)]
mod tests {
    use super::*;

    const STALE: Attempt = Attempt {
        reused: true,
        sent: Sent::Something,
        response_begun: false,
        replayable: true,
        has_alternative: false,
    };

    #[test]
    fn a_stale_connection_is_retried_only_for_idempotent_methods() {
        assert!(may_retry("GET", STALE) && may_retry("DELETE", STALE));
        assert!(!may_retry("POST", STALE) && !may_retry("PATCH", STALE) && !may_retry("get", STALE));
    }

    #[test]
    fn nothing_is_retried_once_the_response_began_or_the_body_is_gone() {
        assert!(!may_retry("GET", Attempt { response_begun: true, ..STALE }));
        assert!(!may_retry("PUT", Attempt { replayable: false, ..STALE }));
    }

    #[test]
    fn a_fresh_connection_is_retried_only_elsewhere() {
        let fresh = Attempt { reused: false, ..STALE };
        assert!(!may_retry("GET", fresh));
        assert!(may_retry("GET", Attempt { has_alternative: true, ..fresh }));
        assert!(!may_retry("POST", Attempt { has_alternative: true, ..fresh }));
    }

    #[test]
    fn what_was_never_sent_may_go_elsewhere_whatever_the_method() {
        let refused = Attempt { reused: false, sent: Sent::Nothing, has_alternative: true, ..STALE };
        assert!(may_retry("POST", refused));
        assert!(!may_retry("POST", Attempt { has_alternative: false, ..refused }));
    }
}
