//! The port for people and programs.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use axum::Router;
use axum::extract::ConnectInfo;
use axum::http::{HeaderValue, Request, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::get;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::Instant;
use tower::Layer;
use tracing::{debug, error};

use super::metrics::{self, PortStats};
use super::{SHUTDOWN_TIME_MAX, ServeError, until};
use crate::acceptor::{Acceptor, AcceptorLimits, Counters};
use crate::api::{self, Api};
use crate::console;
use crate::settings::Operators;
use crate::tls::TlsError;

/// The TLS of the port, where it has one.
pub(super) fn tls(operators: &Operators) -> Result<Option<Arc<ServerConfig>>, ServeError> {
    let Some((certificate, key)) = &operators.tls else { return Ok(None) };
    let pem = |path: &Path| fs::read(path).map_err(|source| ServeError::Read { path: path.to_owned(), source });
    let chain: Result<Vec<CertificateDer<'static>>, _> = CertificateDer::pem_slice_iter(&pem(certificate)?).collect();
    let chain = chain.ok().filter(|chain| !chain.is_empty());
    let chain = chain.ok_or_else(|| ServeError::Pem { path: certificate.clone(), what: "certificate" })?;
    let private = PrivateKeyDer::from_pem_slice(&pem(key)?);
    let private = private.map_err(|_| ServeError::Pem { path: key.clone(), what: "private key" })?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, private));
    let mut config = config.map_err(|error| ServeError::OperatorsTls(TlsError::Setup(error)))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Some(Arc::new(config)))
}

fn router(api: Api, ports: PortStats) -> Router {
    let health = Router::new().route("/healthz", get(async || "ok\n"));
    health
        .merge(metrics::router(api.clone(), ports))
        .merge(console::router(api.clone()))
        .merge(api::router(api))
        .fallback(async || StatusCode::NOT_FOUND)
        .layer(middleware::from_fn(guarded))
}

/// What browsers are told of every page.
async fn guarded(request: Request<axum::body::Body>, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.entry(header::CONTENT_SECURITY_POLICY).or_insert(HeaderValue::from_static(
        "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'",
    ));
    response
}

/// Serves until the service stops.
pub(super) async fn serve(
    listener: TcpListener,
    tls: Option<Arc<ServerConfig>>,
    api: Api,
    ports: PortStats,
    stopped: watch::Receiver<bool>,
) {
    let router = router(api, ports);
    match tls {
        None => serve_plain(listener, router, stopped).await,
        Some(tls) => serve_tls(listener, tls, router, stopped).await,
    }
}

async fn serve_plain(listener: TcpListener, router: Router, mut stopped: watch::Receiver<bool>) {
    let mut on_stop = stopped.clone();
    let graceful = async move {
        until(&mut on_stop).await;
    };
    let router = router.into_make_service_with_connect_info::<SocketAddr>();
    let serving = axum::serve(listener, router).with_graceful_shutdown(graceful);
    let deadline = async {
        until(&mut stopped).await;
        // Who watches changes never ends by itself.
        tokio::time::sleep(SHUTDOWN_TIME_MAX / 5).await;
    };
    tokio::select! {
        served = async { serving.await } => if let Err(error) = served {
            error!(%error, "the operators' port ended");
        },
        () = deadline => {}
    }
}

async fn serve_tls(listener: TcpListener, tls: Arc<ServerConfig>, router: Router, mut stopped: watch::Receiver<bool>) {
    let (stop, deadline) = watch::channel(None);
    let mut server = auto::Builder::new(TokioExecutor::new());
    server.http1().timer(TokioTimer::new());
    server.http2().timer(TokioTimer::new());
    let server = Arc::new(server);
    let acceptor = Acceptor { listener, tls, limits: AcceptorLimits::default(), counters: Arc::<Counters>::default() };
    let accepting = acceptor.run(deadline, move |stream, address| {
        let (server, router) = (Arc::clone(&server), router.clone());
        async move {
            let service = axum::Extension(ConnectInfo(address)).layer(router);
            let served =
                server.serve_connection_with_upgrades(TokioIo::new(stream), TowerToHyperService::new(service)).await;
            if let Err(error) = served {
                debug!(%error, "a connection of the operators' port ended");
            }
        }
    });
    let stopping = async {
        until(&mut stopped).await;
        stop.send_replace(Some(Instant::now() + SHUTDOWN_TIME_MAX / 5));
        std::future::pending::<()>().await;
    };
    tokio::select! {
        _ = accepting => {}
        () = stopping => {}
    }
}
