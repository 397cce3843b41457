//! The service's counters as Prometheus reads them (OpenMetrics text), for `/metrics`. Devices are no labels: there are
//! thousands.

use std::collections::BTreeMap;
use std::fmt;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Router};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};
use tokio::sync::watch;

use crate::acceptor::AcceptorStats;
use crate::api::{Api, Caller, Problem};
use crate::broker::BrokerStats;
use crate::device_port::DevicePortStats;

use super::flower::DoorStats;

/// What the ports have counted, as of the last second.
#[derive(Clone, Debug)]
pub(super) struct PortStats {
    pub(super) broker: watch::Receiver<BrokerStats>,
    pub(super) devices: watch::Receiver<DevicePortStats>,
    pub(super) doors: watch::Receiver<DoorStats>,
}

/// `/metrics`, for who may look.
pub(super) fn router(api: Api, ports: PortStats) -> Router {
    Router::new().route("/metrics", get(metrics)).layer(Extension(ports)).with_state(api)
}

async fn metrics(
    State(api): State<Api>,
    Caller(by): Caller,
    Extension(ports): Extension<PortStats>,
) -> Result<Response, Problem> {
    let text = api
        .ask(move |fleet| {
            let scrape = Scrape {
                healths: fleet.device_counts(&by)?,
                rollouts: fleet.rollout_counts(&by)?,
                runs: fleet.run_counts(&by)?,
                participants: fleet.participant_counts(),
                alerts: fleet.raised_alerts(&by)?.len() as u64,
                counts: fleet.counts(),
                deferred: fleet.deferred(),
                broker: *ports.broker.borrow(),
                devices: *ports.devices.borrow(),
                doors: *ports.doors.borrow(),
            };
            let mut registry = Registry::with_prefix("revoada_fleet");
            registry.register_collector(Box::new(scrape));
            let mut text = String::new();
            text::encode(&mut text, &registry).expect("writing into a string does not fail");
            Ok(text)
        })
        .await?;
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, content_type)], text).into_response())
}

#[derive(Debug)]
struct Scrape {
    healths: BTreeMap<&'static str, usize>,
    rollouts: BTreeMap<&'static str, u64>,
    runs: BTreeMap<&'static str, u64>,
    participants: BTreeMap<&'static str, u64>,
    alerts: u64,
    counts: crate::service::Counts,
    deferred: crate::planner::Deferred,
    broker: BrokerStats,
    devices: DevicePortStats,
    doors: DoorStats,
}

type Labelled = Vec<(&'static str, u64)>;

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let Self { healths, rollouts, counts, broker, devices, doors, .. } = self;
        let healths: Labelled = healths.iter().map(|(health, count)| (*health, *count as u64)).collect();
        let rollouts: Labelled = rollouts.iter().map(|(phase, count)| (*phase, *count)).collect();
        let mut gauge =
            |name, help, label, values: &Labelled| family(&mut encoder, MetricType::Gauge, (name, help), label, values);
        gauge("devices", "Enrolled devices, by how they are", "health", &healths)?;
        gauge("rollouts", "Rollouts, by their phase", "phase", &rollouts)?;
        let labelled = |counts: &BTreeMap<&'static str, u64>| counts.iter().map(|(name, it)| (*name, *it)).collect();
        gauge("learning_runs", "Runs of learning, by their phase", "phase", &labelled(&self.runs))?;
        gauge("learning_participants", "Who waits to learn, by how it came in", "door", &labelled(&self.participants))?;
        let open = vec![
            ("mqtt", broker.acceptor.open),
            ("devices", devices.acceptor.open),
            ("join", doors.join.acceptor.open),
        ];
        gauge("connections", "Open connections, those in a handshake too", "port", &open)?;
        let deferred =
            vec![("in-flight", self.deferred.by_in_flight), ("orders-per-minute", self.deferred.by_orders_per_minute)];
        gauge("orders_deferred", "Orders that are due and wait for room, by the limit", "limit", &deferred)?;
        gauge("alerts", "Alerts that are raised", "state", &vec![("raised", self.alerts)])?;
        gauge("downloads", "Downloads that are under way", "port", &vec![("devices", devices.downloads)])?;

        let mut counter = |name, help, label, values: &Labelled| {
            family(&mut encoder, MetricType::Counter, (name, help), label, values)
        };
        let heard = vec![
            ("report", counts.reports),
            ("event", counts.events),
            ("event-again", counts.events_known),
            ("unreadable", counts.unreadable),
        ];
        counter("messages_heard", "What devices said, by what it was", "what", &heard)?;
        let sent = vec![("order", counts.orders_sent), ("command", counts.commands_sent)];
        counter("messages_sent", "What devices were told, those that were told again too", "what", &sent)?;
        let plans = vec![("stored", counts.plans), ("lost", counts.plans_lost)];
        counter("plans", "Blueprints that were made, by what became of them", "outcome", &plans)?;
        let rounds =
            vec![("finished", counts.learning.rounds_finished), ("called-off", counts.learning.rounds_called_off)];
        counter("learning_rounds", "Rounds that are over, by how they ended", "outcome", &rounds)?;
        let updates =
            vec![("accepted", counts.learning.updates_accepted), ("refused", counts.learning.updates_refused)];
        counter("learning_updates", "Updates that participants sent, by what became of them", "outcome", &updates)?;
        let learned = vec![("received", counts.learning.bytes_received), ("sent", counts.learning.bytes_sent)];
        counter("learning_bytes", "Bytes of updates, and of the weights that went out", "direction", &learned)?;
        let messages = vec![("given", doors.nodes.messages), ("answered", doors.nodes.replies)];
        counter("supernode_messages", "Whole messages of SuperNodes, by their way", "direction", &messages)?;
        let mut refused = refusals("mqtt", &broker.acceptor);
        refused.extend(refusals("devices", &devices.acceptor));
        refused.extend(refusals("join", &doors.join.acceptor));
        let help = "Connections that were not let in, by port and reason";
        let mut family_of_two = encoder.encode_descriptor("connections_refused", help, None, MetricType::Counter)?;
        for (port, reason, count) in refused {
            let labels = [("port", port), ("reason", reason)];
            family_of_two.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&count, None)?;
        }
        let mut counter = |name, help, label, values: &Labelled| {
            family(&mut encoder, MetricType::Counter, (name, help), label, values)
        };
        let refusals = vec![
            ("mqtt-peer", broker.refused_peers),
            ("mqtt-session", broker.refused_sessions),
            ("mqtt-publish", broker.refused_publishes),
            ("mqtt-subscription", broker.refused_subscriptions),
            ("devices-peer", devices.refused_peers),
            ("devices-download", devices.refused_downloads),
            ("join-participant", doors.join.refused_participants),
            ("join-message", doors.join.refused_messages),
            ("join-broken", doors.join.broken),
            ("join-unused", doors.join.unused),
            ("node-peer", doors.nodes.refused_peers),
            ("node-request", doors.nodes.refused_requests),
            ("node-busy", doors.nodes.busy),
            ("sign-in", counts.sign_ins_failed),
        ];
        counter("requests_refused", "What was refused, by what it was", "what", &refusals)?;
        let trouble = vec![("batch", counts.batches_failed), ("webhook", counts.notices_lost)];
        counter("losses", "What was not kept or not told, by what it was", "what", &trouble)?;
        let help = "Bytes of blobs that devices fetched";
        let mut bytes = encoder.encode_descriptor("downloaded", help, Some(&Unit::Bytes), MetricType::Counter)?;
        bytes.encode_counter::<NoLabelSet, _, u64>(&devices.downloaded_bytes, None)
    }
}

/// One metric with one label.
fn family(
    encoder: &mut DescriptorEncoder<'_>,
    kind: MetricType,
    (name, help): (&str, &str),
    label: &'static str,
    values: &Labelled,
) -> fmt::Result {
    let is_gauge = matches!(kind, MetricType::Gauge);
    let mut family = encoder.encode_descriptor(name, help, None, kind)?;
    for (value, count) in values {
        let labels = [(label, *value)];
        let mut metric = family.encode_family(&labels)?;
        if is_gauge {
            metric.encode_gauge(count)?;
        } else {
            metric.encode_counter::<NoLabelSet, _, u64>(count, None)?;
        }
    }
    Ok(())
}

fn refusals(port: &'static str, stats: &AcceptorStats) -> Vec<(&'static str, &'static str, u64)> {
    vec![
        (port, "full", stats.refused_full),
        (port, "rate", stats.refused_rate),
        (port, "displaced", stats.displaced),
        (port, "handshake", stats.failed),
        (port, "timeout", stats.timed_out),
    ]
}

/// Where the ports leave their counters, and where they are read.
pub(super) fn stats()
-> (watch::Sender<BrokerStats>, watch::Sender<DevicePortStats>, watch::Sender<DoorStats>, PortStats) {
    let (broker_sender, broker) = watch::channel(BrokerStats::default());
    let (devices_sender, devices) = watch::channel(DevicePortStats::default());
    let (doors_sender, doors) = watch::channel(DoorStats::default());
    (broker_sender, devices_sender, doors_sender, PortStats { broker, devices, doors })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flower::{JoinDoorStats, NodeStats};

    fn text() -> String {
        let scrape = Scrape {
            healths: [("good", 3)].into(),
            rollouts: [("running", 1)].into(),
            runs: [("learning", 2)].into(),
            participants: [("join", 5)].into(),
            alerts: 2,
            counts: crate::service::Counts { reports: 7, ..crate::service::Counts::default() },
            deferred: crate::planner::Deferred::default(),
            broker: BrokerStats::default(),
            devices: DevicePortStats::default(),
            doors: DoorStats {
                join: JoinDoorStats { broken: 3, ..JoinDoorStats::default() },
                nodes: NodeStats { replies: 4, ..NodeStats::default() },
            },
        };
        let mut registry = Registry::with_prefix("revoada_fleet");
        registry.register_collector(Box::new(scrape));
        let mut text = String::new();
        text::encode(&mut text, &registry).unwrap();
        text
    }

    #[test]
    fn figures_are_labelled_by_small_closed_sets() {
        let text = text();
        for line in [
            "revoada_fleet_devices{health=\"good\"} 3",
            "revoada_fleet_rollouts{phase=\"running\"} 1",
            "revoada_fleet_learning_runs{phase=\"learning\"} 2",
            "revoada_fleet_learning_participants{door=\"join\"} 5",
            "revoada_fleet_learning_updates_total{outcome=\"refused\"} 0",
            "revoada_fleet_alerts{state=\"raised\"} 2",
            "revoada_fleet_messages_heard_total{what=\"report\"} 7",
            "revoada_fleet_connections_refused_total{port=\"mqtt\",reason=\"handshake\"} 0",
            "revoada_fleet_requests_refused_total{what=\"join-broken\"} 3",
            "revoada_fleet_supernode_messages_total{direction=\"answered\"} 4",
            "revoada_fleet_downloaded_bytes_total 0",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn the_dashboard_asks_for_metrics_that_there_are() {
        let dashboard = include_str!("../../../../configs/grafana-fleet.json");
        let text = text();
        let is_name = |c: char| c.is_ascii_lowercase() || c == '_';
        let mut asked = 0;
        for (start, _) in dashboard.match_indices("revoada_fleet_") {
            let name = &dashboard[start..];
            let name = &name[..name.find(|c| !is_name(c)).unwrap_or(name.len())];
            assert!(text.lines().any(|line| line.starts_with(name)), "there is no {name}");
            asked += 1;
        }
        assert!(asked > 10);
    }
}
