//! Every way in which a request can end early.
//!
//! A variant is a fact; what follows from it (status, who is at fault, the word in logs and metrics) are
//! exhaustive matches beside it. Words are those of RFC 9209 §2.3 where it has one.

use sluice_wire::h1::body::{ChunkError, FramingError};
use sluice_wire::h1::parse::HeadError;
use sluice_wire::h2::Malformed;
use sluice_wire::target::TargetError;

/// Why a request was not served as asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The head is not strictly valid, or over a bound.
    RequestHead(HeadError),
    /// A request of HTTP/2 that is not strictly valid, or over a bound.
    RequestMalformed(Malformed),
    /// Where the request ends is ambiguous.
    RequestFraming(FramingError),
    /// The request target cannot be made canonical.
    RequestTarget(TargetError),
    /// `Host` is missing, doubled or invalid, or the authority of the target is invalid.
    RequestHost,
    /// A field name has an underscore, which many applications take for a hyphen.
    RequestUnderscore,
    /// The authority is not one that the connection's certificate is for (RFC 9110 §7.4).
    RequestMisdirected,
    /// A WebSocket handshake that is none (RFC 6455 §4.1).
    RequestUpgrade,
    /// The chunked content is not strictly valid.
    RequestChunk(ChunkError),
    /// The client closed or broke the connection before its request was complete.
    RequestIncomplete,
    /// The head took longer than `timeouts.header`.
    HeaderTimeout,
    /// The body made no progress for `timeouts.body`, or was slower than `limits.min-rate`.
    BodyTimeout,
    /// The body is over its limit.
    BodyTooLarge,
    /// An `Expect` other than `100-continue`.
    Expectation,
    /// CONNECT, which a gateway does not do.
    MethodUnsupported,
    /// The route exists, and not for this method.
    MethodNotAllowed,
    /// No route matches.
    NoRoute,
    /// The client has asked for more than a limit of the route allows.
    RateLimited,
    /// An access list does not let the client or its request pass.
    AccessDenied,
    /// The client is banned.
    Banned,
    /// The client is slowed down for what it did, and asks for more than it may.
    Throttled,
    /// The client is held up for what it did.
    Tarpitted,
    /// The client went away while the upstream was at work.
    ClientGone,
    /// The client did not take the response within `timeouts.write`.
    WriteTimeout,
    /// All message buffers of the core are in use.
    OutOfMemory,
    /// The listener has as many connections as it may have.
    ConnectionLimit,
    /// The upstream has as many requests as it may have, and as many wait as may.
    QueueFull {
        /// Seconds after which it may be worth to try again.
        retry_after: u16,
    },
    /// The upstream has as many requests as it may have, and would have for longer than one may wait.
    QueueTimeout {
        /// Seconds after which it may be worth to try again.
        retry_after: u16,
    },
    /// The core has too much to do, and others matter more.
    Overloaded,
    /// No address of the upstream is known: its names do not resolve.
    DnsError,
    /// Every endpoint of the upstream fails its health checks.
    DestinationUnavailable,
    /// The connection to the upstream was refused or could not be made.
    ConnectionRefused,
    /// The upstream did not accept the connection within `timeouts.connect`.
    ConnectionTimeout,
    /// No descriptor was left for a connection to the upstream.
    DescriptorLimit,
    /// The upstream's certificate is not trusted, or not for the name that is asked for.
    TlsCertificate,
    /// The upstream refused the TLS handshake, by an alert.
    TlsAlert,
    /// The TLS handshake with the upstream failed otherwise.
    TlsProtocol,
    /// The upstream closed the connection before a response.
    ConnectionTerminated,
    /// No response within `timeouts.response`, or none complete within the route's `timeout`.
    ResponseTimeout,
    /// The upstream stopped in the middle for longer than `timeouts.idle`.
    ReadTimeout,
    /// The upstream's response ended before its content was complete.
    ResponseIncomplete,
    /// The upstream's response head is not strictly valid.
    ResponseHead(HeadError),
    /// Where the upstream's response ends is ambiguous.
    ResponseFraming(FramingError),
    /// The upstream's chunked content is not strictly valid.
    ResponseChunk(ChunkError),
    /// The head of the upstream's response by HTTP/2 is not strictly valid.
    ResponseMalformed(Malformed),
    /// The upstream does not speak HTTP/2 as it should, or at all.
    ResponseProtocol,
    /// The upstream reset the stream before a response.
    ResponseReset,
    /// More interim responses than may be.
    ResponseInterim,
    /// A 101 that nobody asked for, or to another protocol.
    UpgradeFailed,
    /// A bug of ours.
    Internal,
}

/// Whose fault a failure is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The client's.
    Client,
    /// The gateway's.
    Gateway,
    /// The upstream's.
    Upstream,
}

impl Failure {
    /// The status code for the client (RFC 9110 §15).
    pub fn status(self) -> u16 {
        match self {
            Failure::RequestHead(error) => match error {
                HeadError::LineTooLong { .. } => 414,
                HeadError::HeadTooLong { .. } | HeadError::TooManyFields { .. } => 431,
                HeadError::Version => 505,
                HeadError::FirstLine
                | HeadError::FieldName
                | HeadError::FieldValue
                | HeadError::LineEnd
                | HeadError::Status => 400,
            },
            Failure::RequestMalformed(Malformed::Bound(error)) => Failure::RequestHead(error).status(),
            Failure::RequestMalformed(Malformed::Protocol)
            | Failure::RequestFraming(FramingError::Unsupported)
            | Failure::MethodUnsupported => 501,
            Failure::RequestMalformed(_)
            | Failure::RequestFraming(_)
            | Failure::RequestTarget(_)
            | Failure::RequestHost
            | Failure::RequestUnderscore
            | Failure::RequestUpgrade
            | Failure::RequestChunk(_)
            | Failure::RequestIncomplete => 400,
            Failure::HeaderTimeout | Failure::BodyTimeout => 408,
            Failure::BodyTooLarge => 413,
            Failure::Expectation => 417,
            Failure::RequestMisdirected => 421,
            Failure::MethodNotAllowed => 405,
            Failure::NoRoute => 404,
            // RFC 6585 §4
            Failure::RateLimited => 429,
            Failure::AccessDenied | Failure::Banned => 403,
            Failure::Throttled | Failure::Tarpitted => 429,
            // Nobody reads it; the code is the one that nginx made known for this in logs.
            Failure::ClientGone | Failure::WriteTimeout => 499,
            Failure::OutOfMemory
            | Failure::ConnectionLimit
            | Failure::DescriptorLimit
            | Failure::QueueFull { .. }
            | Failure::QueueTimeout { .. }
            | Failure::Overloaded
            | Failure::DnsError
            | Failure::DestinationUnavailable => 503,
            Failure::ConnectionRefused
            | Failure::TlsCertificate
            | Failure::TlsAlert
            | Failure::TlsProtocol
            | Failure::ConnectionTerminated
            | Failure::ResponseIncomplete
            | Failure::ResponseHead(_)
            | Failure::ResponseFraming(_)
            | Failure::ResponseChunk(_)
            | Failure::ResponseMalformed(_)
            | Failure::ResponseProtocol
            | Failure::ResponseReset
            | Failure::ResponseInterim
            | Failure::UpgradeFailed => 502,
            Failure::ConnectionTimeout | Failure::ResponseTimeout | Failure::ReadTimeout => 504,
            Failure::Internal => 500,
        }
    }

    /// The word in `Proxy-Status`, logs and metrics (RFC 9209 §2.3 where it has one).
    pub fn label(self) -> &'static str {
        match self {
            Failure::RequestHead(_)
            | Failure::RequestMalformed(_)
            | Failure::RequestFraming(_)
            | Failure::RequestTarget(_)
            | Failure::RequestHost
            | Failure::RequestUnderscore
            | Failure::RequestUpgrade
            | Failure::RequestChunk(_)
            | Failure::RequestIncomplete
            | Failure::Expectation
            | Failure::MethodUnsupported => "http_request_error",
            Failure::RequestMisdirected => "misdirected_request",
            Failure::HeaderTimeout => "header_timeout",
            Failure::BodyTimeout => "body_timeout",
            Failure::BodyTooLarge => "body_too_large",
            Failure::MethodNotAllowed => "method_not_allowed",
            Failure::NoRoute => "no_route",
            Failure::RateLimited => "rate_limited",
            Failure::AccessDenied => "http_request_denied",
            Failure::Banned => "banned",
            Failure::Throttled => "throttled",
            Failure::Tarpitted => "tarpitted",
            Failure::ClientGone => "client_gone",
            Failure::WriteTimeout => "write_timeout",
            Failure::OutOfMemory => "out_of_memory",
            Failure::ConnectionLimit | Failure::DescriptorLimit => "connection_limit_reached",
            Failure::QueueFull { .. } => "queue_full",
            Failure::QueueTimeout { .. } => "queue_timeout",
            Failure::Overloaded => "overloaded",
            Failure::DnsError => "dns_error",
            Failure::DestinationUnavailable => "destination_unavailable",
            Failure::ConnectionRefused => "connection_refused",
            Failure::ConnectionTimeout => "connection_timeout",
            Failure::TlsCertificate => "tls_certificate_error",
            Failure::TlsAlert => "tls_alert_received",
            Failure::TlsProtocol => "tls_protocol_error",
            Failure::ConnectionTerminated | Failure::ResponseReset => "connection_terminated",
            Failure::ResponseTimeout => "http_response_timeout",
            Failure::ReadTimeout => "connection_read_timeout",
            Failure::ResponseIncomplete => "http_response_incomplete",
            Failure::ResponseHead(HeadError::HeadTooLong { .. } | HeadError::TooManyFields { .. }) => {
                "http_response_header_section_size"
            }
            Failure::ResponseHead(_)
            | Failure::ResponseFraming(_)
            | Failure::ResponseMalformed(_)
            | Failure::ResponseProtocol
            | Failure::ResponseInterim => "http_protocol_error",
            Failure::ResponseChunk(_) => "http_response_transfer_coding",
            Failure::UpgradeFailed => "http_upgrade_failed",
            Failure::Internal => "proxy_internal_error",
        }
    }

    /// The error type in `Proxy-Status` (RFC 9209 §2.3): [`Failure::label`] where that is one.
    pub fn error_type(self) -> &'static str {
        match self.side() {
            Side::Client if self.is_policy() => "http_request_denied",
            Side::Client => "http_request_error",
            Side::Gateway | Side::Upstream => match self {
                Failure::OutOfMemory => "proxy_internal_error",
                // RFC 9209 §2.3.12
                Failure::QueueFull { .. } | Failure::QueueTimeout { .. } => "connection_limit_reached",
                // RFC 9209 §2.3.30
                Failure::Overloaded => "proxy_internal_response",
                other => other.label(),
            },
        }
    }

    /// Seconds after which a client may try again (RFC 9110 §10.2.3). `None`: nothing is known.
    pub fn retry_after(self) -> Option<u16> {
        match self {
            Failure::QueueFull { retry_after } | Failure::QueueTimeout { retry_after } => Some(retry_after),
            // Who is looked at each second; a limit tells by itself when it has room.
            Failure::Throttled | Failure::Tarpitted => Some(1),
            other => (other.status() == 503).then_some(1),
        }
    }

    /// Whether the client is refused for who it is or what it did before, not for what is wrong with its request.
    pub fn is_policy(self) -> bool {
        matches!(
            self,
            Failure::RateLimited | Failure::AccessDenied | Failure::Banned | Failure::Throttled | Failure::Tarpitted
        )
    }

    /// The status of a gRPC call that ends so (gRPC, status codes and their use).
    pub fn grpc_status(self) -> u8 {
        const CANCELLED: u8 = 1;
        const UNKNOWN: u8 = 2;
        const DEADLINE_EXCEEDED: u8 = 4;
        const PERMISSION_DENIED: u8 = 7;
        const RESOURCE_EXHAUSTED: u8 = 8;
        const UNIMPLEMENTED: u8 = 12;
        const INTERNAL: u8 = 13;
        const UNAVAILABLE: u8 = 14;
        const UNAUTHENTICATED: u8 = 16;
        match self.status() {
            499 => CANCELLED,
            408 | 504 => DEADLINE_EXCEEDED,
            401 => UNAUTHENTICATED,
            403 => PERMISSION_DENIED,
            404 | 405 | 501 => UNIMPLEMENTED,
            413 | 414 | 429 | 431 => RESOURCE_EXHAUSTED,
            502 | 503 => UNAVAILABLE,
            400 | 500 => INTERNAL,
            _ => UNKNOWN,
        }
    }

    /// Whose fault it is.
    pub fn side(self) -> Side {
        match self {
            Failure::RequestHead(_)
            | Failure::RequestMalformed(_)
            | Failure::RequestFraming(_)
            | Failure::RequestTarget(_)
            | Failure::RequestHost
            | Failure::RequestUnderscore
            | Failure::RequestMisdirected
            | Failure::RequestUpgrade
            | Failure::RequestChunk(_)
            | Failure::RequestIncomplete
            | Failure::HeaderTimeout
            | Failure::BodyTimeout
            | Failure::BodyTooLarge
            | Failure::Expectation
            | Failure::MethodUnsupported
            | Failure::MethodNotAllowed
            | Failure::NoRoute
            | Failure::RateLimited
            | Failure::AccessDenied
            | Failure::Banned
            | Failure::Throttled
            | Failure::Tarpitted
            | Failure::ClientGone
            | Failure::WriteTimeout => Side::Client,
            Failure::OutOfMemory
            | Failure::ConnectionLimit
            | Failure::DescriptorLimit
            | Failure::QueueFull { .. }
            | Failure::QueueTimeout { .. }
            | Failure::Overloaded
            | Failure::Internal => Side::Gateway,
            Failure::DnsError
            | Failure::DestinationUnavailable
            | Failure::ConnectionRefused
            | Failure::ConnectionTimeout
            | Failure::TlsCertificate
            | Failure::TlsAlert
            | Failure::TlsProtocol
            | Failure::ConnectionTerminated
            | Failure::ResponseTimeout
            | Failure::ReadTimeout
            | Failure::ResponseIncomplete
            | Failure::ResponseHead(_)
            | Failure::ResponseFraming(_)
            | Failure::ResponseChunk(_)
            | Failure::ResponseMalformed(_)
            | Failure::ResponseProtocol
            | Failure::ResponseReset
            | Failure::ResponseInterim
            | Failure::UpgradeFailed => Side::Upstream,
        }
    }

    /// What the client is told. Nothing about the inside of the network: an upstream's failure has one text for
    /// each status, and the cause goes to the log.
    pub fn detail(self) -> &'static str {
        match self {
            Failure::RequestHead(error) => match error {
                HeadError::FirstLine => "The request line is malformed.",
                HeadError::Version => "Only HTTP/1.0 and HTTP/1.1 are spoken here.",
                HeadError::FieldName => "A field name is invalid, or a field is continued on a second line.",
                HeadError::FieldValue => "A field value has an invalid character.",
                HeadError::LineEnd => "A line does not end in CRLF.",
                HeadError::Status => "The head is malformed.",
                HeadError::LineTooLong { .. } => "The request line is too long.",
                HeadError::HeadTooLong { .. } => "The field section is too large.",
                HeadError::TooManyFields { .. } => "The request has too many fields.",
            },
            Failure::RequestMalformed(Malformed::Bound(error)) => Failure::RequestHead(error).detail(),
            Failure::RequestMalformed(Malformed::Protocol) => "The only protocol for CONNECT here is websocket.",
            Failure::RequestMalformed(_) => "The request is malformed.",
            Failure::RequestFraming(error) => match error {
                FramingError::Both => "Content-Length and Transfer-Encoding exclude each other.",
                FramingError::Length => "Content-Length is invalid.",
                FramingError::Coding => "Transfer-Encoding is invalid.",
                FramingError::Unsupported => "The only transfer coding understood here is chunked.",
                FramingError::Version => "HTTP/1.0 has no Transfer-Encoding.",
            },
            Failure::RequestTarget(error) => match error {
                TargetError::Form => "The request target has an invalid form.",
                TargetError::Character => "The request target has an invalid character.",
                TargetError::PercentEncoding => "The path has an invalid percent-encoding.",
                TargetError::Encoded => "The path has a forbidden percent-encoded character.",
                TargetError::AboveRoot => "The path leads above its root.",
                TargetError::Scheme => "The scheme of the request target is invalid.",
            },
            Failure::RequestHost => "Exactly one valid Host is needed.",
            Failure::RequestUnderscore => "Field names with an underscore are not accepted here.",
            Failure::RequestMisdirected => "The host is not one that this connection is for.",
            Failure::RequestUpgrade => "The WebSocket handshake is invalid.",
            Failure::RequestChunk(_) => "The chunked content is invalid.",
            Failure::RequestIncomplete => "The request is incomplete.",
            Failure::HeaderTimeout => "The request head took too long.",
            Failure::BodyTimeout => "The request content took too long.",
            Failure::BodyTooLarge => "The request content is too large.",
            Failure::Expectation => "The expectation cannot be met.",
            Failure::MethodUnsupported => "The method is not implemented here.",
            Failure::MethodNotAllowed => "The method is not allowed for this target.",
            Failure::NoRoute => "Nothing is served at this target.",
            Failure::RateLimited => "Too many requests; try again later.",
            Failure::AccessDenied | Failure::Banned => "Access is denied.",
            Failure::Throttled | Failure::Tarpitted => "There were too many requests from this address.",
            Failure::ClientGone | Failure::WriteTimeout => "The client has gone.",
            Failure::OutOfMemory
            | Failure::ConnectionLimit
            | Failure::DescriptorLimit
            | Failure::QueueFull { .. }
            | Failure::QueueTimeout { .. }
            | Failure::Overloaded
            | Failure::DnsError
            | Failure::DestinationUnavailable => "The service is overloaded or not available now.",
            Failure::ConnectionRefused
            | Failure::TlsCertificate
            | Failure::TlsAlert
            | Failure::TlsProtocol
            | Failure::ConnectionTerminated
            | Failure::ResponseIncomplete
            | Failure::ResponseHead(_)
            | Failure::ResponseFraming(_)
            | Failure::ResponseChunk(_)
            | Failure::ResponseMalformed(_)
            | Failure::ResponseProtocol
            | Failure::ResponseReset
            | Failure::ResponseInterim
            | Failure::UpgradeFailed => "The service behind this gateway gave no valid response.",
            Failure::ConnectionTimeout | Failure::ResponseTimeout | Failure::ReadTimeout => {
                "The service behind this gateway did not respond in time."
            }
            Failure::Internal => "The gateway failed.",
        }
    }

    /// Whether the connection to the client carries no further request: where the next one would start is not known,
    /// or none is wanted.
    pub fn closes(self) -> bool {
        match self {
            Failure::RequestHead(_)
            | Failure::RequestMalformed(_)
            | Failure::RequestFraming(_)
            | Failure::RequestChunk(_)
            | Failure::RequestTarget(_)
            | Failure::RequestHost
            | Failure::RequestUnderscore
            | Failure::RequestIncomplete
            | Failure::HeaderTimeout
            | Failure::BodyTimeout
            | Failure::BodyTooLarge
            | Failure::MethodUnsupported
            | Failure::ClientGone
            | Failure::WriteTimeout
            | Failure::OutOfMemory
            | Failure::ConnectionLimit
            | Failure::Banned
            | Failure::Tarpitted
            | Failure::Internal => true,
            Failure::RequestMisdirected
            | Failure::RequestUpgrade
            | Failure::Expectation
            | Failure::MethodNotAllowed
            | Failure::NoRoute
            | Failure::QueueFull { .. }
            | Failure::QueueTimeout { .. }
            | Failure::Overloaded
            | Failure::RateLimited
            | Failure::AccessDenied
            | Failure::Throttled
            | Failure::DnsError
            | Failure::DestinationUnavailable
            | Failure::ConnectionRefused
            | Failure::ConnectionTimeout
            | Failure::DescriptorLimit
            | Failure::TlsCertificate
            | Failure::TlsAlert
            | Failure::TlsProtocol
            | Failure::ConnectionTerminated
            | Failure::ResponseTimeout
            | Failure::ReadTimeout
            | Failure::ResponseIncomplete
            | Failure::ResponseHead(_)
            | Failure::ResponseFraming(_)
            | Failure::ResponseChunk(_)
            | Failure::ResponseMalformed(_)
            | Failure::ResponseProtocol
            | Failure::ResponseReset
            | Failure::ResponseInterim
            | Failure::UpgradeFailed => false,
        }
    }
}

/// The reason phrase of a status code that the gateway itself sends (RFC 9110 §15).
pub fn reason(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        103 => "Early Hints",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        206 => "Partial Content",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        410 => "Gone",
        413 => "Content Too Large",
        414 => "URI Too Long",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The client learns who is at fault from the class of the status alone.
    #[test]
    fn the_status_class_agrees_with_the_side() {
        for failure in [
            Failure::RequestHead(HeadError::FirstLine),
            Failure::RequestFraming(FramingError::Both),
            Failure::RequestHost,
            Failure::HeaderTimeout,
            Failure::NoRoute,
            Failure::RateLimited,
            Failure::AccessDenied,
            Failure::Throttled,
            Failure::ClientGone,
            Failure::OutOfMemory,
            Failure::QueueFull { retry_after: 2 },
            Failure::QueueTimeout { retry_after: 2 },
            Failure::Overloaded,
            Failure::DnsError,
            Failure::ConnectionRefused,
            Failure::ResponseTimeout,
            Failure::ResponseHead(HeadError::FieldName),
            Failure::Internal,
        ] {
            assert_eq!(failure.side() == Side::Client, failure.status() < 500, "{failure:?}");
            assert!(!failure.label().is_empty() && failure.detail().ends_with('.'));
        }
    }

    /// RFC 9209 §2.3 knows no queues: what clients are told is the nearest type that it has.
    #[test]
    fn who_waits_in_vain_is_told_when_to_try_again() {
        for (failure, label, error_type, retry_after) in [
            (Failure::QueueFull { retry_after: 7 }, "queue_full", "connection_limit_reached", 7),
            (Failure::QueueTimeout { retry_after: 3 }, "queue_timeout", "connection_limit_reached", 3),
            (Failure::Overloaded, "overloaded", "proxy_internal_response", 1),
        ] {
            assert_eq!((failure.status(), failure.label(), failure.error_type()), (503, label, error_type));
            assert_eq!(
                (failure.retry_after(), failure.closes(), failure.grpc_status()),
                (Some(retry_after), false, 14)
            );
        }
    }

    #[test]
    fn each_bound_of_the_head_has_its_own_status() {
        let status = |error| Failure::RequestHead(error).status();
        assert_eq!(status(HeadError::LineTooLong { limit: 1 }), 414);
        assert_eq!(status(HeadError::HeadTooLong { limit: 1 }), 431);
        assert_eq!(status(HeadError::TooManyFields { limit: 1 }), 431);
        assert_eq!(status(HeadError::Version), 505);
        assert_eq!(Failure::RequestFraming(FramingError::Unsupported).status(), 501);
    }
}
