//! The command line: what each command prints, and its exit code.

use serde_json::{Value, json};
use system_tests::{Folder, Server, Setup, clickback, clickback_with};

#[test]
fn bad_usage_is_exit_code_2_and_help_is_complete() {
    for args in
        [&["nosuch"][..], &["run", "--nosuch"], &["run", "--ingest", "here"], &["key", "create", "--tenant", "t"], &[]]
    {
        let finished = clickback(args);
        assert_eq!(finished.code, Some(2), "{args:?}: {}", finished.stderr);
        assert!(!finished.stderr.is_empty());
    }
    let help = clickback(&["--help"]);
    assert_eq!(help.code, Some(0));
    for command in ["run", "demo", "key", "check", "audit", "rebuild"] {
        assert!(help.stdout.contains(command), "{command}");
        assert_eq!(clickback(&[command, "--help"]).code, Some(0), "{command}");
    }
    let help = clickback(&["run", "--help"]).stdout;
    for flag in ["--data", "--ingest", "--api", "--public-url", "--trusted-proxy", "--config", "--log-format"] {
        assert!(help.contains(flag), "{flag}");
    }
}

#[test]
fn a_config_file_with_an_unknown_key_is_an_error_that_names_it() {
    let folder = Folder::new();
    let file = folder.path().join("clickback.toml");
    std::fs::write(&file, "dtaa = \"/tmp/x\"\n").unwrap();
    let finished = clickback(&["run", "--config", file.to_str().unwrap()]);
    assert_eq!(finished.code, Some(2), "{}", finished.stderr);
    assert!(finished.stderr.contains("dtaa"), "{}", finished.stderr);
    let finished = clickback(&["run", "--config", "/nosuch.toml"]);
    assert!(finished.code.unwrap() > 0 && finished.stderr.contains("/nosuch.toml"), "{}", finished.stderr);
}

#[test]
fn an_address_in_use_or_a_folder_that_cannot_be_made_is_said_plainly() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let folder = Folder::new();
    let data = folder.data();
    let finished = clickback(&["run", "--data", data.to_str().unwrap(), "--ingest", &address, "--api", "127.0.0.1:0"]);
    assert_eq!(finished.code, Some(1));
    assert!(finished.stderr.contains(&address), "{}", finished.stderr);

    let file = folder.path().join("file");
    std::fs::write(&file, "x").unwrap();
    let below = file.join("data");
    let finished =
        clickback(&["run", "--data", below.to_str().unwrap(), "--ingest", "127.0.0.1:0", "--api", "127.0.0.1:0"]);
    assert_eq!(finished.code, Some(1));
    assert!(finished.stderr.contains(below.to_str().unwrap()), "{}", finished.stderr);
}

#[tokio::test]
async fn the_first_start_prints_an_admin_key_once() {
    let folder = Folder::new();
    let setup = || Setup { own_admin_key: true, ..Setup::default() };
    let server = Server::start_with(&folder, setup());
    let key = server.key.clone();
    assert!(key.starts_with("cbk_"), "{:?}", server.greeting);
    server.call(reqwest::Method::POST, "/v1/keys", Some(&json!({ "name": "x", "scope": "admin" }))).await.expect(201);
    server.stop();
    let server = Server::start_with(&folder, setup());
    assert_eq!(server.key, "", "only once: {:?}", server.greeting);
    server.call_as(&key, reqwest::Method::GET, "/v1/accounts", None).await.expect(200);
}

#[tokio::test]
async fn keys_are_created_beside_a_running_process_and_without_one() {
    let server = Server::start();
    let data = server.folder.data();
    let create =
        || clickback(&["key", "create", "--tenant", "default", "--scope", "read", "--data", data.to_str().unwrap()]);
    let beside = create();
    assert_eq!(beside.code, Some(0), "{}", beside.stderr);
    server.call_as(beside.stdout.trim(), reqwest::Method::GET, "/v1/accounts", None).await.expect(200);
    let folder = server.stop();
    let without = create();
    assert_eq!(without.code, Some(0), "{}", without.stderr);
    let server = Server::start_on(&folder);
    for key in [beside.stdout.trim(), without.stdout.trim()] {
        server.call_as(key, reqwest::Method::GET, "/v1/accounts", None).await.expect(200);
    }
}

#[test]
fn check_explains_a_postback_url_offline() {
    let url = "https://t.example/post-back/TOKEN?dyn=%7Bc%7D&signups=1";
    let finished = clickback(&["check", url, "--program", "income-access", "--json"]);
    let said: Value = serde_json::from_str(&finished.stdout).unwrap();
    assert_eq!(
        (said["would"].as_str(), said["reason"].as_str()),
        (Some("rejected"), Some("unreplaced_macro")),
        "{said}"
    );
    assert_eq!(finished.code, Some(1));
    let finished = clickback(&["check", &url.replace("%7Bc%7D", "abc"), "--json"]);
    let said: Value = serde_json::from_str(&finished.stdout).unwrap();
    assert_eq!((said["would"].as_str(), finished.code), (Some("accepted"), Some(0)), "{said}");
    for field in
        ["would", "reason", "hint", "click", "dyn", "goals", "state", "earning", "currency", "tid", "corrections"]
    {
        assert!(said.get(field).is_some(), "{field}");
    }
    assert_eq!(said["goals"], json!([{ "goal": "signups", "count": 1 }]));
    let text = clickback(&["check", url]).stdout;
    assert!(text.contains("unreplaced_macro") || text.contains("placeholder"), "{text}");
}

#[test]
fn check_knows_whether_a_landing_url_carries_the_programs_parameter() {
    let good =
        clickback(&["check", "https://casino.example/?c=06h04h780352c32wd6mej51ahk", "--program", "income-access"]);
    assert_eq!(good.code, Some(0), "{}{}", good.stdout, good.stderr);
    let bad = clickback(&["check", "https://casino.example/?clickid=1", "--program", "income-access"]);
    assert_eq!(bad.code, Some(1), "{}{}", bad.stdout, bad.stderr);
    assert!(bad.stdout.contains('c'), "{}", bad.stdout);
    assert_eq!(clickback(&["check", "https://casino.example/", "--program", "nosuch"]).code, Some(2));
}

#[tokio::test]
async fn audit_runs_beside_a_live_process_and_finds_a_changed_table() {
    let server = Server::start();
    let (account, link) = server.account_with_link(json!({})).await;
    for n in 0..20 {
        let click = server.follow_link(&link, "").await;
        server.accepted(&account, &format!("clickId={}&event=deposit&tid={n}&earning=1.5", click.id)).await;
    }
    server.conversions_report("").await;
    server.folder.assert_audit_is_clean();
    let folder = server.stop();
    folder.assert_audit_is_clean();

    // An audit that cannot find a difference shows nothing.
    let tables = folder.data().join("tables.db");
    let whole = std::fs::read(&tables).unwrap();
    for damage in [
        "delete from cell_segments where id = (select max(id) from cell_segments)",
        "delete from hits where src = (select max(src) from hits)",
        "update conversions set data = (select data from conversions where number = (select max(number) from conversions))
         where number = (select min(number) from conversions)",
        "delete from clicks where src = (select min(src) from clicks)",
    ] {
        let changed = rusqlite::Connection::open(&tables).unwrap().execute(damage, []).unwrap();
        assert_eq!(changed, 1, "{damage}");
        let audit = folder.audit();
        assert_eq!(audit.code, Some(1), "after {damage}:\n{}", audit.stdout);
        assert!(audit.stdout.contains("difference"), "{}", audit.stdout);
        std::fs::write(&tables, &whole).unwrap();
    }
    folder.assert_audit_is_clean();
}

#[tokio::test]
async fn rebuild_while_serving_gives_the_same_report() {
    let server = Server::start();
    let (account, link) = server.account_with_link(json!({})).await;
    for n in 0..30 {
        let click = server.follow_link(&link, &format!("sub1=s{}", n % 3)).await;
        server.accepted(&account, &format!("clickId={}&event=deposit&tid={n}&earning=2", click.id)).await;
    }
    let before = server.conversions_report("group_by=sub1&sort=sub1").await["rows"].clone();
    let rebuild = clickback(&["rebuild", "--data", server.folder.data().to_str().unwrap()]);
    assert_eq!(rebuild.code, Some(0), "{}", rebuild.stderr);
    assert_eq!(server.conversions_report("group_by=sub1&sort=sub1").await["rows"], before);
    let click = server.follow_link(&link, "sub1=new").await;
    server.accepted(&account, &format!("clickId={}&signups=1", click.id)).await;
    assert_eq!(server.conversions_report("sub1=new&group_by=sub1").await["rows"].as_array().unwrap().len(), 1);
    server.folder.assert_audit_is_clean();
}

#[test]
fn audit_of_a_folder_that_is_not_there_fails() {
    let finished = clickback(&["audit", "--data", "/nosuch/folder"]);
    assert_eq!(finished.code, Some(1));
    assert!(finished.stderr.contains("/nosuch/folder"), "{}", finished.stderr);
}

#[test]
fn settings_come_from_the_environment_too() {
    let finished = clickback_with(&["audit"], &[("CLICKBACK_DATA", "/nosuch/from-env")]);
    assert_eq!(finished.code, Some(1));
    assert!(finished.stderr.contains("/nosuch/from-env"), "{}", finished.stderr);
}

#[tokio::test]
async fn state_and_tables_can_be_deleted_and_are_rebuilt_from_the_log() {
    let server = Server::start();
    let (account, link) = server.account_with_link(json!({})).await;
    let click = server.follow_link(&link, "dyn=keep").await;
    server.accepted(&account, "dyn=keep&signups=1").await;
    let before = server.conversions_report("").await["totals"].clone();
    let folder = server.stop();
    for entry in std::fs::read_dir(folder.data()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if name.starts_with("state.db") || name.starts_with("tables.db") {
            std::fs::remove_file(path).unwrap();
        }
    }
    let server = Server::start_on(&folder);
    assert_eq!(server.conversions_report("").await["totals"], before);
    let row = server.decided(&account, "dyn=keep&signups=1").await;
    assert_eq!((&row["outcome"], &row["click"]), (&json!("duplicate"), &json!(click.id)));
    server.folder.assert_audit_is_clean();
}
