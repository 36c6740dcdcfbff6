//! What benches of a running server share: the server, the events that are sent to it, and percentiles.
//!
//! What must hold: a server ends with whoever started it; no two events that are sent are of one id.

#[allow(dead_code, reason = "each bench compiles all of this, and uses some")]
pub mod refunds;

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
pub struct Bodies(Vec<Body>);

/// How the ids of a shop's customers, and of what they cause, begin: each pass is of others.
const OBJECTS: [&str; 18] = [
    "evt_", "pi_", "ch_", "py_", "cus_", "re_", "cs_", "in_", "inpay_", "sub_", "di_", "txn_", "po_", "du_", "prv_",
    "issfr_", "CLUB", "u_",
];

/// An event's text, and where in it the number of the pass goes: found once, as whoever posts has to be quick.
struct Body {
    text: String,
    /// Where, and what stands before the number.
    places: Vec<(usize, char)>,
}

impl Body {
    fn of(text: String) -> Body {
        let ids = OBJECTS.iter().flat_map(|kind| {
            text.match_indices(&format!("\"{kind}")).map(|(at, found)| at + found.len()).collect::<Vec<_>>()
        });
        let addresses = text.match_indices("@example.").map(|(at, _)| (at, '+'));
        let mut places: Vec<(usize, char)> = ids.map(|at| (at, 'x')).chain(addresses).collect();
        places.sort_unstable();
        Body { text, places }
    }

    fn in_pass(&self, pass: usize) -> String {
        let (mut body, number, mut from) = (String::with_capacity(self.text.len() + 512), pass.to_string(), 0);
        for &(at, mark) in &self.places {
            body.push_str(&self.text[from..at]);
            body.push(mark);
            body.push_str(&number);
            // An id goes on with letters and digits of its own.
            if mark == 'x' {
                body.push('x');
            }
            from = at;
        }
        body.push_str(&self.text[from..]);
        body
    }
}

impl Bodies {
    /// Those of them that are `wanted`.
    pub fn of(customers: u32, days: u32, wanted: impl Fn(&str) -> bool) -> Bodies {
        let shop = Shop { customers, days, sources: vec![Source::Stripe], ..Shop::default() };
        let lines = shop.generate().map(|(_, line)| String::from_utf8_lossy(&line).into_owned());
        Bodies(lines.filter(|line| wanted(line)).map(Body::of).collect())
    }

    pub fn body(&self, n: usize) -> String {
        self.0[n % self.0.len()].in_pass(n / self.0.len())
    }
}

/// The wait that this share of them stays below.
pub fn at(sorted: &[Duration], share: f64) -> Duration {
    sorted.get((sorted.len().saturating_sub(1) as f64 * share) as usize).copied().unwrap_or_default()
}
