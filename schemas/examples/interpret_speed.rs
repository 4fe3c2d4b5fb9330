//! Prints how long it takes to read a postback, and in bytes per second:
//! `cargo run --release -p schemas --example interpret_speed`.

use std::{error::Error, hint::black_box, io::Write, time::Instant};

use schemas::{
    Time,
    interpret::{RawRequest, interpret, stored},
    redact::redact,
    settings::AccountSettings,
};

/// Bytes that one run reads.
const BYTES_PER_RUN: usize = 16 * 1024 * 1024;

fn main() -> Result<(), Box<dyn Error>> {
    let settings = AccountSettings::generic("default", "demo");
    let receipt = Time::from_ms(1_800_000_000_000);
    let id = schemas::ClickId::new(Time::from_ms(1_799_999_000_000), 7, 42);
    let long = |text: &str| format!("dyn=a&ftd=1&x={}", text.repeat(15 * 1024 / text.len()));
    let texts = [
        ("signup", format!("dyn={id}&signups=1")),
        ("deposit", format!("clickId={id}&earning=50.00&firsttimedeposits=1&currency=USD&tid=ABC-12345")),
        (
            "many",
            format!(
                "clickId={id}&event=ftd&amount=12.50&currency=EUR&txid=99&player_id=1234&sub1=a&sub2=b&sub3=c&country=DE&ip=192.0.2.1&ua=Mozilla%2F5.0+%28X11%29&status=approved&offer=17&ts=1799999999"
            ),
        ),
        ("macro", "dyn={DynamicVar}&signups=1".to_owned()),
        ("foreign", "subid=c384EFV6JHQODRN70575OK6UG5&payout=10%2C00&status=sale".to_owned()),
        ("composite", format!("subid=%22123_{id}%22&payout=10&status=sale")),
        ("twice", format!("dyn%3D{id}%26signups%3D1%26earning%3D5")),
        ("long text", long("lorem ipsum ")),
        ("long hex", long("deadbeef")),
        ("escapes", long("%2525")),
        ("braces", long("{a}_")),
        ("hidden", long("?b=")),
        ("pieces", "a=%7Bb%7D&".repeat(200)),
    ];
    let mut out = std::io::stdout().lock();
    for (name, text) in &texts {
        let raw = RawRequest { method: "GET", query: text.as_bytes(), body: None, content_type: None };
        let rounds = (BYTES_PER_RUN / text.len()).clamp(100, 200_000);
        let read = time(rounds, || drop(black_box(interpret(black_box(&raw), &settings, receipt))));
        let keep = time(rounds, || {
            drop(black_box(redact(black_box(&raw), &settings.redact, &|_, _| "h:0000000000000000".to_owned())))
        });
        let kept = redact(&raw, &settings.redact, &|_, _| "h:0000000000000000".to_owned());
        let again = kept.iter().flat_map(|raw| interpret(&stored(raw), &settings, receipt)).count();
        let bytes = text.len() as f64;
        writeln!(
            out,
            "{name:9} {bytes:6} bytes  interpret {read:7.0} ns {:6.0} MB/s  redact {keep:6.0} ns  ({again} reading)",
            bytes * 1_000.0 / read,
        )?;
    }
    Ok(())
}

/// Nanoseconds of one call, best of five runs.
fn time(rounds: usize, mut call: impl FnMut()) -> f64 {
    let run = |call: &mut dyn FnMut()| {
        let start = Instant::now();
        for _ in 0..rounds {
            call();
        }
        start.elapsed().as_nanos() as f64 / rounds as f64
    };
    (0..5).map(|_| run(&mut call)).fold(f64::INFINITY, f64::min)
}
