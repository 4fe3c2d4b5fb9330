//! A full disk, a folder that cannot be written, a second process, and an orderly end.

use std::process::Command;

use serde_json::json;
use system_tests::{Folder, Server, Setup};

/// Starts the process so that files cannot grow beyond `kib`; a write beyond it fails instead of ending the process.
fn with_file_limit(kib: u32) -> Setup {
    let script = format!("trap '' XFSZ; ulimit -S -f {kib}; exec \"$0\" \"$@\"");
    Setup { through: vec!["bash".to_owned(), "-c".to_owned(), script], ..Setup::default() }
}

/// `to`: bytes, or `unlimited`.
fn move_file_limit(server: &Server, to: &str) {
    let limit = format!("--fsize={to}:unlimited");
    let done = Command::new("prlimit").args(["--pid", &server.pid().to_string(), &limit]).status().unwrap();
    assert!(done.success());
}

#[tokio::test]
async fn a_full_disk_is_503_and_the_service_goes_on_when_there_is_room() {
    let folder = Folder::new();
    let server = Server::start_with(&folder, with_file_limit(1_536));
    let (account, link) = server.account_with_link(json!({})).await;
    let click = server.follow_link(&link, "").await;
    let filler = "x".repeat(4_000);
    let mut counted = 0;
    let mut full = false;
    for n in 0..2_000 {
        let query = format!("clickId={}&event=deposit&tid={n}&earning=1&note={filler}", click.id);
        let answer = server.postback(&account, &query).await;
        match answer.status {
            200 => counted += 1,
            503 => {
                assert!(answer.header("retry-after").is_some());
                full = true;
                break;
            }
            other => panic!("{other}: {}", answer.text()),
        }
    }
    assert!(full && counted > 10, "the limit was reached after {counted} postbacks");

    // A visitor is never stopped: the redirect goes out, without a click id. A click is smaller than the postbacks
    // above and might still fit, so the room goes altogether.
    move_file_limit(&server, "4096");
    let answer = server.open_link(&link, "dyn=full").await.expect(302);
    assert!(answer.header("x-clickback-click").is_none() && answer.header("x-clickback-receipt").is_none());
    assert_eq!(answer.header("location"), Some("https://casino.example/welcome"));

    move_file_limit(&server, "unlimited");
    let retried = server.accepted(&account, &format!("clickId={}&event=deposit&tid=after&earning=1", click.id)).await;
    assert_eq!(server.hit(&retried).await["outcome"], "converted");
    counted += 1;
    let report = server.conversions_report("").await;
    assert_eq!(report["totals"]["goals"], json!({ "deposits": counted }));
    assert_eq!(report["totals"]["clicks"], 1, "the click that could not be kept is in no report");
    let folder = server.stop();
    folder.assert_audit_is_clean();
    let server = Server::start_on(&folder);
    assert_eq!(server.conversions_report("").await["totals"], report["totals"]);
}

#[tokio::test]
async fn a_second_process_on_the_folder_is_refused() {
    let server = Server::start();
    let Err(stderr) = Server::try_start(&server.folder, Setup::default()) else { panic!("two writers on one folder") };
    assert!(stderr.contains(server.folder.data().to_str().unwrap()), "{stderr}");
    let (account, _) = server.account_with_link(json!({})).await;
    server.accepted(&account, "dyn=a&signups=1").await;
    let folder = server.kill();
    // The lock goes with the process that held it.
    Server::start_on(&folder);
}

#[tokio::test]
async fn sigterm_answers_what_is_in_flight_and_ends_well() {
    let server = Server::start();
    let (account, link) = server.account_with_link(json!({})).await;
    let click = server.follow_link(&link, "").await;
    let url = format!("{}/post-back/{}", server.ingest, account.token);
    let mut sent = Vec::new();
    for n in 0..200 {
        let request = server.http.get(format!("{url}?clickId={}&event=deposit&tid={n}", click.id));
        sent.push(tokio::spawn(system_tests::Answer::try_of(request)));
        if n == 100 {
            server.signal("TERM");
        }
        tokio::task::yield_now().await;
    }
    let mut answered = 0;
    for request in sent {
        // A connection that came after the end is refused; one that was taken is answered.
        if let Ok(answer) = request.await.unwrap() {
            assert!(matches!(answer.status, 200 | 503), "{}", answer.status);
            answered += u64::from(answer.status == 200);
        }
    }
    let folder = server.folder.clone();
    let (status, stderr) = server.ended();
    assert!(status.success(), "{status}: {stderr}");
    assert!(!stderr.contains("panicked"), "{stderr}");
    folder.assert_audit_is_clean();
    let server = Server::start_on(&folder);
    let report = server.conversions_report("").await;
    let counted = report["totals"]["goals"]["deposits"].as_u64().unwrap_or(0);
    assert!(counted >= answered, "{answered} answered with 200, {counted} counted");
}

/// A folder that belongs to somebody else: the start fails, and says why.
#[tokio::test]
async fn a_folder_that_cannot_be_written_is_refused_at_the_start() {
    let folder = Folder::new();
    Server::start_on(&folder).stop();
    // Also root is stopped by a name that is a folder where a file must be.
    std::fs::remove_file(folder.data().join("log.db")).unwrap();
    std::fs::create_dir(folder.data().join("log.db")).unwrap();
    let Err(stderr) = Server::try_start(&folder, Setup::default()) else { panic!("started without a log") };
    assert!(stderr.contains("log.db"), "{stderr}");
}

/// The master key is readable by its owner only.
#[tokio::test]
async fn the_key_file_is_private() {
    use std::os::unix::fs::PermissionsExt;
    let server = Server::start();
    let mode = std::fs::metadata(server.folder.data().join("key")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}
