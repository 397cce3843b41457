//! `revoada doctor --fix`: proposals, one by one, each done where whoever is asked agrees.
//!
//! After each the machine is looked at again, so that what is reported as done has been seen, and what has become
//! possible, such as a swap file where there was no room for one, is proposed too.

use std::io::{BufRead, IsTerminal, Write, stderr, stdin};
use std::process::{Command, Stdio};

use anyhow::bail;
use serde::Serialize;

use super::proposals::{Proposal, Step};
use crate::terminal::say;

/// What `--json` prints of each.
#[derive(Debug, Serialize)]
struct Dealt<'p> {
    #[serde(flatten)]
    proposal: &'p Proposal,
    #[serde(flatten)]
    outcome: Outcome,
}

#[derive(Clone, Debug, Serialize)]
#[serde(tag = "outcome", content = "reason", rename_all = "lowercase")]
enum Outcome {
    Proposed,
    Declined,
    Done,
    Failed(String),
}

/// Where consent comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Consent {
    Given,
    Asked,
    Impossible,
}

/// `diagnose` looks at the machine as it is at that moment.
pub(super) fn run(yes: bool, json: bool, diagnose: impl Fn() -> Vec<Proposal>) -> anyhow::Result<()> {
    let consent = match yes {
        true => Consent::Given,
        false if stdin().is_terminal() => Consent::Asked,
        false => Consent::Impossible,
    };
    let mut outcomes = Outcomes { json, list: Vec::new() };
    if consent == Consent::Impossible {
        for proposal in diagnose() {
            outcomes.show(&proposal)?;
            outcomes.add(proposal, Outcome::Proposed)?;
        }
        outcomes.finish()?;
        match outcomes.list.is_empty() {
            true => return Ok(()),
            false => bail!("nothing was changed: there is no terminal to ask on; `--yes` agrees to everything"),
        }
    }
    while let Some(proposal) = outcomes.next(diagnose()) {
        outcomes.show(&proposal)?;
        let outcome = match consent == Consent::Given || ask(proposal.id)? {
            true => apply(&proposal, &diagnose),
            false => Outcome::Declined,
        };
        outcomes.add(proposal, outcome)?;
    }
    outcomes.finish()?;
    let failed: Vec<&str> = outcomes.failed().collect();
    if !failed.is_empty() {
        bail!("could not apply {}", failed.join(", "));
    }
    Ok(())
}

/// What became of each so far.
struct Outcomes {
    json: bool,
    list: Vec<(Proposal, Outcome)>,
}

impl Outcomes {
    /// The first that has not been dealt with.
    fn next(&self, proposals: Vec<Proposal>) -> Option<Proposal> {
        proposals.into_iter().find(|proposal| self.list.iter().all(|(known, _)| known.id != proposal.id))
    }

    /// People read it where the results are; under `--json` those are for a machine.
    fn show(&self, proposal: &Proposal) -> std::io::Result<()> {
        self.tell(&render(proposal))
    }

    fn add(&mut self, proposal: Proposal, outcome: Outcome) -> std::io::Result<()> {
        let told = match &outcome {
            Outcome::Proposed => None,
            Outcome::Declined => Some("  left as it is\n".to_owned()),
            Outcome::Done => Some("  done\n".to_owned()),
            Outcome::Failed(reason) => Some(format!("  failed: {reason}\n")),
        };
        self.list.push((proposal, outcome));
        told.map_or(Ok(()), |told| self.tell(&told))
    }

    fn tell(&self, text: &str) -> std::io::Result<()> {
        match self.json {
            true => stderr().write_all(text.as_bytes()),
            false => say(text),
        }
    }

    fn finish(&self) -> anyhow::Result<()> {
        if self.json {
            let dealt = self.list.iter().map(|(proposal, outcome)| Dealt { proposal, outcome: outcome.clone() });
            let dealt: Vec<Dealt<'_>> = dealt.collect();
            say(&serde_json::to_string_pretty(&serde_json::json!({ "proposals": dealt }))?)?;
        } else if self.list.is_empty() {
            say("nothing to propose")?;
        }
        Ok(())
    }

    fn failed(&self) -> impl Iterator<Item = &'static str> {
        let failed = self.list.iter().filter(|(_, outcome)| matches!(outcome, Outcome::Failed(_)));
        failed.map(|(proposal, _)| proposal.id)
    }
}

fn render(proposal: &Proposal) -> String {
    let mut lines = vec![
        proposal.id.to_owned(),
        format!("  found     {}", proposal.found),
        format!("  proposed  {}", proposal.proposed),
    ];
    let indents = ["  runs      ", "            "].into_iter().chain(std::iter::repeat("            "));
    lines.extend(proposal.commands.iter().zip(indents).map(|(step, indent)| format!("{indent}{}", step.shell())));
    let lasts = if proposal.survives_reboot { "across restarts" } else { "until the next restart" };
    let root = if proposal.needs_root { "; needs root" } else { "" };
    lines.push(format!("  lasts     {lasts}{root}"));
    lines.extend(proposal.note.map(|note| format!("  note      {note}")));
    lines.join("\n") + "\n"
}

/// No answer is a no.
fn ask(id: &str) -> std::io::Result<bool> {
    write!(stderr(), "  apply {id}? [y/N] ")?;
    stderr().flush()?;
    let mut answer = String::new();
    stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

fn apply(proposal: &Proposal, diagnose: impl Fn() -> Vec<Proposal>) -> Outcome {
    if let Some(reason) = proposal.commands.iter().find_map(|step| execute(step).err()) {
        return Outcome::Failed(reason);
    }
    match diagnose().into_iter().find(|still| still.id == proposal.id) {
        Some(still) => Outcome::Failed(format!("its commands ran, and yet: {}", still.found)),
        None => Outcome::Done,
    }
}

/// Runs one command in the foreground: `sudo` and `nvpmodel` may have a question of their own, which nobody but a
/// person answers.
fn execute(step: &Step) -> Result<(), String> {
    let [program, arguments @ ..] = &step.words[..] else { return Ok(()) };
    let mut command = Command::new(program);
    command.args(arguments).stdout(Stdio::from(stderr()));
    command.stdin(match &step.input {
        Some(_) => Stdio::piped(),
        None if stdin().is_terminal() => Stdio::inherit(),
        None => Stdio::null(),
    });
    let mut child = command.spawn().map_err(|error| format!("`{program}` cannot be run: {error}"))?;
    if let (Some(line), Some(mut input)) = (&step.input, child.stdin.take()) {
        // Whoever does not read it ends with an error of his own.
        let _ = writeln!(input, "{line}");
    }
    let status = child.wait().map_err(|error| format!("`{program}` cannot be waited for: {error}"))?;
    match status.success() {
        true => Ok(()),
        false => Err(format!("`{}` ended with {status}", step.shell())),
    }
}
