//! `/live`: changes as they happen, as server-sent events.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::Stream;
use futures_util::stream::unfold;
use tokio::sync::broadcast::error::RecvError;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{Api, Caller, Problem};
use crate::store::Role;

/// Proxies cut off what is silent for a minute.
const KEEP_ALIVE: Duration = Duration::from_secs(20);

pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(live))
}

/// Changes from now on: `{"change":"device","device":"gate-7"}`. `{"change":"missed"}` says that there were too many: look
/// at everything again.
#[utoipa::path(get, path = "/live", tag = "live", responses(
    (status = 200, content_type = "text/event-stream", body = String), (status = 401, body = Problem),
    (status = 403, body = Problem)))]
async fn live(
    State(api): State<Api>,
    Caller(by): Caller,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Problem> {
    by.require(Role::Viewer)?;
    let changes = unfold(api.fleet.watch(), async |mut changes| {
        let text = match changes.recv().await {
            Ok(change) => serde_json::to_string(&change).expect("a change is names and numbers"),
            Err(RecvError::Lagged(_)) => r#"{"change":"missed"}"#.to_owned(),
            Err(RecvError::Closed) => return None,
        };
        Some((Ok(Event::default().data(text)), changes))
    });
    Ok(Sse::new(changes).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
}
