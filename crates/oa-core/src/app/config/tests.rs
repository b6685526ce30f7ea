#![allow(clippy::unwrap_used)]
use super::*;

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(Path::new("/etc/oa/oa.toml"), text)
}

fn message(text: &str) -> String {
    parse(text).unwrap_err().to_string()
}

#[test]
fn an_empty_file_means_the_documented_defaults() {
    let config = parse("").unwrap();
    assert_eq!(config.timezone, chrono_tz::Asia::Shanghai);
    assert_eq!(config.locale, Locale::Zh);
    assert_eq!(config.state_dir, Path::new("/var/lib/oa"));
    assert_eq!(config.spool.max_size, Bytes(1 << 30));
    assert_eq!(config.alert_repeat(), Duration::from_secs(4 * 3600));
}

#[test]
fn an_unknown_key_is_named_with_section_line_and_the_nearest_valid_one() {
    assert_eq!(
        message("timezone = \"Asia/Shanghai\"\n\n[crawl]\nretrys = 3\n"),
        "could not read config /etc/oa/oa.toml: unknown key \"retrys\" in [crawl], line 4; did you mean \"retries\"?"
    );
    assert_eq!(
        message("time_zone = \"Asia/Shanghai\"\n"),
        "could not read config /etc/oa/oa.toml: unknown key \"time_zone\", line 1; did you mean \"timezone\"?"
    );
    assert!(
        message(
            "[[alert.channels]]\nname=\"a\"\nkind=\"dingtalk\"\nurl=\"env:X\"\nsecrt=\"env:Y\"\n"
        )
        .contains("unknown key \"secrt\" in [[alert.channels]], line 5; did you mean \"secret\"?")
    );
    assert!(
        message("[providers.zhihuo]\nbase = \"http://x\"\n").contains("did you mean \"zhihui\"?")
    );
}

#[test]
fn broken_toml_and_wrong_values_say_where() {
    assert!(
        message("[database\nurl = 1").contains("line 1"),
        "{}",
        message("[database\nurl = 1")
    );
    let text = message("[crawl]\nretry_delay = \"soon\"\n");
    assert!(
        text.contains("\"soon\" is not a duration") && text.contains("line 2"),
        "{text}"
    );
    let text = message("timezone = \"Mars/Olympus\"\n");
    assert!(text.contains("line 1"), "{text}");
    for (text, part) in [
        ("[crawl]\nretries = 4294967295\n", "in [crawl], retries is"),
        (
            "[crawl]\ntimeout = \"800h\"\n",
            "timeout is longer than 24 hours",
        ),
        ("[crawl]\ntimeout = 0\n", "timeout is 0"),
    ] {
        assert!(message(text).contains(part), "{}", message(text));
    }
}

#[test]
fn a_city_is_no_zone_and_a_tilde_no_folder_but_the_right_one_is_named() {
    for (text, part) in [
        (
            "timezone = \"Shanghai\"\n",
            "did you mean \"Asia/Shanghai\"?",
        ),
        (
            "timezone = \"Asia/Shangai\"\n",
            "did you mean \"Asia/Shanghai\"?",
        ),
        ("timezone = \"+08\"\n", "\"Asia/Shanghai\""),
        ("state_dir = \"~/oa\"\n", "\"~/oa\" begins with ~"),
        (
            "[backup]\nrepository = \"~/b\"\npassword = \"env:X\"\n",
            "\"~/b\" begins with ~",
        ),
    ] {
        assert!(message(text).contains(part), "{}", message(text));
    }
}

#[test]
fn a_value_in_the_wrong_place_is_not_quoted() {
    let channel = "[[alert.channels]]\nname = \"a\"\nurl = \"env:X\"\nkind = ";
    for (text, part) in [
        (
            "[backup]\nrepository = \"/b\"\npassword = 12345678\n".to_owned(),
            "expected a string, not an integer",
        ),
        (
            "database = \"host=h password=hunter2secret\"\n".to_owned(),
            "expected struct Database, not a string",
        ),
        (
            format!("{channel}\"SECabcdef\"\n"),
            "unknown value; valid are dingtalk",
        ),
        (
            format!("{channel}\"dingtak\"\n"),
            "unknown value \"dingtak\"; did you mean \"dingtalk\"?",
        ),
    ] {
        let text = message(&text);
        assert!(text.contains(part) && text.contains("line"), "{text}");
        for secret in ["12345678", "hunter2secret", "SECabcdef"] {
            assert!(!text.contains(secret), "{text}");
        }
    }
}

#[test]
fn a_dollar_in_dotenv_stays_or_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("oa.toml");
    let with = |text: &str| {
        oa_testkit::write_private(&dir.path().join(".env"), text);
        Config::parse(&file, "")
    };
    let config =
        with("# costs $5\nOA_TEST_A='real$token-1'\nOA_TEST_B=real\\$token-2\nPATH_OF_OA_TEST=x\n")
            .unwrap();
    assert_eq!(config.env("OA_TEST_A").as_deref(), Some("real$token-1"));
    assert_eq!(config.env("OA_TEST_B").as_deref(), Some("real$token-2"));
    for text in [
        "\nOA_TEST_A=real$token-1\n",
        "\nOA_TEST_A=\"real$token-1\"\n",
    ] {
        let error = with(text).unwrap_err().to_string();
        assert!(
            error.contains("line 2 holds a $") && !error.contains("token"),
            "{error}"
        );
    }
}

#[test]
fn a_missing_secret_says_which_setting_and_which_reference() {
    let config = parse("[database]\nurl = \"env:OA_TEST_SURELY_NOT_SET\"\n").unwrap();
    let error = config
        .secret(config.database.url.as_ref().unwrap(), "database.url")
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with(
            "database.url refers to env:OA_TEST_SURELY_NOT_SET, which is not set; export"
        ),
        "{error}"
    );
}

#[test]
fn dotenv_beside_the_file_and_secret_files_are_read() {
    let dir = tempfile::tempdir().unwrap();
    oa_testkit::write_private(&dir.path().join(".env"), "OA_TEST_TOKEN='from dotenv'\n");
    oa_testkit::write_private(&dir.path().join("robot"), "hook-value\n");
    let config = Config::parse(&dir.path().join("oa.toml"), "state_dir = \"state\"").unwrap();
    assert_eq!(
        config
            .secret(&SecretRef::Env("OA_TEST_TOKEN".into()), "x")
            .unwrap()
            .expose(),
        "from dotenv"
    );
    assert_eq!(
        config
            .secret(&SecretRef::File("robot".into()), "x")
            .unwrap()
            .expose(),
        "hook-value"
    );
    assert_eq!(config.state_dir, dir.path().join("state"));
}

#[test]
fn a_broken_dotenv_is_reported_without_its_secret() {
    let dir = tempfile::tempdir().unwrap();
    oa_testkit::write_private(&dir.path().join(".env"), "TOKEN=abc def-secret\n");
    let error = Config::parse(&dir.path().join("oa.toml"), "")
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("line 1 is not NAME=VALUE") && !error.contains("def-secret"),
        "{error}"
    );
    oa_testkit::write_private(&dir.path().join(".env"), "A=b\nTOKEN=\"abc\ndef-secret\n");
    let error = Config::parse(&dir.path().join("oa.toml"), "")
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("a quoted value is not NAME=VALUE") && !error.contains("def-secret"),
        "{error}"
    );
}

#[test]
fn secrets_in_the_file_itself_are_warned_of() {
    let config = parse("[database]\nurl = \"postgresql://oa:pw@db/oa\"\n").unwrap();
    assert_eq!(config.warnings().len(), 1);
    assert!(!format!("{config:?}").contains("pw@db"));
    assert!(
        parse("[database]\nurl = \"postgresql://oa@localhost/oa\"\n")
            .unwrap()
            .warnings()
            .is_empty()
    );
}

#[test]
fn sizes_and_durations_are_read_as_people_write_them() {
    assert_eq!("1GiB".parse::<Bytes>().unwrap(), Bytes(1 << 30));
    assert_eq!("500 MB".parse::<Bytes>().unwrap(), Bytes(500_000_000));
    assert!("1 apple".parse::<Bytes>().is_err());
    assert_eq!("5m".parse::<Span>().unwrap(), Span::seconds(300));
    assert_eq!("90".parse::<Span>().unwrap(), Span::seconds(90));
    assert!("-1s".parse::<Span>().is_err());
}

#[test]
fn values_that_nobody_can_mean_are_refused() {
    for (text, part) in [
        (
            "[database]\nconnect_timeout = 0\n",
            "connect_timeout in [database] is 0",
        ),
        (
            "[database]\nstatement_timeout = \"30 days\"\n",
            "statement_timeout in [database] is between",
        ),
        (
            "[database]\nstatement_timeout = \"100ns\"\n",
            "statement_timeout in [database] is between",
        ),
        (
            "[database]\nurl = \"env: DATABASE_URL\"\n",
            "names no environment variable",
        ),
        ("[spool]\nmax_size = 0\n", "max_size in [spool] is 0"),
        ("state_dir = \"\"\n", "a path is empty"),
        ("[crawl]\nsources = \"\"\n", "a path is empty"),
        (
            "timezone = \"Asia/Beijing\"\n",
            "did you mean \"Asia/Shanghai\"?",
        ),
        ("timezone = \"CST\"\n", "did you mean \"Asia/Shanghai\"?"),
    ] {
        assert!(message(text).contains(part), "{}", message(text));
    }
    parse("[database]\nstatement_timeout = 0\n").unwrap();
}

#[test]
fn what_windows_editors_write_is_read_or_explained() {
    let dir = tempfile::tempdir().unwrap();
    oa_testkit::write_private(&dir.path().join(".env"), "\u{feff}OA_TEST_BOM=x\r\n");
    let path = dir.path().join("oa.toml");
    let write = |bytes: &[u8]| std::fs::write(&path, bytes).unwrap();
    write("\u{feff}locale = \"en\"\r\n".as_bytes());
    let config = Config::load(Some(&path)).unwrap();
    assert_eq!(config.env("OA_TEST_BOM").as_deref(), Some("x"));
    let utf16 =
        |text: &str| -> Vec<u8> { text.encode_utf16().flat_map(u16::to_le_bytes).collect() };
    for (bytes, part) in [
        (
            b"locale = \"en\"\n# \xd6\xd0\n".to_vec(),
            "line 2 holds bytes that are no UTF-8",
        ),
        (utf16("locale = \"en\"\n"), "line 1 holds a zero byte"),
        (
            utf16("\u{feff}locale = \"en\"\n"),
            "line 1 holds a zero byte",
        ),
    ] {
        write(&bytes);
        let error = Config::load(Some(&path)).unwrap_err().to_string();
        assert!(
            error.contains(part) && error.contains("save the file as UTF-8"),
            "{error}"
        );
    }
    // Nobody should follow an advice to change the mode of a folder or a device.
    for place in [dir.path(), Path::new("/dev/null")] {
        let error = config.secret(&SecretRef::File(place.to_owned()), "x");
        let error = error.unwrap_err().to_string();
        assert!(
            error.contains("not a regular file") && !error.contains("chmod"),
            "{error}"
        );
    }
}
