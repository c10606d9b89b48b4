//! How endpoints are asked whether they can serve.

use std::time::Duration;

/// How the endpoints of an upstream are asked whether they can serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// What is asked.
    pub question: HealthQuestion,
    /// From one question to the next.
    pub interval: Duration,
    /// To answer.
    pub timeout: Duration,
    /// Good answers in a row after which an endpoint that was out serves again.
    pub rise: u32,
    /// Bad answers in a row after which an endpoint serves no more.
    pub fall: u32,
}

/// What an endpoint is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HealthQuestion {
    /// To be connected to: the TLS handshake too, where there is one.
    Connect,
    /// For a resource, with GET: a status of 2xx or 3xx is a good answer.
    Http {
        /// The target.
        path: String,
        /// `Host`. `None`: that of the endpoint.
        host: Option<String>,
    },
    /// By gRPC whether a service serves (`grpc.health.v1.Health/Check`).
    Grpc {
        /// The name of the service. Empty: the server as a whole.
        service: String,
    },
}
