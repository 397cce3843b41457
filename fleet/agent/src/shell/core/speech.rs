//! What the agent says: reports, events, and how it is.

use std::collections::btree_map::Entry;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use revoada_core::{causes, sentence_of};
use revoada_proto::message::encode_report;
use revoada_proto::topic::MESSAGE_BYTES_MAX;
use revoada_proto::{Channel, CommandResult, Details, Event, Kind, Level};
use semver::Version;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tracing::{error, info, warn};

use super::{SaidReport, Shell};
use crate::shell::facts;
use crate::shell::status::{Counts, Status};
use crate::shell::{report, vitals};
use crate::{Phase, ReportId};

/// Events that the service was told and has not receipted.
const EVENTS_AT_ONCE: usize = 32;
/// An event without a receipt is said again after so long.
const EVENT_TIME_MAX: Duration = Duration::from_secs(60);
/// Reports without a receipt that are remembered.
const REPORTS_MAX: usize = 64;
const STATUS_TIME_MAX: Duration = Duration::from_secs(2);

impl Shell {
    /// Reports what the reconciler reported last; whether that could be said.
    pub(super) fn say_report(&mut self, id: Option<ReportId>) -> bool {
        let (Some(link), Some(reported)) = (self.link.as_ref().filter(|_| self.is_connected), &self.reported) else {
            return false;
        };
        let sequence = self.numbers.next();
        let active_model = self.agent.active().get(&Kind::Model).map(|placed| placed.digest);
        let measured = self.measured.as_ref().filter(|measured| Some(measured.model) == active_model);
        let figures = report::figures(&self.vitals, measured);
        let mut details = Details {
            streams: self.vitals.streams.clone(),
            version: Version::parse(env!("CARGO_PKG_VERSION")).ok(),
            class: self.facts.class.clone(),
            facts: facts::changed(&self.known_facts, &self.facts.facts),
            refused: reported.refused.map(|(generation, why)| (generation, report::refusal(why).to_owned())),
            slots: report::slots(&self.agent),
        };
        let report = report::report(sequence, reported, figures, self.trouble.as_deref());
        let mut bytes = encode_report(&report, &details);
        if bytes.len() > MESSAGE_BYTES_MAX {
            warn!(bytes = bytes.len(), "a report is too long, and goes without facts");
            details.facts.clear();
            bytes = encode_report(&report, &details);
        }
        let is_said = link.say(Channel::State, bytes);
        if is_said {
            self.said_reports.insert(sequence, SaidReport { id, facts: details.facts });
            while self.said_reports.len() > REPORTS_MAX {
                self.said_reports.pop_first();
            }
        }
        is_said
    }

    /// Keeps an event until the service has it.
    pub(super) fn event(&mut self, level: Level, name: &str, text: String) {
        self.keep(level, name, text, None);
    }

    pub(super) fn answer_command(&mut self, result: CommandResult) {
        let (level, text) = match &result.outcome {
            Ok(text) => (Level::Info, text.clone()),
            Err(text) => (Level::Warn, text.clone()),
        };
        self.keep(level, "command-ended", text, Some(result));
        if let Err(error) = self.numbers.end() {
            warn!(error = %sentence_of(causes(&error)), "the next start will answer this command again");
        }
    }

    fn keep(&mut self, level: Level, name: &str, text: String, result: Option<CommandResult>) {
        match level {
            Level::Info => info!(event = name, text),
            Level::Warn => warn!(event = name, text),
            Level::Error => error!(event = name, text),
        }
        if let Err(error) = self.log.note(&format!("{name}: {text}")) {
            warn!(%error, "cannot note an event in the log");
        }
        let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let at_ms = u64::try_from(at.as_millis()).unwrap_or(u64::MAX);
        let sequence = self.numbers.next();
        let event = Event { sequence, at_ms, level, name: name.to_owned(), text, result, lost: 0 };
        if let Err(error) = self.spool.push(&event) {
            error!(error = %sentence_of(causes(&error)), event = name, "an event is lost");
        }
        self.say_events();
    }

    /// Says the oldest events that were not said on this connection, as many as may be without a receipt.
    pub(super) fn say_events(&mut self) {
        let Some(link) = self.link.as_ref().filter(|_| self.is_connected) else { return };
        let now = self.clock.now();
        for (sequence, bytes) in self.spool.iter() {
            if self.said_events.len() >= EVENTS_AT_ONCE {
                return;
            }
            if let Entry::Vacant(unsaid) = self.said_events.entry(sequence) {
                if !link.say(Channel::Event, bytes.to_vec()) {
                    return;
                }
                unsaid.insert(now);
            }
        }
    }

    /// Says again what has had no receipt for long.
    pub(super) fn repeat_events(&mut self) {
        let now = self.clock.now();
        self.said_events.retain(|_, said_at| now.since(*said_at) < EVENT_TIME_MAX);
        self.say_events();
    }

    /// Makes events of what the reconciler has counted or come to since.
    pub(super) fn tell_what_happened(&mut self, before: Phase) {
        let (seen, now) = (self.seen, self.agent.counts());
        self.seen = now;
        let known = self.agent.known();
        if now.orders_accepted > seen.orders_accepted {
            self.trouble = None;
            self.event(Level::Info, "order-accepted", format!("generation {known}"));
        }
        let refused = (now.orders_expired - seen.orders_expired) + (now.orders_superseded - seen.orders_superseded);
        if refused > 0 {
            self.counts.orders_refused += now.orders_expired - seen.orders_expired;
            let text = "the order has expired, or a newer one came before it was saved".to_owned();
            self.event(Level::Warn, "order-refused", text);
        }
        if now.orders_stale > seen.orders_stale {
            // The one that is known comes again with every connection; only a lower one is worth a word.
            self.counts.orders_refused += now.orders_stale - seen.orders_stale;
        }
        if now.commits > seen.commits {
            self.trouble = None;
            self.event(Level::Info, "committed", format!("generation {known}"));
            self.keep_programs();
        }
        let phase = self.agent.phase();
        if let Phase::Failed(failure) = phase
            && phase != before
        {
            let name = if failure.is_rollback() { "rolled-back" } else { "given-up" };
            let trouble = self.trouble.as_deref().map(|trouble| format!(": {trouble}")).unwrap_or_default();
            self.event(report::level(failure), name, format!("{}{trouble}", report::why(failure)));
        }
    }

    /// Removes programs that nothing can go back to.
    fn keep_programs(&mut self) {
        let held = self.agent.contents().iter().filter(|((kind, _), _)| *kind == Kind::Package);
        let mut kept: Vec<_> = held.map(|(_, digest)| *digest).collect();
        kept.extend(self.update.good());
        kept.extend(self.update.own());
        if let Err(error) = self.programs.keep(&kept) {
            warn!(%error, "cannot remove old programs");
        }
    }

    pub(super) async fn answer_status(&mut self, asker: std::io::Result<(UnixStream, tokio::net::unix::SocketAddr)>) {
        let Ok((mut stream, _)) = asker else { return };
        let Ok(text) = serde_json::to_vec(&self.status()) else { return };
        // One that does not read is left alone.
        tokio::spawn(async move { drop(tokio::time::timeout(STATUS_TIME_MAX, stream.write_all(&text)).await) });
    }

    fn status(&self) -> Status {
        let counts = self.agent.counts();
        let progress = match self.reported.as_ref() {
            Some(reported) => match report::report(0, reported, Default::default(), self.trouble.as_deref()).progress {
                revoada_proto::Progress::Done => "done".to_owned(),
                revoada_proto::Progress::Working { what } => what,
                revoada_proto::Progress::Failed { why, .. } => format!("failed: {why}"),
            },
            None => "has nothing to do yet".to_owned(),
        };
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            device: super::lock(&self.identity).as_ref().map(|identity| identity.device.to_string()),
            server: self.config.server.to_string(),
            is_connected: self.is_connected,
            generation: self.agent.known(),
            progress,
            running: self.agent.active().iter().map(|(kind, placed)| (*kind, placed.digest)).collect(),
            fps: self.vitals.fps,
            latency_ms: self.vitals.latency_ms,
            temperature_c: vitals::temperature_c(std::path::Path::new("/")),
            restarts: self.vitals.restarts,
            events_waiting: self.spool.len(),
            counts: Counts {
                orders_accepted: counts.orders_accepted,
                commits: counts.commits,
                rollbacks: counts.rollbacks,
                crashes: counts.crashes,
                reports_failed: counts.reports_failed,
                ..self.counts
            },
        }
    }
}
