//! What a user of the settings is promised.

use std::{fs, path::PathBuf};

use super::*;

/// The settings of a file with this text and of these variables.
fn load(text: &str, environment: &[(&str, &str)]) -> Result<Settings, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("shop.toml");
    fs::write(&path, text).unwrap();
    let variables = environment.iter().map(|(k, v)| ((*k).to_owned(), *v));
    let prefix = format!("{}/", folder.path().display());
    Settings::load_with(Some(&path), variables).map_err(|e| e.to_string().replace(&prefix, ""))
}

#[test]
fn a_file_sets_and_the_environment_overrides() {
    let file = r#"
        [merchant]
        id = "shop-1"
        timezone = "Europe/Paris"
        [stripe]
        webhook_secrets = ["whsec_old", "whsec_new"]
        [activate]
        send = true
        [people]
        default_region = "gb"
        shared_addresses = ["Support@shop.example", "@till.example"]
    "#;
    let environment = [
        ("TILLSTREAM__MERCHANT__ID", "shop-2"),
        ("TILLSTREAM__STRIPE__TOLERANCE_SECONDS", "60"),
        ("TILLSTREAM__TWILIO__API_BASE", "http://127.0.0.1:9/"),
        ("TILLSTREAM__KLAVIYO__API_KEY", ""),
        ("TILLSTREAM_DATA", "not an option"),
    ];
    let settings = load(file, &environment).unwrap();
    assert_eq!(settings.merchant.id, "shop-2");
    assert_eq!(settings.merchant.timezone, Tz::Europe__Paris);
    assert_eq!(settings.stripe.webhook_secrets[1].expose(), "whsec_new");
    assert_eq!(settings.stripe.tolerance_seconds, 60);
    assert_eq!(settings.twilio.api_base.join("/2010-04-01"), "http://127.0.0.1:9/2010-04-01");
    assert!(settings.activate.send);
    assert!(settings.klaviyo.api_key.is_none(), "an empty variable is as if it were not there");
    assert_eq!(settings.people.default_region.as_deref(), Some("GB"));
    let shared = |address| settings.people.shared_addresses.hold(address);
    assert!(shared("support@shop.example") && shared("ann@till.example"));
    assert!(!shared("ann@shop.example") && !shared("ann@sub.till.example"));
}

#[test]
fn lists_in_the_environment_are_separated_by_commas() {
    let settings = load("", &[("TILLSTREAM__STRIPE__WEBHOOK_SECRETS", "whsec_a, whsec_b,")]).unwrap();
    let secrets: Vec<_> = settings.stripe.webhook_secrets.iter().map(Secret::expose).collect();
    assert_eq!(secrets, ["whsec_a", "whsec_b"]);
}

#[test]
fn what_is_unknown_names_its_place_and_its_nearest_neighbour() {
    let error = |text| load(text, &[]).unwrap_err();
    assert_eq!(
        error("[merchant]\nid = \"a\"\n\n[strip]\n"),
        "shop.toml:4: unknown section [strip]; did you mean \"stripe\"?"
    );
    assert_eq!(
        error("[stripe]\ntolerance_second = 3\n"),
        "shop.toml:2: unknown option stripe.tolerance_second; did you mean \"tolerance_seconds\"?"
    );
    assert_eq!(
        error("[stripe]\ntimezone = \"UTC\"\n"),
        "shop.toml:2: unknown option stripe.timezone; did you mean \"merchant.timezone\"?"
    );
    assert_eq!(
        error("[log]\nflavour = 1\n"),
        "shop.toml:2: unknown option log.flavour; [log] has kind, brokers, topic, properties, segment_mib"
    );
    let variable = load("", &[("TILLSTREAM__STRIPE__WEBHOOK_SECRET", "whsec_a")]).unwrap_err();
    assert_eq!(
        variable,
        "environment variable TILLSTREAM__STRIPE__WEBHOOK_SECRET: unknown option stripe.webhook_secret; did you mean \
         \"webhook_secrets\"?"
    );
}

#[test]
fn a_wrong_value_says_what_was_wanted() {
    for (text, message) in [
        (
            "[stripe]\ntolerance_seconds = 0",
            "shop.toml:2: stripe.tolerance_seconds: a whole number from 1 to 86400 is wanted, not 0",
        ),
        (
            "[stripe]\ntolerance_seconds = \"5m\"",
            "shop.toml:2: stripe.tolerance_seconds: a whole number from 1 to 86400 is wanted, not a text",
        ),
        (
            "[log]\nsegment_mib = 99999999999999999999",
            "shop.toml:2: log.segment_mib: a whole number from 1 to 4096 is wanted, not 99999999999999999999",
        ),
        (
            "[merchant]\ntimezone = \"Europe/Pari\"",
            "shop.toml:2: merchant.timezone: \"Europe/Pari\" is no IANA time zone, as Europe/Paris; did you mean \
             \"Europe/Paris\"?",
        ),
        ("[activate]\nsend = \"yes\"", "shop.toml:2: activate.send: true or false is wanted, not a text"),
        ("[activate]\nsms = \"fax\"", "shop.toml:2: activate.sms: \"outbox\" or \"twilio\" is wanted, not \"fax\""),
        ("[activate]\n\nsms = \"twilio\"", "shop.toml:3: activate.sms: it needs [twilio] account_sid and auth_token"),
        (
            "[engine]\nmemory = \"1 TB\"",
            "shop.toml:2: engine.memory: a size from 64MiB to 1048576MiB is wanted, as 4GiB, not \"1 TB\"",
        ),
        (
            "[engine]\ntime_limit = \"soon\"",
            "shop.toml:2: engine.time_limit: \"soon\" is no span of time: write a number and s, m, h, d or w, as \"30m\" or \
             \"7d\"",
        ),
        ("stripe = 3", "shop.toml:1: stripe: a section is wanted, as [stripe]"),
        (
            "[kafka]\ntopics = [\"shop.pages\", \"paid=paypal\"]",
            "shop.toml:2: kafka.topics: stripe, klaviyo or storefront is wanted after = in \"paid=paypal\"",
        ),
        (
            "[log]\nproperties = [\"sasl.password\"]",
            "shop.toml:2: log.properties: name=value is wanted, as security.protocol=ssl",
        ),
        (
            "[aliyun]\nwebhook_secret = \"short\"",
            "shop.toml:2: aliyun.webhook_secret: 16 or more letters, digits, - and _ are wanted",
        ),
        (
            "[aliyun]\nwebhook_ips = [\"203.0.113.7\", \"all\"]",
            "shop.toml:2: aliyun.webhook_ips: IP addresses are wanted, as 203.0.113.7, not \"all\"",
        ),
        (
            "[people]\nshared_addresses = [\"support\"]",
            "shop.toml:2: people.shared_addresses: an address, or a domain as @shop.example, is wanted, not \"support\"",
        ),
        (
            "[people]\ndefault_region = \"UK\"",
            "shop.toml:2: people.default_region: a two-letter country code is wanted, as GB, not \"UK\"",
        ),
        (
            "[people]\ndefault_region = \"Atlantis\"",
            "shop.toml:2: people.default_region: a two-letter country code is wanted, as GB, not \"ATLANTIS\"",
        ),
    ] {
        assert_eq!(load(text, &[]).unwrap_err(), message);
    }
}

#[test]
fn no_error_and_no_dump_shows_a_secret() {
    let secret = "whsec_do_not_tell";
    for text in [
        format!("[klaviyo]\napi_key = \"{secret}\nx"),
        format!("[klaviyo]\napi_key = [\"{secret}\"]"),
        format!("[twilio]\napi_base = \"https://user:{secret}@example.com\""),
        format!("[stripe]\nwebhook_secrets = \"{secret}\""),
    ] {
        let error = load(&text, &[]).unwrap_err();
        assert!(!error.contains("do_not_tell") && error.contains("shop.toml:"), "{error}");
    }
    let settings = load(&format!("[stripe]\nwebhook_secrets = [\"{secret}\"]"), &[]).unwrap();
    assert!(!format!("{settings:?}").contains("do_not_tell"));
    let described = settings.describe();
    assert!(described.iter().all(|d| !d.value.contains("do_not_tell")));
    assert_eq!(described.iter().find(|d| d.name == "stripe.webhook_secrets").unwrap().value, "set");
}

#[test]
fn every_option_is_described_with_its_value_and_source() {
    let settings = load(
        "[server]\nlisten = \"0.0.0.0:80\"\n[engine]\nmemory = \"2GiB\"\ntime_limit = \"5m\"",
        &[("TILLSTREAM__ENGINE__THREADS", "3")],
    )
    .unwrap();
    let described = settings.describe();
    let find = |name| described.iter().find(|d| d.name == name).unwrap();
    assert_eq!(find("server.listen").value, "0.0.0.0:80");
    assert!(find("server.listen").source.starts_with("file ") && find("server.listen").source.ends_with(".toml:2"));
    assert_eq!((find("engine.memory").value.as_str(), find("engine.time_limit").value.as_str()), ("2048MiB", "300s"));
    assert_eq!(find("engine.threads").value, "3");
    assert_eq!(find("engine.threads").source, "environment TILLSTREAM__ENGINE__THREADS");
    assert_eq!(find("merchant.timezone").value, "UTC");
    assert_eq!(find("merchant.timezone").source, "default");
    assert_eq!(find("klaviyo.api_base").value, "https://a.klaviyo.com");
    assert_eq!(find("activate.sms").value, "outbox");
    assert!(described.iter().all(|d| !d.meaning.is_empty() && d.name.contains('.')));
    let mut names: Vec<_> = described.iter().map(|d| d.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), described.len(), "each option stands once");
}

#[test]
fn paths_in_a_file_start_at_the_files_folder() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("shop.toml");
    fs::write(&path, "[privacy]\nkey_file = \"keys/privacy.key\"\n[pipelines]\ndir = \"/etc/pipelines\"").unwrap();
    let settings = Settings::load_with::<&str>(Some(&path), []).unwrap();
    assert_eq!(settings.privacy.key_file, Some(folder.path().join("keys/privacy.key")));
    assert_eq!(settings.pipelines.dir, Some(PathBuf::from("/etc/pipelines")));
}

#[test]
fn a_named_file_must_exist() {
    let error = Settings::load_with::<&str>(Some(Path::new("/nowhere/shop.toml")), []).unwrap_err();
    assert!(error.to_string().starts_with("/nowhere/shop.toml: "), "{error}");
}

#[test]
fn kafka_needs_its_brokers_and_a_build_that_has_it() {
    let error = |text| load(text, &[]).unwrap_err();
    let (log, source) = ("[log]\nkind = \"kafka\"\n", "[kafka]\ntopics = [\"shop.pages\"]\n");
    if cfg!(feature = "kafka") {
        assert_eq!(error(log), "shop.toml:2: log.kind: it needs [log] brokers");
        assert_eq!(error(source), "shop.toml:2: kafka.topics: it needs [kafka] brokers");
        let settings =
            load(&format!("{log}brokers = [\"a:9092\", \"b:9092\"]\nproperties = [\"x=y=z\"]"), &[]).unwrap();
        let client: Vec<_> = settings.log.cluster.client().collect();
        let named = |name: &str| {
            client.iter().filter(|(known, _)| *known == name).map(|(_, value)| &**value).collect::<Vec<_>>()
        };
        assert_eq!((named("x"), named("bootstrap.servers")), (vec!["y=z"], vec!["a:9092,b:9092"]));
        assert_eq!(named("ssl.ca.location"), ["probe"], "unless properties say otherwise, which come after");
    } else {
        assert!(error(log).contains("--features kafka") && error(source).contains("--features kafka"));
    }
}
