use std::fs;

use tempfile::TempDir;

use super::{table::Value, *};

/// Loads settings from a file's text, environment variables and flags.
fn settings(file: &str, variables: &[(&str, &str)], set: &[(&str, &str)]) -> Loaded {
    let dir = TempDir::new().unwrap();
    if !file.is_empty() {
        fs::write(dir.path().join(FILE_DEFAULT), file).unwrap();
    }
    let mut flags = Flags::default();
    for (key, value) in set {
        flags.set(key, value, "--set");
    }
    let variables = variables
        .iter()
        .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
    Loaded {
        result: Settings::from_layers(&flags, variables, dir.path()),
        file: dir.path().join(FILE_DEFAULT).display().to_string(),
    }
}

struct Loaded {
    result: Result<Settings, ConfigError>,
    file: String,
}

impl Loaded {
    #[track_caller]
    fn good(self) -> Settings {
        self.result.unwrap()
    }

    /// Returns the error's text, with FILE for the file's path.
    #[track_caller]
    fn bad(self) -> String {
        self.result
            .unwrap_err()
            .to_string()
            .replace(&self.file, "FILE")
    }
}

/// Returns the settings in force, without their origins.
fn in_force(settings: &Settings) -> String {
    format!(
        "{:?} {:?} {:?} {}",
        settings.server, settings.log, settings.otlp, settings.core_dumps
    )
}

#[test]
fn without_anything_set_the_options_defaults_are_in_force() {
    let settings = settings("", &[], &[]).good();
    let expected = ServerOptions {
        listen: "127.0.0.1:7733".parse().unwrap(),
        admin: Some("127.0.0.1:7734".parse().unwrap()),
        ..ServerOptions::new("./deed-data")
    };
    assert_eq!(format!("{:?}", settings.server), format!("{expected:?}"));
    assert!(settings.otlp.is_none());
    assert_eq!(settings.origin("listen"), Some(&Origin::Default));
    assert_eq!(settings.origin("name"), None);
}

#[test]
fn every_default_fits_its_kind() {
    for setting in SETTINGS {
        let fits = setting.kind.parse(setting.default).is_some();
        assert!(fits || setting.default.is_empty(), "{setting:?}");
        let keys = SETTINGS.iter().filter(|other| other.key == setting.key);
        assert_eq!(keys.count(), 1, "{setting:?}");
    }
}

#[test]
fn each_layer_goes_above_the_ones_before_it() {
    let file = "[limits]\nreads = 2\n";
    let variable = [("DEED__LIMITS__READS", "3")];
    let flag = [("limits.reads", "4")];
    for (file, variables, flags, reads, origin) in [
        ("", &[][..], &[][..], 32, "default"),
        (file, &[], &[], 2, "file FILE"),
        (
            "",
            &variable,
            &[],
            3,
            "environment variable DEED__LIMITS__READS",
        ),
        ("", &[], &flag, 4, "flag --set"),
        (
            file,
            &variable,
            &[],
            3,
            "environment variable DEED__LIMITS__READS",
        ),
        (file, &[], &flag, 4, "flag --set"),
        ("", &variable, &flag, 4, "flag --set"),
        (file, &variable, &flag, 4, "flag --set"),
    ] {
        let loaded = settings(file, variables, flags);
        let path = loaded.file.clone();
        let settings = loaded.good();
        assert_eq!(settings.server.limits.reads, reads);
        let told = settings.origin("limits.reads").unwrap().to_string();
        assert_eq!(told.replace(&path, "FILE"), origin);
    }
}

#[test]
fn the_last_flag_of_a_key_stands() {
    let settings = settings("", &[], &[("shards", "2"), ("shards", "3")]).good();
    assert_eq!(settings.server.shards, 3);
}

#[test]
fn rust_log_is_heeded_below_the_variable_of_this_server() {
    let filter = |file: &str, variables: &[(&str, &str)]| {
        let settings = settings(file, variables, &[]).good();
        let origin = settings.origin("log.filter").unwrap().to_string();
        (settings.log.filter, origin)
    };
    let file = "log.filter = \"warn\"";
    let (own, general) = (("DEED__LOG__FILTER", "error"), ("RUST_LOG", "debug"));
    for variables in [&[own, general], &[general, own]] {
        assert_eq!(filter(file, variables).0, "error");
    }
    let told = "environment variable RUST_LOG".to_owned();
    assert_eq!(filter(file, &[general]), ("debug".to_owned(), told));
    assert_eq!(filter(file, &[("RUST_LOG", "")]).0, "warn");
}

#[test]
fn a_named_file_must_be_there_and_the_default_one_need_not() {
    let dir = TempDir::new().unwrap();
    let flags = Flags {
        file: Some(dir.path().join("other.toml")),
        ..Flags::default()
    };
    let load = |flags: &Flags| Settings::from_layers(flags, [], dir.path());
    let error = load(&flags).unwrap_err().to_string();
    assert!(error.contains("other.toml"), "{error}");
    // A named file is read instead of the default one, not above it.
    fs::write(dir.path().join(FILE_DEFAULT), "shards = 7").unwrap();
    fs::write(dir.path().join("other.toml"), "queue_mib = 9").unwrap();
    let settings = load(&flags).unwrap();
    assert_eq!(settings.server.queue_bytes, 9 << 20);
    assert_eq!(settings.server.shards, 1);
    assert_eq!(load(&Flags::default()).unwrap().server.shards, 7);
}

#[test]
fn unknown_keys_are_refused_with_the_nearest_one() {
    for (file, key, nearest) in [
        ("shard = 2", "shard", "shards"),
        ("queue_mb = 2", "queue_mb", "queue_mib"),
        ("[tls]\ncert = \"a\"", "tls.cert", "tls.key"),
        (
            "[tls]\ncertificat = \"a\"",
            "tls.certificat",
            "tls.certificate",
        ),
        ("reads = 2", "reads", "limits.reads"),
        ("[limit]\nreads = 2", "limit", "listen"),
        ("[limits.qota]\nstreams = 2", "limits.qota", "limits.reads"),
        ("\"tls.key\" = \"a\"", "tls.key", "tls.key"),
        ("[nonsense.deeply.nested]\n", "nonsense", "access.insecure"),
    ] {
        let expected = format!("{key} is not a setting (file FILE); the nearest one is {nearest}");
        assert_eq!(settings(file, &[], &[]).bad(), expected);
    }
    for (variable, key, nearest) in [
        ("DEED__SHARD", "shard", "shards"),
        ("DEED__TLS_KEY", "tls_key", "tls.key"),
        ("DEED__Tls__Key", "tls.key", "tls.key"),
        ("DEED__", "", "name"),
    ] {
        let expected = format!(
            "{key} is not a setting (environment variable {variable}); the nearest one is {nearest}"
        );
        assert_eq!(settings("", &[(variable, "1")], &[]).bad(), expected);
    }
    let error = settings("", &[], &[("limits.read", "1")]).bad();
    assert!(
        error.contains("(flag --set); the nearest one is limits.reads"),
        "{error}"
    );
    // Variables of other programs are ignored.
    settings(
        "",
        &[("DEED_SERVER", "x"), ("DEED_STATE", "y"), ("PATH", "z")],
        &[],
    )
    .good();
}

#[test]
fn wrong_types_are_refused_with_key_value_and_source() {
    for (file, words) in [
        (
            "shards = \"2\"",
            "shards is the text \"2\" where a whole number from 1 to 64 is wanted",
        ),
        (
            "shards = 0",
            "shards is 0 where a whole number from 1 to 64",
        ),
        ("shards = 65", "shards is 65 where"),
        ("shards = -1", "shards is -1 where"),
        ("shards = 1.0", "shards is 1"),
        ("shards = true", "shards is true where"),
        ("shards = [1]", "shards is a list where"),
        ("[shards]\na = 1", "shards is a table where"),
        (
            "listen = \"localhost\"",
            "listen is the text \"localhost\" where an address",
        ),
        ("listen = 7733", "listen is 7733 where an address"),
        (
            "listen = \"none\"",
            "listen is the text \"none\" where an address",
        ),
        ("data_dir = \"\"", "data_dir is the text \"\" where a path"),
        ("data_dir = 1", "data_dir is 1 where a path"),
        ("name = false", "name is false where text"),
        (
            "access.insecure = \"true\"",
            "access.insecure is the text \"true\" where true or false",
        ),
        (
            "access.insecure = 1",
            "access.insecure is 1 where true or false",
        ),
        (
            "log.format = \"yaml\"",
            "log.format is the text \"yaml\" where one of text, json",
        ),
        (
            "admin.listen = \"off\"",
            "admin.listen is the text \"off\" where an address",
        ),
        (
            "otlp.endpoint = \"https://a:1\"",
            "otlp.endpoint is the text",
        ),
        (
            "otlp.endpoint = \"http://me:word@a:1\"",
            "otlp.endpoint is the text",
        ),
        (
            "limits = 3",
            "limits is 3 where a table of settings is wanted",
        ),
        (
            "limits.quota = \"none\"",
            "limits.quota is the text \"none\" where a table of settings",
        ),
    ] {
        let error = settings(file, &[], &[]).bad();
        assert!(error.contains(words), "{error}");
        assert!(error.ends_with("(file FILE)"), "{error}");
    }
    for (variable, text, words) in [
        (
            "DEED__SHARDS",
            "two",
            "shards is \"two\" where a whole number",
        ),
        ("DEED__SHARDS", "", "shards is \"\" where a whole number"),
        ("DEED__SHARDS", "0x2", "shards is \"0x2\" where"),
        (
            "DEED__ACCESS__INSECURE",
            "1",
            "access.insecure is \"1\" where true or false",
        ),
        (
            "DEED__LISTEN",
            "127.1:7733",
            "listen is \"127.1:7733\" where an address",
        ),
        ("DEED__TLS__KEY", "", "tls.key is \"\" where a path"),
    ] {
        let error = settings("", &[(variable, text)], &[]).bad();
        let source = format!("(environment variable {variable})");
        assert!(error.contains(words) && error.ends_with(&source), "{error}");
    }
    let error = settings("", &[], &[("drain_ms", "soon")]).bad();
    assert!(
        error.contains("drain_ms is \"soon\"") && error.ends_with("(flag --set)"),
        "{error}"
    );
}

#[test]
fn what_is_no_toml_is_refused_with_its_file() {
    for text in [
        "shards 2",
        "shards = ",
        "a = 1\na = 2",
        "shards = 99999999999999999999",
    ] {
        let error = settings(text, &[], &[]).bad();
        assert!(error.starts_with("FILE is not TOML: "), "{error}");
    }
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join(FILE_DEFAULT), [0xff, 0xfe]).unwrap();
    let error = Settings::from_layers(&Flags::default(), [], dir.path()).unwrap_err();
    assert!(matches!(error, ConfigError::Read { .. }), "{error}");
}

#[test]
fn half_of_a_pair_is_refused() {
    for (given, key, missing) in [
        ("tls.certificate = \"c\"", "tls.certificate", "tls.key"),
        ("tls.key = \"k\"", "tls.key", "tls.certificate"),
        (
            "tls.client_authorities = \"a\"",
            "tls.client_authorities",
            "tls.certificate",
        ),
        (
            "tls.require_client_certificate = true",
            "tls.require_client_certificate",
            "tls.client_authorities",
        ),
    ] {
        let expected =
            format!("{key} is set (file FILE) and {missing} is not; set both or neither");
        assert_eq!(settings(given, &[], &[]).bad(), expected);
    }
    settings("tls.require_client_certificate = false", &[], &[]).good();
}

/// Returns a value of the setting that is not its default, and that fits the other settings.
fn other(setting: &Setting) -> String {
    let value = match setting.kind {
        Kind::Bool => Value::Bool(setting.default != "true"),
        Kind::Integer(min, max) => {
            let other = if setting.default == max.to_string() {
                min
            } else {
                max
            };
            Value::Integer(other)
        }
        Kind::Text => Value::Text("debug".to_owned()),
        Kind::Path => Value::Text("/some \"where\"\\\tor/\u{e9}lse".to_owned()),
        Kind::Address | Kind::AddressOrNone => Value::Text("[::1]:9".to_owned()),
        Kind::Choice(words) => Value::Text(words[words.len() - 1].to_owned()),
        Kind::Endpoint => Value::Text("http://collector:4317".to_owned()),
    };
    match value {
        Value::Bool(value) => value.to_string(),
        Value::Integer(value) => value.to_string(),
        Value::Text(text) => text,
    }
}

/// Returns the settings that must be set too, so that this one is accepted and has an effect.
fn with_its_conditions(setting: &Setting) -> Vec<(&'static str, String)> {
    let level = setting.key.split('.').next();
    let mut set: Vec<(&str, String)> = match level {
        Some("tls") => vec![
            ("tls.certificate", "c".to_owned()),
            ("tls.key", "k".to_owned()),
            ("tls.client_authorities", "a".to_owned()),
        ],
        Some("otlp") => vec![("otlp.endpoint", "http://first:1".to_owned())],
        _ => Vec::new(),
    };
    set.push((setting.key, other(setting)));
    set
}

#[test]
fn every_setting_changes_something_from_every_layer() {
    for setting in SETTINGS {
        let set = with_its_conditions(setting);
        let without = &set[..set.len() - 1];
        let flags = |set: &[(&'static str, String)]| {
            let mut flags = Flags::default();
            for (key, value) in set {
                flags.set(key, value, "--set");
            }
            flags
        };
        let nowhere = Path::new("/nonexistent");
        let before = Settings::from_layers(&flags(without), [], nowhere).unwrap();
        let by_flag = Settings::from_layers(&flags(&set), [], nowhere).unwrap();
        assert_ne!(in_force(&before), in_force(&by_flag), "{setting:?}");

        let variables = set
            .iter()
            .map(|(key, value)| (layers::variable(key), value.clone()));
        let by_variable = Settings::from_layers(&Flags::default(), variables, nowhere).unwrap();
        assert_eq!(in_force(&by_variable), in_force(&by_flag), "{setting:?}");

        // Both sources at once: the printed settings are the same when they are read again.
        let printed = by_flag.to_toml();
        let read = super::tests::settings(&printed, &[], &[]).good();
        assert_eq!(in_force(&read), in_force(&by_flag), "{printed}");
    }
}

#[test]
fn what_is_printed_says_where_it_comes_from() {
    let loaded = settings(
        "drain_ms = 5\n[limits.quota]\nstreams = 3\n",
        &[("DEED__NAME", "ledger.example.org")],
        &[("limits.reads", "9")],
    );
    let path = loaded.file.clone();
    let printed = loaded.good().to_toml().replace(&path, "FILE");
    for line in [
        "data_dir = \"./deed-data\" # default",
        "name = \"ledger.example.org\" # environment variable DEED__NAME",
        "drain_ms = 5 # file FILE",
        "[limits]",
        "reads = 9 # flag --set",
        "[limits.quota]",
        "streams = 3 # file FILE",
        "key_file = \"./deed-data.content-key\" # default",
        "# endpoint is not set",
    ] {
        assert!(
            printed.lines().any(|printed| printed == line),
            "{line} in:\n{printed}"
        );
    }
}

#[test]
fn the_example_names_every_setting_and_is_the_one_in_deploy() {
    let example = example();
    // The example sets nothing, because every line is commented out.
    let changed = settings(&example, &[], &[]).good();
    assert_eq!(in_force(&changed), in_force(&settings("", &[], &[]).good()));
    // With the defaults uncommented, it changes nothing either.
    let set: String = example
        .lines()
        .filter(|line| !line.ends_with("= \"\"") && !line.ends_with("required = true"))
        .map(|line| match line.strip_prefix('#') {
            Some(setting) if !setting.starts_with(' ') => format!("{setting}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    let changed = settings(&set, &[], &[]).good();
    assert_eq!(in_force(&changed), in_force(&settings("", &[], &[]).good()));
    for setting in SETTINGS {
        assert!(
            example.contains(&layers::variable(setting.key)),
            "{setting:?}"
        );
    }
    let deployed = include_str!("../../../deploy/deed.toml");
    assert!(
        example == deployed,
        "deploy/deed.toml is behind: `deed-server config --example > deploy/deed.toml`"
    );
}

#[test]
fn operators_are_told_of_every_setting_and_its_default() {
    let told = include_str!("../../../docs/operations.md");
    for setting in SETTINGS {
        let default = match setting.default {
            "" => "-".to_owned(),
            default => format!("`{default}`"),
        };
        let row = format!("| `{}` | {default} | {} |", setting.key, setting.doc);
        assert!(told.contains(&row), "docs/operations.md lacks {row}");
    }
}
