//! A data directory and the program that works on it, as a user has them.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::hmac;
use serde_json::Value;
use tempfile::TempDir;

/// The binary. Cargo tells `tests/it` where it is; beside the folder of the program that runs the tests is where it puts it.
pub fn binary() -> PathBuf {
    if let Some(told) = option_env!("CARGO_BIN_EXE_tillstream") {
        return told.into();
    }
    let here = std::env::current_exe().unwrap();
    let beside = here.parent().and_then(Path::parent).unwrap().join("tillstream");
    assert!(beside.exists(), "no {}: run cargo build first", beside.display());
    beside
}

/// One shop's machine: settings, a data directory, and the program.
pub struct Till {
    pub home: TempDir,
    settings: Vec<(String, String)>,
}

impl Till {
    pub fn new() -> Till {
        Till { home: tempfile::tempdir().unwrap(), settings: Vec::new() }
    }

    /// The same privacy key in all directories, so that hashes and person ids can be compared between them.
    pub fn with_key(key_file: &Path) -> Till {
        Till::new().set("PRIVACY__KEY_FILE", key_file.to_str().unwrap())
    }

    pub fn set(mut self, option: &str, value: &str) -> Till {
        self.settings.push((format!("TILLSTREAM__{option}"), value.to_owned()));
        self
    }

    pub fn data(&self) -> PathBuf {
        self.home.path().join("data")
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    pub fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command.current_dir(self.home.path()).arg("--data").arg(self.data()).args(args);
        command.env_remove("TILLSTREAM_DATA").envs(self.settings.iter().map(|(k, v)| (k, v)));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs to the end, whatever that is.
    pub fn try_run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// Runs to a good end; what it printed.
    pub fn run(&self, args: &[&str]) -> String {
        let output = self.try_run(args);
        assert!(
            output.status.success(),
            "{args:?} ended with {}\nstdout: {}\nstderr: {}",
            output.status,
            text(&output.stdout),
            text(&output.stderr)
        );
        text(&output.stdout)
    }

    pub fn json(&self, args: &[&str]) -> Value {
        let args: Vec<&str> = [&["--json", "--quiet"], args].concat();
        serde_json::from_str(&self.run(&args)).unwrap()
    }

    /// Rows as objects.
    pub fn sql(&self, query: &str) -> Vec<Value> {
        let lines = self.run(&["--quiet", "sql", "--format", "ndjson", query]);
        lines.lines().map(|l| serde_json::from_str(l).unwrap()).collect()
    }

    pub fn count(&self, table: &str) -> u64 {
        self.sql(&format!("SELECT count(*) AS n FROM {table}"))[0]["n"].as_u64().unwrap()
    }

    /// How often anybody ever entered a segment.
    pub fn entered(&self, segment: &str) -> u64 {
        let table = "information_schema.tables WHERE table_schema = 'segments' AND table_name = 'memberships'";
        match self.count(table) {
            0 => 0,
            _ => self.count(&format!("segments.memberships WHERE segment = '{segment}'")),
        }
    }

    /// Every row of the tables that events make, sorted, without what tells of the way they came.
    pub fn facts(&self) -> Vec<String> {
        let tables =
            self.sql("SELECT table_name AS name FROM information_schema.tables WHERE table_schema = 'core' ORDER BY 1");
        let mut all = Vec::new();
        for table in tables {
            let name = table["name"].as_str().unwrap();
            let columns = self.sql(&format!(
                "SELECT column_name AS name FROM information_schema.columns \
                 WHERE table_schema = 'core' AND table_name = '{name}' ORDER BY ordinal_position"
            ));
            let columns: Vec<&str> =
                columns.iter().map(|c| c["name"].as_str().unwrap()).filter(|c| *c != "log_offset").collect();
            let quoted: Vec<String> = columns.iter().map(|c| format!("\"{c}\"")).collect();
            let rows = self.run(&[
                "--quiet",
                "sql",
                "--format",
                "csv",
                &format!("SELECT {} FROM core.{name}", quoted.join(", ")),
            ]);
            let mut rows: Vec<String> = rows.lines().skip(1).map(|r| format!("{name}: {r}")).collect();
            rows.sort();
            all.extend(rows);
        }
        all
    }
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A `serve` that is stopped when this goes.
pub struct Serving {
    pub child: Child,
    pub address: String,
    pub token: String,
}

impl Serving {
    pub fn start(till: &Till) -> Serving {
        Serving::start_with(till, |command| command)
    }

    #[cfg(feature = "kafka")]
    pub fn start_at(till: &Till, address: &str) -> Serving {
        Serving::start_there(till, address.to_owned(), |command| command)
    }

    /// The same with more said to its process.
    pub fn start_with(till: &Till, more: impl FnOnce(&mut Command) -> &mut Command) -> Serving {
        Serving::start_there(till, format!("127.0.0.1:{}", free_port()), more)
    }

    fn start_there(till: &Till, address: String, more: impl FnOnce(&mut Command) -> &mut Command) -> Serving {
        let mut command = till.command(&["--quiet", "serve", "--listen", &address]);
        let child = more(command.stdout(Stdio::null()).stderr(Stdio::null())).spawn().unwrap();
        let mut serving = Serving { child, address, token: String::new() };
        wait("serve answers", Duration::from_secs(60), || {
            assert!(serving.child.try_wait().unwrap().is_none(), "serve ended");
            std::net::TcpStream::connect(&serving.address).is_ok()
        });
        serving.token = fs::read_to_string(till.data().join("admin.token")).unwrap().trim().to_owned();
        serving
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Status and text.
    pub fn get(&self, path: &str, token: Option<&str>) -> (u16, String) {
        let request = reqwest::Client::new().get(self.url(path));
        answer(match token {
            Some(token) => request.bearer_auth(token),
            None => request,
        })
    }

    /// Status and text, of a JSON body.
    pub fn ask(&self, path: &str, token: &str, body: &Value) -> (u16, String) {
        answer(reqwest::Client::new().post(self.url(path)).bearer_auth(token).json(body))
    }

    /// The status, of a body as Stripe sends it.
    pub fn post(&self, path: &str, body: &str, signature: &str) -> u16 {
        let request = reqwest::Client::new().post(self.url(path)).header("Stripe-Signature", signature);
        answer(request.body(body.to_owned())).0
    }
}

fn answer(request: reqwest::RequestBuilder) -> (u16, String) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    })
}

impl Drop for Serving {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            self.child.kill().unwrap();
        }
        self.child.wait().unwrap();
    }
}

/// Signed as Stripe signs: HMAC-SHA-256 under the whole secret, over time, point and body.
pub fn signature(secret: &str, body: &str) -> String {
    let t = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let tag = hmac::sign(&key, format!("{t}.{body}").as_bytes());
    format!("t={t},v1={}", hex::encode(tag))
}

/// Posts to Stripe's receiver; the status of the answer.
pub fn post(serving: &Serving, body: &str, signature: &str) -> u16 {
    serving.post("/webhooks/stripe", body, signature)
}

pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

pub fn wait(what: &str, longest: Duration, mut until: impl FnMut() -> bool) {
    let began = Instant::now();
    while !until() {
        assert!(began.elapsed() < longest, "{what}: not within {longest:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A file of the reference data. `None`, and a line that says so, where there is none; in CI beside it, its absence fails.
pub fn reference(name: &str) -> Option<PathBuf> {
    let root = std::env::var_os("TILLSTREAM_REFERENCE")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/reference"), PathBuf::from);
    let path = root.join(name);
    if path.exists() {
        return Some(path);
    }
    let shared = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared");
    assert!(
        std::env::var_os("CI").is_none() || !shared.exists(),
        "the reference data is part of CI, and {} is missing",
        path.display()
    );
    println!("skipped: no reference data ({})", path.display());
    None
}
