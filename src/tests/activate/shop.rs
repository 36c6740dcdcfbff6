//! A shop of a few people, its tables in memory, and the directory in which its outbox lives.

use std::{
    collections::BTreeMap,
    fs,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use chrono_tz::Tz;
use datafusion::{
    arrow::{array::AsArray, datatypes::TimestampMicrosecondType},
    catalog::TableProvider,
    datasource::MemTable,
};
use serde_json::json;

use super::provider::Provider;
use crate::{
    activate::{
        Activator, Dispatched, Evaluated, Medium, Message, MessageRecord, Record, Rooms, State, Templates,
        channel::{Klaviyo, Twilio},
    },
    base::{Currency, Micros, Offset, PersonId, Pseudonymizer, Source, time::DAY},
    config::{BaseUrl, Secret, Settings},
    engine::{self, Engine, Limits, Session, SessionOptions, Tables, View},
    facts::{
        Table, batch, raw,
        rows::{CartEvent, Consent, Identity, PaymentIntent, PersonMerge, Row, Stamped},
    },
    lake::{Lake, Position},
    load,
    log::{self, EventLog},
    net,
    pipeline::Project,
    sources,
    store::{Store, StoreError, Vault},
    tests::{log::trim_until, tables::row},
};

const KEY: [u8; 32] = [7; 32];

pub fn at(text: &str) -> Micros {
    Micros::from_rfc3339(text).unwrap()
}

pub struct Shop {
    dir: tempfile::TempDir,
    provider: Provider,
    names: Pseudonymizer,
    rows: Vec<Stamped>,
    vault: Vec<(&'static str, String, String)>,
    /// Their tables in the pipeline file.
    triggers: Vec<String>,
    /// Files of the project beside the triggers', by path.
    files: Vec<(&'static str, String)>,
    pub send: bool,
    pub livemode: bool,
}

impl Shop {
    /// With one trigger, `cart_sms`: a text on an abandoned cart, at most one in seven days.
    pub fn new(provider: &Provider) -> Shop {
        let mut shop = Shop {
            dir: tempfile::tempdir().unwrap(),
            provider: provider.clone(),
            names: Pseudonymizer::new(&KEY),
            rows: Vec::new(),
            vault: Vec::new(),
            triggers: Vec::new(),
            files: Vec::new(),
            send: true,
            livemode: true,
        };
        shop.trigger("cart_sms", "sms");
        shop
    }

    /// Another like the first.
    pub fn trigger(&mut self, name: &str, channel: &str) {
        self.triggers.push(format!(
            "name = \"{name}\"\nsegment = \"cart_abandoned\"\non = \"enter\"\nchannel = \"{channel}\"\n\
             template = \"cart_reminder\"\npurpose = \"marketing\"\ncap = {{ messages = 1, per = \"7d\" }}\n"
        ));
    }

    /// Instead of all others: a text that wants no consent and has no cap.
    pub fn only_trigger(&mut self, name: &str, on: &str) {
        self.triggers = vec![format!(
            "name = \"{name}\"\nsegment = \"cart_abandoned\"\n{on}\nchannel = \"sms\"\n\
             template = \"cart_reminder\"\npurpose = \"transactional\"\n"
        )];
    }

    pub fn file(&mut self, path: &'static str, text: &str) {
        self.files.push((path, text.to_owned()));
    }

    /// Somebody in London with `<name>@example.com` and a phone.
    pub fn person(&mut self, name: &str, phone: &str) -> PersonId {
        let address = format!("{name}@example.com");
        let email = self.names.email(&address).unwrap();
        let number = crate::base::E164::parse(phone, None).unwrap();
        let phone_hash = self.names.phone(&number);
        let person_id = self.names.person("email", &email);
        self.vault.push(("email", email.clone(), address));
        self.vault.push(("phone", phone_hash.clone(), phone.to_owned()));
        let seen = at(super::NOW).plus(-30 * DAY);
        self.add(Identity {
            identity_id: format!("email:{email}"),
            kind: "email".to_owned(),
            value_hash: email.clone(),
            person_id: person_id.clone(),
            email_hash: Some(email),
            phone_e164_hash: Some(phone_hash),
            phone_type: None,
            phone_region: None,
            phone_carrier: None,
            phone_time_zones: None,
            phone_told_at: None,
            phone_problem: None,
            phone_problem_at: None,
            country: Some("GB".to_owned()),
            locale: None,
            timezone: Some("Europe/London".to_owned()),
            currency: None,
            first_seen_at: seen,
            last_seen_at: seen,
            erased_at: None,
        });
        person_id
    }

    pub fn agrees(&mut self, person: &PersonId, channel: &str) {
        self.agrees_by(person, channel, "storefront");
    }

    pub fn agrees_by(&mut self, person: &PersonId, channel: &str, source: &str) {
        self.consent(person, channel, "subscribed", source, at(super::NOW).plus(-20 * DAY));
    }

    pub fn withdraws(&mut self, person: &PersonId, channel: &str, when: Micros) {
        self.consent(person, channel, "unsubscribed", "storefront", when);
    }

    /// Two things put into a cart.
    pub fn cart(&mut self, person: &PersonId, cart: &str, when: Micros) {
        for i in 0..2 {
            self.add(CartEvent {
                event_id: format!("{cart}-{i}"),
                cart_id: Some(cart.to_owned()),
                kind: "added".to_owned(),
                product_id: Some(format!("sku-{i}")),
                quantity: Some(1),
                price: Some(1250),
                value: None,
                currency: Some(Currency::parse("gbp").unwrap()),
                occurred_at: when,
                person_id: Some(person.clone()),
                order_ref: None,
                source: "storefront".to_owned(),
            });
        }
    }

    pub fn pays(&mut self, person: &PersonId, intent: &str, when: Micros) {
        let paid: PaymentIntent = row(json!({
            "payment_intent_id": intent, "created_at": when, "status": "succeeded", "amount": 2500,
            "amount_received": 2500, "amount_capturable": 0, "currency": "gbp", "person_id": person, "attempts": 1,
            "succeeded_at": when, "order_ambiguous": false,
        }));
        self.add(paid);
    }

    pub fn merge(&mut self, old: &PersonId, new: &PersonId, merged_at: Micros) {
        self.add(PersonMerge { old: old.clone(), new: new.clone(), merged_at });
    }

    /// What a disk failure may do; the log and the tables are elsewhere.
    pub fn lose_the_store(&self) {
        fs::remove_dir_all(self.dir.path().join("state")).unwrap();
    }

    pub fn templates(&self) -> Templates {
        Templates::beside(self.settings().pipelines.dir.as_deref()).unwrap()
    }

    /// The disk loses the end of the log, from within the block that says `words`.
    pub fn loses_the_log_from(&self, words: &str) {
        let segments = fs::read_dir(self.dir.path().join("log")).unwrap().map(|entry| entry.unwrap().path());
        let place = |bytes: &[u8]| bytes.windows(words.len()).position(|w| w == words.as_bytes());
        let found: Vec<_> = segments.filter_map(|p| Some((place(&fs::read(&p).ok()?)?, p))).collect();
        let [(place, path)] = &found[..] else { panic!("it is in one segment: {found:?}") };
        fs::File::options().write(true).open(path).unwrap().set_len(*place as u64).unwrap();
    }

    pub async fn open(&self, now: Micros) -> Run {
        let dir = self.dir.path();
        let store = open_store(&dir.join("state")).await;
        let lake = Lake::open(&dir.join("lake")).await.unwrap();
        let held = load::raw_end(&lake);
        let options = log::Options { held, ..log::Options::default() };
        let log = EventLog::open_with(&dir.join("log"), &store, options).unwrap();
        let vault = Vault::new(&store, &KEY).unwrap();
        let mut kept = vault.sealing();
        for (kind, hash, text) in &self.vault {
            kept.put(kind, hash, "them", text).unwrap();
        }
        kept.commit().unwrap();
        let settings = self.settings();
        let project = Arc::new(Project::load(settings.pipelines.dir.as_deref()).unwrap());
        let rooms = Rooms { store, log: log.clone(), lake: lake.clone(), vault, names: self.names.clone() };
        let mut activator = Activator::open(rooms, &settings, project.clone(), now).unwrap();
        let clock = Arc::new(AtomicI64::new(now.0));
        let time = clock.clone();
        activator = activator.with_clock(move || Micros(time.load(Ordering::Relaxed)));
        if self.send {
            let client = net::Client::new(net::Options {
                timeout: Duration::from_millis(700),
                retry: net::Retry { tries: 2, longest_wait: Duration::from_millis(50), ..Default::default() },
                ..Default::default()
            })
            .unwrap();
            let twilio = Twilio::new(&settings.twilio, settings.server.public_url.as_ref(), client.clone()).unwrap();
            let klaviyo = Klaviyo::new(&settings.klaviyo, client).unwrap();
            activator =
                activator.with_channel(Medium::Sms, Arc::new(twilio)).with_channel(Medium::Email, Arc::new(klaviyo));
        }
        let views = project.segments().map(|s| View { name: s.table(), sql: s.sql.text.clone() }).collect();
        let engine_settings = engine::Settings { threads: 1, ..engine::Settings::new(dir.join("tmp")) };
        Run {
            activator,
            clock,
            project,
            engine: Engine::new(engine_settings).unwrap(),
            views: Arc::new(views),
            tables: self.tables(),
            names: self.names.clone(),
            log,
            lake,
        }
    }

    fn settings(&self) -> Settings {
        let project = self.dir.path().join("project");
        fs::create_dir_all(project.join("pipelines")).unwrap();
        let mut carts = "name = \"conversion\"\ndescription = \"carts\"\n\n[[segment]]\nname = \"cart_abandoned\"\n\
            sql = \"segments/cart_abandoned.sql\"\n"
            .to_owned();
        for trigger in &self.triggers {
            carts += &format!("\n[[trigger]]\n{trigger}");
        }
        for (path, text) in &self.files {
            let path = project.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        fs::write(project.join("pipelines/conversion.toml"), carts).unwrap();
        if !self.livemode {
            // The shipped segment is of live rows only.
            let shipped = Project::load(None).unwrap();
            let sql = &shipped.segment("cart_abandoned").unwrap().sql.text;
            let sql = sql.replace("livemode AND person_id", "person_id").replace("orders.livemode\n        AND", "");
            fs::create_dir_all(project.join("sql/segments")).unwrap();
            fs::write(project.join("sql/segments/cart_abandoned.sql"), sql).unwrap();
        }
        for name in ["customers", "failures"] {
            let empty = format!("name = \"{name}\"\ndescription = \"nothing\"\n");
            fs::write(project.join(format!("pipelines/{name}.toml")), empty).unwrap();
        }
        let mut settings = Settings::default();
        settings.merchant.id = "shop".to_owned();
        settings.pipelines.dir = Some(project);
        settings.activate.send = self.send;
        settings.server.public_url = BaseUrl::parse("https://till.example");
        settings.twilio.account_sid = Some("AC1".to_owned());
        settings.twilio.auth_token = Some(Secret::new("token"));
        settings.twilio.messaging_service_sid = Some("MG1".to_owned());
        settings.twilio.api_base = self.provider.base.clone();
        settings.klaviyo.api_key = Some(Secret::new("pk_1"));
        settings.klaviyo.api_base = self.provider.base.clone();
        settings
    }

    fn tables(&self) -> BTreeMap<String, Arc<MemTable>> {
        let mut tables = BTreeMap::new();
        for table in Table::ALL {
            let own: Vec<Stamped> = self.rows.iter().filter(|s| s.row.table() == table).cloned().collect();
            if !own.is_empty() {
                let rows = batch(table, "shop", &own).unwrap();
                let rows = MemTable::try_new(rows.schema(), vec![vec![rows]]).unwrap();
                tables.insert(table.name().to_owned(), Arc::new(rows));
            }
        }
        tables
    }

    fn consent(&mut self, person: &PersonId, channel: &str, state: &str, source: &str, at: Micros) {
        self.add(Consent {
            event_id: format!("{person}:{channel}:{state}"),
            person_id: Some(person.clone()),
            channel: channel.to_owned(),
            purpose: "marketing".to_owned(),
            state: state.to_owned(),
            source: source.to_owned(),
            wording: None,
            at,
            seen_at: at,
        });
    }

    fn add(&mut self, row: impl Into<Row>) {
        let (offset, livemode) = (Offset(self.rows.len() as u64), self.livemode);
        self.rows.push(Stamped { row: row.into(), account: None, livemode, offset });
    }
}

/// A process over the shop's directory.
pub struct Run {
    pub activator: Activator,
    clock: Arc<AtomicI64>,
    pub project: Arc<Project>,
    engine: Engine,
    views: Arc<Vec<View>>,
    tables: BTreeMap<String, Arc<MemTable>>,
    names: Pseudonymizer,
    log: EventLog,
    lake: Lake,
}

impl Run {
    pub fn session(&self, as_of: Micros) -> Session {
        let tables = Both { memory: self.tables.clone(), lake: self.lake.snapshot() };
        let options = SessionOptions {
            tables: Arc::new(tables),
            views: self.views.clone(),
            as_of,
            zone: Tz::UTC,
            names: self.names.clone(),
            default_region: None,
            money: Default::default(),
            limits: Limits::default(),
        };
        self.engine.session(options).unwrap()
    }

    pub async fn evaluate(&self, now: Micros) -> Evaluated {
        self.activator.evaluate(&self.session(now), now).await.unwrap()
    }

    pub async fn dispatch(&self, now: Micros) -> Dispatched {
        self.clock.store(now.0, Ordering::Relaxed);
        self.activator.dispatch(&self.session(now), now).await.unwrap()
    }

    /// What Twilio posts, as it is once a receiver has taken it.
    pub async fn twilio_says(&self, params: serde_json::Value, at: Micros) {
        let envelope = sources::decode(Source::Twilio, &params.to_string().into(), at).unwrap();
        self.log.append(vec![envelope]).await.unwrap();
    }

    /// As the loader does when a lot has gone by: what the log holds is in `raw.events`, and only there.
    pub async fn load_and_trim(&self) {
        let begins = self.log.begin_segment().await.unwrap();
        self.twilio_says(json!({"MessageSid": "SM_next", "From": super::PHONE, "Body": "hello"}), Micros(0)).await;
        self.load().await;
        trim_until(&self.log, begins, |freed| freed > 0);
    }

    /// Puts what the log holds into `raw.events`.
    pub async fn load(&self) {
        let events = self.log.read(self.log.start(), usize::MAX).unwrap();
        let rows = raw::events_batch("shop", Offset(0), &events).unwrap();
        let at = Position { stage: "load", version: events.last().unwrap().offset.0 as i64 };
        self.lake.append(raw::EVENTS, rows.schema(), &[], vec![rows], at).await.unwrap();
        self.lake.publish();
    }

    pub fn log(&self) -> &EventLog {
        &self.log
    }

    pub fn next_due(&self, now: Micros) -> Micros {
        self.activator.due(now).unwrap().unwrap()
    }

    pub fn messages(&self) -> Vec<Message> {
        self.activator.messages().map(|m| m.unwrap()).collect()
    }

    pub fn only_message(&self) -> Message {
        let mut messages = self.messages();
        assert_eq!(messages.len(), 1, "{messages:?}");
        messages.remove(0)
    }

    pub fn message_about(&self, cart: &str) -> Message {
        self.messages().into_iter().find(|m| m.occurrence == cart).unwrap()
    }

    pub fn message_by(&self, trigger: &str) -> Message {
        self.messages().into_iter().find(|m| m.trigger == trigger).unwrap()
    }

    pub fn stored_states(&self) -> BTreeMap<String, State> {
        self.messages().into_iter().map(|m| (m.key.to_string(), m.state)).collect()
    }

    /// The state of each message by the log's records alone.
    pub fn logged_states(&self) -> BTreeMap<String, State> {
        let mut last: BTreeMap<String, MessageRecord> = BTreeMap::new();
        for logged in self.log.read(self.log.start(), usize::MAX).unwrap() {
            let envelope = logged.envelope;
            if let Some(Record::Message(record)) = Record::parse(&envelope.event_type, &envelope.payload) {
                let held = last.entry(record.message_key.to_string()).or_insert_with(|| (*record).clone());
                if record.order() >= held.order() {
                    *held = *record;
                }
            }
        }
        last.into_iter().map(|(key, record)| (key, record.state)).collect()
    }

    /// `segments.memberships` as SQL shows it.
    pub async fn memberships(&self) -> Vec<(String, String, String, Micros, Option<Micros>)> {
        let sql = "SELECT segment, person_id, occurrence, entered_at, exited_at FROM segments.memberships";
        let mut rows = Vec::new();
        for batch in self.session(Micros(0)).query(sql).await.unwrap().collect().await.unwrap() {
            let text = |column: usize, row| batch.column(column).as_string::<i32>().value(row).to_owned();
            let time = |column: usize| batch.column(column).as_primitive::<TimestampMicrosecondType>();
            for row in 0..batch.num_rows() {
                let exited = time(4).iter().nth(row).flatten().map(Micros);
                rows.push((text(0, row), text(1, row), text(2, row), Micros(time(3).value(row)), exited));
            }
        }
        rows
    }

    /// Ends the process.
    pub fn close(self) {}
}

/// The shop's tables, and those that activation writes.
struct Both {
    memory: BTreeMap<String, Arc<MemTable>>,
    lake: Arc<crate::lake::Snapshot>,
}

impl Tables for Both {
    fn names(&self) -> Vec<String> {
        self.memory.keys().cloned().chain(self.lake.tables()).collect()
    }

    fn provider(&self, table: &str) -> Option<Arc<dyn TableProvider>> {
        let own = self.memory.get(table).map(|t| Arc::clone(t) as Arc<dyn TableProvider>);
        own.or_else(|| self.lake.provider(table))
    }

    fn is_empty(&self, table: &str) -> bool {
        !self.memory.contains_key(table) && self.lake.rows(table).unwrap_or(0) == 0
    }
}

/// Work that was dropped may hold the folder for another moment.
async fn open_store(dir: &std::path::Path) -> Store {
    for _ in 0..100 {
        match Store::open(dir) {
            Err(StoreError::InUse { .. }) => tokio::time::sleep(Duration::from_millis(50)).await,
            opened => return opened.unwrap(),
        }
    }
    panic!("{} stays in use", dir.display());
}
