//! `toolmesh doctor`: what is wrong, what it means, what to do about it.
//!
//! Looks and changes nothing. `local` needs no node; `remote` asks the one that runs.

mod local;
mod remote;

use serde::Serialize;
use serde_json::json;

use super::args::{Common, ConfigFile};
use super::locate::Locator;
use super::output::{Failure, Report};
use super::text::printable;
use crate::config::{self, Sources};

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    Ok,
    Warn,
    Error,
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Finding {
    level: Level,
    /// What was looked at.
    check: String,
    /// What was found, and what it means.
    message: String,
    /// What to do; nothing where all is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

impl Finding {
    fn ok(check: &str, message: impl Into<String>) -> Self {
        Self { level: Level::Ok, check: check.to_owned(), message: message.into(), next: None }
    }

    fn warn(check: &str, message: impl Into<String>, next: impl Into<String>) -> Self {
        let next = Some(next.into());
        Self { level: Level::Warn, check: check.to_owned(), message: message.into(), next }
    }

    fn error(check: &str, message: impl Into<String>, next: impl Into<String>) -> Self {
        Self { level: Level::Error, ..Self::warn(check, message, next) }
    }

    fn line(&self) -> String {
        let level = match self.level {
            Level::Ok => "ok   ",
            Level::Warn => "warn ",
            Level::Error => "ERROR",
        };
        let message = printable(&self.message).replace('\n', "\n         ");
        let line = format!("{level}  {}: {message}", self.check);
        match &self.next {
            Some(next) => format!("{line}\n         -> {next}"),
            None => line,
        }
    }
}

/// Looks at everything.
///
/// # Errors
///
/// There is no data directory to look at.
pub(crate) async fn run(common: &Common, file: ConfigFile) -> Result<Report, Failure> {
    let locator = Locator::as_operator(common);
    let data = locator.data_directory()?;
    let sources = Sources::of_process(file.config, common.data.clone(), Vec::new());
    let loaded = config::load(&sources);

    let mut findings =
        vec![Finding::ok("version", concat!("toolmesh ", env!("CARGO_PKG_VERSION")))];
    findings.extend(local::config(&loaded, &sources));
    findings.extend(local::data(&data));
    findings.extend(local::disk(&data));
    let running = remote::node(common, &locator, &mut findings).await;
    if let Ok(loaded) = &loaded {
        if running.is_none() && !locator.is_unclear() {
            findings.extend(local::port(&loaded.config));
            findings.extend(local::protection(&loaded.config, &data));
        }
        findings.extend(local::mesh_secret(&loaded.config, &data));
        findings.extend(local::mesh_token(&loaded.config));
        findings.extend(local::commands(&loaded.config));
    }
    Ok(report(&findings))
}

fn report(findings: &[Finding]) -> Report {
    let count = |level| findings.iter().filter(|finding| finding.level == level).count();
    let (errors, warnings) = (count(Level::Error), count(Level::Warn));
    let mut lines: Vec<String> = findings.iter().map(Finding::line).collect();
    lines.push(match (errors, warnings) {
        (0, 0) => "\nall is well".to_owned(),
        (0, _) => format!("\nit works; look at {warnings} above"),
        _ => format!("\n{errors} to repair, {warnings} to look at"),
    });
    Report { well: errors == 0, ..Report::new(lines.join("\n"), json!(findings)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_makes_the_report_bad_and_a_warning_does_not() {
        let warned = report(&[Finding::ok("a", "b"), Finding::warn("c", "d", "e")]);
        assert!(warned.well && warned.text.contains("warn   c: d\n         -> e"));
        let failed = report(&[Finding::error("c", "d", "e")]);
        assert!(!failed.well);
        assert_eq!(failed.value[0]["level"], "error");
    }
}
