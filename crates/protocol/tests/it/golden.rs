//! Every case in every other dialect, as snapshots that are read by people: `INSTA_UPDATE=always` writes them anew.

use crate::fixtures::{CALLERS, PROVIDERS, REPLY, SPOKEN, cases, events, quirks, translated};
use protocol::canonical::Reported;
use protocol::dialect::{
    ErrorText, StreamWriter, Target, read_answer, read_request, write_answer, write_error, write_request,
};
use serde_json::Value;

fn check(name: &str, content: &str) {
    let name = name.replace(' ', "_");
    insta::with_settings!({ prepend_module_to_snapshot => false, omit_expression => true }, {
        insta::assert_snapshot!(name, content);
    });
}

fn pretty(body: &[u8]) -> String {
    let value: Value = serde_json::from_slice(body).expect("what is written is JSON");
    serde_json::to_string_pretty(&value).unwrap()
}

#[test]
fn requests_in_every_dialect() {
    for from in CALLERS {
        for (case, body) in cases(from, "request") {
            let request = read_request(from, &body).unwrap_or_else(|refusal| panic!("{case}: {refusal}"));
            for to in PROVIDERS {
                let quirks = quirks(to);
                let written = match write_request(to, &request, &Target::new("upstream", &quirks)) {
                    Ok(written) => format!("dropped: {}\n{}", written.dropped, pretty(&written.body)),
                    Err(refusal) => format!("refused: {refusal}"),
                };
                check(&format!("request {} {case} to {}", from.name(), to.name()), &written);
            }
        }
    }
}

#[test]
fn answers_in_every_dialect() {
    for from in PROVIDERS {
        for (case, body) in cases(from, "answer") {
            let answer = read_answer(from, &body, &quirks(from)).expect(&case);
            for to in CALLERS {
                let written = write_answer(to, &answer, &REPLY);
                check(&format!("answer {} {case} to {}", from.name(), to.name()), &pretty(&written));
            }
        }
    }
}

#[test]
fn streams_in_every_dialect() {
    for from in SPOKEN {
        for (case, stream) in cases(from, "stream") {
            check(&format!("stream {} {case} events", from.name()), &events(from, &[&stream]).join("\n"));
            for to in CALLERS {
                check(&format!("stream {} {case} to {}", from.name(), to.name()), &translated(from, to, &[&stream]));
            }
        }
    }
}

/// A stream that came from a dialect and is read in another one says the same.
#[test]
fn u_11_streams_are_the_same_for_every_cut() {
    for from in SPOKEN {
        for (case, stream) in cases(from, "stream") {
            let whole = events(from, &[&stream]);
            for cut in 0..=stream.len() {
                let (one, two) = stream.split_at(cut);
                assert_eq!(events(from, &[one, two]), whole, "{case} of {} cut at {cut}", from.name());
            }
            let bytes: Vec<&[u8]> = stream.chunks(1).collect();
            assert_eq!(events(from, &bytes), whole, "{case} of {} byte by byte", from.name());
        }
    }
}

/// U-10: what is missing of a stream is never made up: without its end there is no end.
#[test]
fn u_10_a_stream_that_breaks_off_has_no_end() {
    for from in SPOKEN {
        for (case, stream) in cases(from, "stream") {
            let whole = events(from, &[&stream]);
            for cut in 0..stream.len() {
                let part = events(from, &[&stream[..cut]]);
                let ended = part.iter().any(|event| event == "End");
                let stopped = part.iter().any(|event| event.starts_with("Stop"));
                assert!(!ended || stopped, "{case} of {} cut at {cut} ends", from.name());
                let sound = part.iter().filter(|event| !matches!(event.as_str(), "End" | "Unreadable"));
                let sound: Vec<_> = sound.filter(|event| !event.starts_with("PartEnd")).collect();
                assert!(
                    sound.iter().all(|event| whole.contains(event)),
                    "{case} of {} cut at {cut} says something else: {sound:?}",
                    from.name()
                );
            }
        }
    }
}

/// A dialect that is written and read again gives what was read at first.
#[test]
fn what_is_written_reads_as_what_was_read() {
    for dialect in SPOKEN {
        let quirks = quirks(dialect);
        for (case, body) in cases(dialect, "request") {
            let request = read_request(dialect, &body).unwrap();
            let target = Target { model: &request.model, include_usage: false, ..Target::new("", &quirks) };
            let Ok(written) = write_request(dialect, &request, &target) else { continue };
            let again = read_request(dialect, &written.body).unwrap_or_else(|refusal| panic!("{case}: {refusal}"));
            let rewritten = write_request(dialect, &again, &target).unwrap();
            assert_eq!(
                String::from_utf8(rewritten.body).unwrap(),
                String::from_utf8(written.body.clone()).unwrap(),
                "{case} of {}",
                dialect.name()
            );
        }
        for (case, body) in cases(dialect, "answer") {
            let answer = read_answer(dialect, &body, &quirks).unwrap();
            let reply = protocol::dialect::Reply { model: None, ..REPLY };
            let written = write_answer(dialect, &answer, &reply);
            let again = read_answer(dialect, &written, &quirks).expect(&case);
            let rewritten = write_answer(dialect, &again, &reply);
            assert_eq!(String::from_utf8(rewritten).unwrap(), String::from_utf8(written.clone()).unwrap(), "{case}");
            let tokens =
                |reported: Reported| reported.usage().map(|usage| (usage.input_tokens(), usage.output_tokens()));
            assert_eq!(tokens(again.usage), tokens(answer.usage), "{case}");
        }
    }
}

#[test]
fn errors_in_every_dialect() {
    let error = ErrorText {
        status: 429,
        kind: "rate_limit_error",
        code: Some("rate_limit_exceeded"),
        message: "Slow \"down\"\n\ndata: x",
        param: Some("model"),
    };
    for to in CALLERS {
        let mut written = write_error(to, &error);
        written.extend_from_slice(b"\n\n");
        StreamWriter::new(to, &REPLY).write_error(&error, &mut written);
        check(&format!("error to {}", to.name()), std::str::from_utf8(&written).unwrap());
    }
}
