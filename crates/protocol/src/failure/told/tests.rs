//! The shapes, one by one.

use super::*;
use proptest::prelude::*;

#[test]
fn every_shape_is_read() {
    let check = |body: &str, expected: Option<(&str, Option<&str>, Option<&str>)>| {
        let error = Told::json(body.as_bytes());
        let found = error.as_ref().map(|e| (e.message.as_str(), e.kind.as_deref(), e.code.as_deref()));
        assert_eq!(found, expected, "{body}");
    };
    check(
        r#"{"error":{"message":"no","type":"billing","param":null,"code":"quota"}}"#,
        Some(("no", Some("billing"), Some("quota"))),
    );
    check(r#"{"error":{"message":"no","type":"x","code":null}}"#, Some(("no", Some("x"), None)));
    check(r#"{"error":{"message":"no","code":402,"metadata":{}}}"#, Some(("no", None, Some("402"))));
    check(
        r#"[{"error":{"code":429,"message":"slow","status":"RESOURCE_EXHAUSTED"}}]"#,
        Some(("slow", Some("RESOURCE_EXHAUSTED"), Some("429"))),
    );
    check(r#"{"error":"text"}"#, Some(("text", None, None)));
    check(r#"{"code":"c","error":"text"}"#, Some(("text", None, Some("c"))));
    check(r#"{"message":"Unauthorized","request_id":"r"}"#, Some(("Unauthorized", None, None)));
    check(r#"{"object":"error","message":"m","type":"t","code":400}"#, Some(("m", Some("t"), Some("400"))));
    check(r#"{"detail":"Not Found"}"#, Some(("Not Found", None, None)));
    check(r#"{"detail":[{"loc":["body"],"msg":"a","type":"t"},{"msg":"b"}]}"#, Some(("a; b", None, None)));
    check(r#"{"error_code":336501,"error_msg":"rate"}"#, Some(("rate", None, Some("336501"))));
    check(
        r#"{"type":"error","error":{"type":"overloaded_error","message":"m"}}"#,
        Some(("m", Some("overloaded_error"), None)),
    );
    check(r#"{"statusCode":429,"message":"m"}"#, Some(("m", None, Some("429"))));
    check(r#"{"error":{}}"#, Some(("", None, None)));
    for body in
        ["", "{}", "[]", "null", "<html>", r#"{"error":null}"#, r#"{"error":false}"#, r#"{"choices":[]}"#, "[1,2]"]
    {
        check(body, None);
    }
    check(&"[".repeat(10_000), None);
}

#[test]
fn what_is_no_json_is_read_as_far_as_it_goes() {
    let check = |body: &str, message: &str, code: Option<&str>, form: Form| {
        let told = Told::any(body.as_bytes());
        assert_eq!((told.message.as_str(), told.code.as_deref(), told.form), (message, code, form), "{body}");
    };
    check("", "", None, Form::Empty);
    check(" \n", "", None, Form::Empty);
    check("upstream connect error", "upstream connect error", None, Form::Text);
    check("<html><head><title>\n502 Bad Gateway </title>", "502 Bad Gateway", None, Form::Html);
    check("<h1>No</h1>", "No", None, Form::Html);
    check("<html>", "", None, Form::Html);
    check(r#"{"error":{"code":429,"message":"slow do"#, "slow do", Some("429"), Form::Truncated);
    check(
        r#"{"error":{"message":"a \"code\": \"forged\" b","code":"real"#,
        "a \"code\": \"forged\" b",
        Some("real"),
        Form::Truncated,
    );
    check("{'error': {'message': 'it is no', 'code': 'c', 'param': None}}", "it is no", Some("c"), Form::Truncated);
    check("{\"error\":", "", None, Form::Truncated);
    assert_eq!(
        Told::any(br#"{"type":"error","error":{"type":"overloaded_error","message":"O"#).kind.as_deref(),
        Some("overloaded_error")
    );
    assert_eq!(Told::any(b"\xff\xfe\x00").form, Form::Text);
}

#[test]
fn statuses_in_bodies_are_those_of_failures() {
    for (body, status) in [
        (r#"{"error":{"code":429,"message":"m"}}"#, Some(429)),
        (r#"{"error":{"code":"503","message":"m"}}"#, Some(503)),
        (r#"{"error":{"code":"1302","message":"m"}}"#, None),
        (r#"{"error":{"code":200,"message":"m"}}"#, None),
        (r#"{"error":{"code":1e30,"message":"m"}}"#, None),
        (r#"{"message":"m","originalStatusCode":500}"#, Some(500)),
    ] {
        assert_eq!(Told::json(body.as_bytes()).unwrap().status, status, "{body}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_answered(body in prop::collection::vec(any::<u8>(), 0..200), text in "[\\[{}\\]\"':,a-z0-9 \\\\]{0,120}") {
        Told::any(&body);
        Told::any(text.as_bytes());
        Told::field(&text);
        let told = Told::any(format!("{{\"error\":{{{text}").as_bytes());
        prop_assert!(told.message.len() <= MESSAGE_BYTES_MAX);
    }
}
