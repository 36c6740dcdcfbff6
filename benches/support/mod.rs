//! What benches of a running server share: the server, the events that are sent to it, and percentiles.
//!
//! What must hold: a server ends with whoever started it; no two events that are sent are of one id.

use std::{
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use tillstream::{base::Source, synth::Shop};

pub const SECRET: &str = "whsec_of_the_bench";

/// A server of this machine that goes with this.
pub struct Server {
    pub child: Child,
    pub address: String,
}

impl Server {
    /// Starts `command` with the address that it shall listen on, and waits until it does.
    pub fn start(command: impl FnOnce(&str) -> Command) -> Result<Server> {
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
        let child = command(&address).stdout(Stdio::null()).spawn()?;
        let mut server = Server { child, address };
        let began = Instant::now();
        while TcpStream::connect(&server.address).is_err() {
            ensure!(server.child.try_wait()?.is_none(), "a server ended");
            ensure!(began.elapsed() < Duration::from_secs(60), "a server does not answer");
            thread::sleep(Duration::from_millis(50));
        }
        Ok(server)
    }

    /// Our own, in `dir`, with its data in `dir/data`.
    pub fn ours(dir: &Path) -> Result<Server> {
        Server::start(|address| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_tillstream"));
            command.current_dir(dir).args(["--quiet", "serve", "--listen", address, "--data"]).arg(dir.join("data"));
            command.env("TILLSTREAM__STRIPE__WEBHOOK_SECRETS", SECRET);
            command
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Err(error) = self.child.kill().and_then(|()| self.child.wait()) {
            eprintln!("a server could not be ended: {error}");
        }
    }
}

/// Bodies without end: a sample shop's Stripe events, in each pass under other ids, and of other people.
pub struct Bodies(Vec<String>);

impl Bodies {
    /// Those of them that are `wanted`.
    pub fn of(customers: u32, days: u32, wanted: impl Fn(&str) -> bool) -> Bodies {
        let shop = Shop { customers, days, sources: vec![Source::Stripe], ..Shop::default() };
        let lines = shop.generate().map(|(_, line)| String::from_utf8_lossy(&line).into_owned());
        Bodies(lines.filter(|line| wanted(line)).collect())
    }

    pub fn body(&self, n: usize) -> String {
        let (pass, line) = (n / self.0.len(), &self.0[n % self.0.len()]);
        ["evt_", "pi_", "ch_", "cus_", "re_", "cs_", "in_", "sub_"]
            .iter()
            .fold(line.replace("@example.", &format!("+{pass}@example.")), |body, kind| {
                body.replace(&format!("\"{kind}"), &format!("\"{kind}{pass}x"))
            })
    }
}

/// The wait that this share of them stays below.
pub fn at(sorted: &[Duration], share: f64) -> Duration {
    sorted.get((sorted.len().saturating_sub(1) as f64 * share) as usize).copied().unwrap_or_default()
}
