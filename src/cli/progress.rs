//! Progress for whoever runs a command: bars on a terminal, plain lines elsewhere, nothing with `--quiet`. On stderr.

use std::{
    io::IsTerminal,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use indicatif::{HumanDuration, ProgressBar, ProgressStyle};

use crate::base::progress::{Progress, Silent};

/// The display that suits stderr.
pub fn display(quiet: bool) -> Box<dyn Progress> {
    if quiet {
        Box::new(Silent)
    } else if std::io::stderr().is_terminal() {
        Box::new(Bars { bar: Mutex::new(ProgressBar::hidden()) })
    } else {
        Box::new(Lines { stage: Mutex::new(Stage::default()) })
    }
}

/// A display is only shown: what a thread that failed left in it is as good as anything.
fn open<T>(display: &Mutex<T>) -> MutexGuard<'_, T> {
    display.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One bar at a time, replaced by its summary when the stage ends.
struct Bars {
    bar: Mutex<ProgressBar>,
}

impl Progress for Bars {
    fn begin(&self, stage: &str, total: Option<u64>, unit: &str) {
        let bar = match total {
            Some(total) => ProgressBar::new(total).with_style(style(unit, true)),
            None => ProgressBar::new_spinner().with_style(style(unit, false)),
        };
        bar.set_message(stage.to_owned());
        bar.enable_steady_tick(Duration::from_millis(100));
        let old = std::mem::replace(&mut *open(&self.bar), bar);
        old.finish_and_clear();
    }

    fn at(&self, done: u64) {
        open(&self.bar).set_position(done);
    }

    fn end(&self, summary: &str) {
        let bar = open(&self.bar);
        let line = format!("{:<28} {summary}", bar.message());
        bar.finish_and_clear();
        bar.suspend(|| eprintln!("{line}"));
    }
}

fn style(unit: &str, known: bool) -> ProgressStyle {
    let amounts = if unit == "bytes" { "{bytes}/{total_bytes} {bytes_per_sec}" } else { "{pos}/{len} {per_sec}" };
    let template = if known {
        format!("{{msg:<28}} {{bar:30}} {amounts} {{eta}} left")
    } else if unit == "bytes" {
        "{msg:<28} {spinner} {bytes} {bytes_per_sec}".to_owned()
    } else {
        format!("{{msg:<28}} {{spinner}} {{pos}} {unit}")
    };
    ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// A line when a stage ends, and one every few seconds while it lasts.
struct Lines {
    stage: Mutex<Stage>,
}

#[derive(Default)]
struct Stage {
    name: String,
    unit: String,
    total: Option<u64>,
    began: Option<Instant>,
    told: Option<Instant>,
}

/// Often enough to show that work goes on, seldom enough for a log file.
const TELL_EVERY: Duration = Duration::from_secs(5);

impl Progress for Lines {
    fn begin(&self, stage: &str, total: Option<u64>, unit: &str) {
        let now = Instant::now();
        *open(&self.stage) =
            Stage { name: stage.to_owned(), unit: unit.to_owned(), total, began: Some(now), told: Some(now) };
    }

    fn at(&self, done: u64) {
        let mut stage = open(&self.stage);
        if stage.told.is_some_and(|t| t.elapsed() >= TELL_EVERY) {
            stage.told = Some(Instant::now());
            let of = stage.total.map(|t| format!(" of {t}")).unwrap_or_default();
            eprintln!("{}: {done}{of} {}", stage.name, stage.unit);
        }
    }

    fn end(&self, summary: &str) {
        let stage = open(&self.stage);
        let took = stage.began.map(|b| b.elapsed()).unwrap_or_default();
        if took >= Duration::from_secs(60) {
            eprintln!("{}: {summary} ({})", stage.name, HumanDuration(took));
        } else {
            eprintln!("{}: {summary} ({:.1} s)", stage.name, took.as_secs_f64());
        }
    }
}
